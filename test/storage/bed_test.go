// SPDX-License-Identifier: GPL-2.0-only

// Package storage tests the methods that cut a node off from its disk, on real OCFS2: a machine serves the
// disk by iSCSI, two others mount it, and one of these is frozen, fenced, and then goes on.
package storage

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/o2fence/o2fence/test/rig"
	"github.com/o2fence/o2fence/test/vm"
)

// keptSize in bytes is that of the storage's own disk.
const keptSize = 16 << 20

// testTime is more than any of the tests takes; one that hangs has to end too.
const testTime = 5 * time.Minute

// library is for all scripts.
const library = `
	# await COMMAND...: until it succeeds
	await() { n=0; until "$@"; do n=$((n+1)); [ $n -lt 100 ] || { echo "never: $*" >&2; return 1; }; sleep 0.1; done; }
`

type machine struct {
	*testing.T
	*vm.VM
	ctx context.Context
}

func (m *machine) sh(script string) string {
	m.Helper()
	out, err := m.run(script)
	if err != nil {
		m.Fatalf("%v\n%s", err, out)
	}
	return out
}

func (m *machine) run(script string) (string, error) {
	out, err := m.VM.Run(m.ctx, "sh", "-euc", library+script)
	return strings.TrimSpace(out), err
}

func (m *machine) write(path, text string) {
	m.Helper()
	check(m.T, m.WriteFile(m.ctx, path, []byte(text), 0o600))
}

// says waits for a line on the console, behind a position.
func (m *machine) says(from int, pattern string) string {
	m.Helper()
	line, _, err := m.Console().Await(m.ctx, from, regexp.MustCompile(pattern))
	check(m.T, err)
	return line.Text
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A bed is a storage server, and two nodes that know the disk from there alone.
type bed struct {
	*testing.T
	*rig.Rig
	ctx     context.Context
	image   string // the disk, as the host sees it
	storage *machine
	files   map[string]string // of the storage
	nodes   [2]*machine
	device  string      // the disk in the nodes
	events  *rig.Events // of the first node
	lines   int         // that node1 had written into the locked file when it was fenced
}

// start boots the machines and has the first serve the disk. Both nodes are fenced by what fence says.
func start(t *testing.T, fence, serve string, files map[string]string) *bed {
	t.Helper()
	for _, program := range []string{"targetctl", "tgtd", "iscsid", "multipathd", "sg_persist", "mkfs.ext4", "filefrag"} {
		if _, err := exec.LookPath(program); err != nil { // the machines' files are the host's
			t.Skip("run: scripts/deps test: ", err)
		}
	}
	kept := filepath.Join(t.TempDir(), "kept.img")
	c := vm.TestCluster(t, vm.ClusterConfig{Nodes: 3, Machine: func(i int, c *vm.Config) {
		if i == 2 {
			c.Name, c.Disks = "storage", append(c.Disks, kept)
		} else {
			c.Disks = nil
		}
	}})
	check(t, os.WriteFile(kept, nil, 0o644))
	check(t, os.Truncate(kept, keptSize))
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	b := &bed{T: t, ctx: ctx, image: c.Disk, storage: &machine{t, c.Nodes[2], ctx}, files: files}
	for i := range b.nodes {
		b.nodes[i] = &machine{t, c.Nodes[i], ctx}
	}
	var err error
	b.Rig, err = rig.New(ctx, &vm.Cluster{Nodes: c.Nodes[:2], Disk: c.Disk}, t.TempDir(), rig.Config{
		Missed: 3, NoBMC: true, Cluster: "\tthen = off\n", Fence: fence,
	})
	check(t, err)
	t.Cleanup(func() { b.Rig.Close() })
	check(t, c.Boot(ctx))
	b.storage.sh("mkfs.ext4 -q /dev/vdb")
	b.serve(serve)
	return b
}

// serve has the storage serve the disk, after each of its starts: but for /dev/vdb its root is in memory.
func (b *bed) serve(script string) {
	b.Helper()
	for name, text := range b.files {
		b.storage.write(name, text)
	}
	if out := b.storage.sh("mkdir -p /run/lock\n" + strings.ReplaceAll(script, "IPBAN", b.Program("o2fence-ipban"))); out != "" {
		b.Fatal(out)
	}
}

// both does something in both nodes at once.
func (b *bed) both(do func(*machine)) {
	var wg sync.WaitGroup
	for _, m := range b.nodes {
		wg.Go(func() { do(m) })
	}
	wg.Wait()
	if b.Failed() {
		b.FailNow()
	}
}

// protect brings o2fence up in a node that has the disk, in the order of its units.
func (b *bed) protect(m *machine) {
	b.Helper()
	check(b.T, b.Online(b.ctx, m.VM))
	check(b.T, b.Protect(b.ctx, m.VM))
	// Without journal commits and writeback of their own: what a node has in memory stays there.
	m.sh("echo 0 > /proc/sys/vm/dirty_writeback_centisecs; mkdir -p " + vm.MountPoint +
		"; mount -t ocfs2 -o commit=1000 $(readlink -f " + b.device + ") " + vm.MountPoint)
}

func (b *bed) await(event string) rig.Event {
	b.Helper()
	e, err := b.events.Await(b.ctx, event, 1)
	check(b.T, err)
	return e
}

const block = 1 << 20 // bytes of a file that both write

// fill has a node write a text to the file, over and over, as far as its memory.
func (m *machine) fill(text string) {
	m.Helper()
	m.sh(fmt.Sprintf("yes %s | dd of=%s/file bs=64k count=%d iflag=fullblock conv=notrunc status=none", text, vm.MountPoint, block>>16))
}

// sector is where the file begins on the disk.
func (m *machine) sector() int {
	m.Helper()
	n, err := strconv.Atoi(m.sh("filefrag -e -b512 " + vm.MountPoint + "/file | awk '$1 == \"0:\" { print $4 + 0 }'"))
	check(m.T, err)
	return n
}

// onDisk tells whether a text is anywhere on the disk, seen from below all machines.
func (b *bed) onDisk(text string) bool {
	b.Helper()
	image, err := os.ReadFile(b.image)
	check(b.T, err)
	return bytes.Contains(image, []byte(text))
}

// lines counts what node1 has written into the locked file, as it is on the disk.
func (m *machine) lines() int {
	m.Helper()
	n, err := strconv.Atoi(m.sh("sync; echo 3 > /proc/sys/vm/drop_caches; grep -c 'still here' " + vm.MountPoint + "/locked || true"))
	check(m.T, err)
	return n
}

// frozen is the point of it all. The second node is frozen while it holds a lock that the first waits for,
// and has a file in its memory that is not on the disk yet. The first fences it, recovers, and overwrites
// that file. Then comes what is to happen meanwhile, and the second goes on. Refused waits until its write
// of the file, to that sector, has come to nothing, by what its console says from that line on.
func (b *bed) frozen(method string, meanwhile func(), refused func(node1 *machine, line, sector int)) {
	b.Helper()
	node0, node1 := b.nodes[0], b.nodes[1]
	var err error
	b.events, err = b.Follow(b.ctx, node0.VM)
	check(b.T, err)
	check(b.T, b.Watched(b.ctx, node0.VM, 0, 1))

	node1.fill("written-by-node1")
	node1.sh("sync")
	if !b.onDisk("written-by-node1") {
		b.Fatal("what a node has synced is not on the disk")
	}
	sector := node1.sector()
	locked := vm.MountPoint + "/locked"
	holder, err := node1.Start(b.ctx, vm.Command{Args: []string{b.Program("workload"), "-hold", locked}})
	check(b.T, err)
	waits := &counter{}
	_, err = node0.Start(b.ctx, vm.Command{Args: []string{b.Program("workload"), locked}, Stdout: waits})
	check(b.T, err)
	check(b.T, waits.await(b.ctx, 1))
	from := node1.Console().Len()
	check(b.T, holder.Signal(syscall.SIGUSR1))
	node1.says(from, "holding the lock")
	node1.fill("cached-by-node1")
	check(b.T, node1.Pause(b.ctx))
	begun := time.Now()
	held := waits.lines()
	if b.onDisk("cached-by-node1") {
		b.Fatal("the node has written its memory to the disk already")
	}

	if initiated := b.await("initiated"); initiated.Method != method {
		b.Errorf("initiated by %s", initiated.Method)
	}
	fenced := b.await("fenced")
	if fenced.Method != method {
		b.Errorf("fenced by %s", fenced.Method)
	}
	if node1.PowerState() != vm.Paused {
		b.Errorf("node1 is %s", node1.PowerState())
	}
	notice := b.await("notice")
	check(b.T, waits.await(b.ctx, held+1))
	b.Logf("from the freeze: silent %.1f s, fenced %.1f s, notice %.1f s, the writer goes on %.1f s", b.await("silent").HostTime.Sub(begun).Seconds(),
		fenced.HostTime.Sub(begun).Seconds(), notice.HostTime.Sub(begun).Seconds(), time.Since(begun).Seconds())

	node0.fill("written-by-node0")
	node0.sh("sync")
	b.lines = node0.lines()
	meanwhile()
	from = node1.Console().Len()
	check(b.T, node1.Resume(b.ctx))
	_, err = node1.Start(b.ctx, vm.Command{Args: []string{"sync"}})
	check(b.T, err)
	refused(node1, from, sector)
	check(b.T, waits.await(b.ctx, waits.lines()+10))
	b.intact()
}

// intact compares what is on the disk with what the first node has written since it recovered.
func (b *bed) intact() {
	b.Helper()
	node0 := b.nodes[0]
	if b.onDisk("cached-by-node1") {
		b.Error("FALSE SUCCESS: what node1 had in its memory is on the disk")
	}
	if n := node0.lines(); n != b.lines {
		b.Errorf("FALSE SUCCESS: node1 has written %d lines since", n-b.lines)
	}
	out := node0.sh("echo 3 > /proc/sys/vm/drop_caches; sort -u " + vm.MountPoint + "/file")
	if out != "written-by-node0" {
		b.Errorf("node0 had written another file: %s", out)
	}
}

// A counter counts lines of output.
type counter struct{ n atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(bytes.Count(p, []byte("\n"))))
	return len(p), nil
}

func (c *counter) lines() int64 { return c.n.Load() }

// await waits until there are so many.
func (c *counter) await(ctx context.Context, n int64) error {
	for c.lines() < n {
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d lines of %d: %w", c.lines(), n, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
	return nil
}
