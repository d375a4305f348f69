// SPDX-License-Identifier: GPL-2.0-only

// Package memsafe tests what package bridge/memsafe and "o2fencectl run" do to a machine, in a virtual
// one: with all capabilities, o2fence's module, and real daemons.
package memsafe

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/test/vm"
)

// testTime is more than all of it takes; one that hangs has to end too.
const testTime = 8 * time.Minute

const clusterConf = `cluster:
	name = web
	node_count = 1

node:
	cluster = web
	name = node0
	number = 0
	ip_address = 10.77.0.10
	ip_port = 7777
`

const fenceConf = `fence:
	node = node0
	method = test
	i_know_this_fences_nothing = yes
`

// library is for the scripts below.
const library = `
	free() { cat /proc/sys/vm/min_free_kbytes; }
	# await COMMAND...: until it succeeds
	await() { n=0; until "$@"; do n=$((n+1)); [ $n -lt 300 ] || { echo "never: $*" >&2; return 1; }; sleep 0.1; done; }
	# field PID NAME: a line of /proc/PID/status
	field() { sed -n "s/^$2:[[:space:]]*//p" /proc/$1/status; }
	# unflagged PID: its threads without PF_MEMALLOC
	unflagged() { for t in /proc/$1/task/*; do f=$(sed 's/.*) //' $t/stat | cut -d' ' -f7); [ $((f & 0x800)) != 0 ] || echo $t; done; }
	# ordinary PID: its threads that are not SCHED_RR
	ordinary() { for t in /proc/$1/task/*; do p=$(sed 's/.*) //' $t/stat | cut -d' ' -f39); [ $p = 2 ] || echo $t; done; }
`

type machine struct {
	*testing.T
	*vm.VM
	ctx context.Context
	bin string
}

func (m *machine) sh(script string) string {
	m.Helper()
	return vm.Sh(m.ctx, m.T, m.VM, library+"cd "+m.bin+"\n"+script)
}

func (m *machine) is(script, want string) {
	m.Helper()
	if got := m.sh(script); got != want {
		m.Errorf("%s\nis %q, want %q", strings.TrimSpace(script), got, want)
	}
}

func (m *machine) number(script string) int {
	m.Helper()
	n, err := strconv.Atoi(m.sh(script))
	if err != nil {
		m.Fatal(err)
	}
	return n
}

func TestInAMachine(t *testing.T) {
	c := vm.TestCluster(t, vm.ClusterConfig{Nodes: 1})
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	defer cancel()
	root, err := filepath.Abs("../..")
	check(t, err)
	m := &machine{t, c.Nodes[0], ctx, filepath.Join(root, "build", "bin")}
	check(t, m.PowerOn(ctx)) // it boots meanwhile
	unit := filepath.Join(t.TempDir(), "memsafe.test")
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", unit, "../../bridge/memsafe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	release := m.sh("uname -r")
	ko := filepath.Join(root, "build", "ko", release)
	m.sh("insmod " + ko + "/o2fence.ko; insmod " + ko + "/o2fence_methods.ko")
	check(t, m.WriteFile(ctx, "/etc/ocfs2/cluster.conf", []byte(clusterConf), 0o644))
	check(t, m.WriteFile(ctx, "/etc/ocfs2/fence.conf", []byte(fenceConf), 0o644))

	for _, test := range []struct {
		name string
		run  func(*machine)
	}{
		{"TheStepsThatNeedAllCapabilities", func(m *machine) {
			m.sh(unit + " -test.run 'OOM|NeitherKilled|NeverSleeps|MissingRight'")
		}},
		{"TheBridgeKeepsTheRules", bridgeKeepsTheRules},
		{"ALevelIsFencedByTheBridge", levelIsFenced},
		{"TheReserveSurvivesAKill", reserveSurvivesAKill},
		{"RunPassesOnSignalsAndStatus", runPassesOn},
		{"RunRefuses", runRefuses},
		{"RunSurvivesItsOwnKill", runIsKilled},
		{"AnISCSIDaemonKeepsTheRules", iscsi},
		{"AMultipathDaemonKeepsTheRules", multipath},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.run(&machine{t, m.VM, ctx, m.bin})
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func bridgeKeepsTheRules(m *machine) {
	before := m.number("free")
	m.sh(startBridge)
	if raised := m.number("free") - before; raised < 4096 {
		m.Errorf("the reserve was raised by %d KiB", raised)
	}
	m.keepsTheRules("o2fenced")
	m.is("ordinary $(pidof o2fenced)", "")
	m.is(`./o2fencectl methods --json | grep -A4 '"method": "test"' | grep carried`, `"carried": true,`)
	m.granted("o2fenced", func(g memsafe.Grant) bool {
		return g.BudgetKiB >= 4096 && g.Sockets >= 2 && len(g.Processes) == 1 && g.Processes[0].LockedKiB > 0
	})
	m.sh("kill $(pidof o2fenced); await sh -c '! pidof o2fenced'")
	m.is("free", strconv.Itoa(before))
	if m.grants().ClaimedKiB != 0 {
		m.Error("a claim has outlived its owner")
	}
}

// otherNode is joined from node0.
const otherNode = `
node:
	cluster = web
	name = node1
	number = 1
	ip_address = 10.77.0.11
	ip_port = 7777
`

// levelsConf has a level of which one member fails, and one of which one member hangs and the other has
// to wait for its turn.
const levelsConf = `fence:
	node = node1
	then = off
	delay_ms = 10
	level = all
	method = test
	i_know_this_fences_nothing = yes
	file = /run/all
	method = test
	i_know_this_fences_nothing = yes
	result = fail
	delay_ms = 200
	level = any
	method = test
	i_know_this_fences_nothing = yes
	result = hang
	method = test
	i_know_this_fences_nothing = yes
	file = /run/any
	after_ms = 100
	retries = 1
	level = one
	method = watchdog
`

// levelIsFenced goes from the order to FENCED through the kernel and the bridge, by the second level.
func levelIsFenced(m *machine) {
	two := strings.Replace(clusterConf, "node_count = 1", "node_count = 2", 1) + otherNode
	check(m.T, m.WriteFile(m.ctx, "/run/cluster.conf", []byte(two), 0o644))
	check(m.T, m.WriteFile(m.ctx, "/run/fence.conf", []byte(levelsConf), 0o644))
	const files = " --cluster-conf=/run/cluster.conf --fence-conf=/run/fence.conf"
	m.sh(startBridge + " -- " + files)
	m.sh("./o2fencectl join" + files)
	threads := m.number("ls /proc/$(pidof o2fenced)/task | wc -l")
	said := m.sh("./o2fencectl fence node1 --reason trial" + files)
	for _, want := range []string{"by test+test: test+test node1: off: command refused: test: told to fail", "fenced by test|test"} {
		if !strings.Contains(said, want) {
			m.Errorf("%s\ndoes not say %q", said, want)
		}
	}
	m.is("cat /run/all /run/any", "off node1\noff node1")
	m.is(`./o2fencectl methods | grep -c "a level: "`, "2")
	m.is("ls /proc/$(pidof o2fenced)/task | wc -l", strconv.Itoa(threads))
	m.keepsTheRules("o2fenced")
	m.sh("./o2fencectl leave" + files)
	m.sh("kill $(pidof o2fenced); await sh -c '! pidof o2fenced'")
}

func (m *machine) grants() (a memsafe.Account) {
	m.Helper()
	check(m.T, json.Unmarshal([]byte(m.sh("./o2fencectl grants --json")), &a))
	return a
}

// granted looks for a claim that is as it should be, all of whose holders are in the mode.
func (m *machine) granted(name string, right func(memsafe.Grant) bool) {
	m.Helper()
	all := m.grants().Grants
	for _, g := range all {
		if g.Name == name && right(g) && !slices.ContainsFunc(g.Processes, func(p memsafe.ProcessState) bool {
			return p.Threads == 0 || p.Flagged != p.Threads
		}) {
			return
		}
	}
	m.Errorf("%s has no such grant: %+v", name, all)
}

// The notification says that it serves; its messages go where nobody keeps them.
const startBridge = `start-stop-daemon --start --background --notify-await --notify-timeout 60 --exec $PWD/o2fenced`

func reserveSurvivesAKill(m *machine) {
	before := m.number("free")
	m.sh(startBridge)
	raised := m.number("free")
	m.sh("kill -9 $(pidof o2fenced); await sh -c '! pidof o2fenced'")
	m.is("free", strconv.Itoa(raised))
	m.sh(startBridge)
	m.is("free", strconv.Itoa(raised)) // and not twice
	m.sh("echo $(($(free) + 1000)) > /proc/sys/vm/min_free_kbytes")
	m.sh("kill $(pidof o2fenced); await sh -c '! pidof o2fenced'")
	m.is("free", strconv.Itoa(raised+1000)) // an administrator's is not lowered
	m.sh("echo " + strconv.Itoa(before) + " > /proc/sys/vm/min_free_kbytes")
}

func runPassesOn(m *machine) {
	before := m.number("free")
	m.is("./o2fencectl run --budget 1000 -- sh -c 'echo $(($(cat /proc/sys/vm/min_free_kbytes) - '$(free)')); exit 9' 2>/dev/null || echo $?", "1000\n9")
	m.is("free", strconv.Itoa(before))
	m.is(`./o2fencectl run --budget 1000 -- sleep 600 2>/dev/null & run=$!
		await pidof sleep >/dev/null; kill -TERM $run; wait $run || echo $?`, "143")
	// It decides itself what a signal is, and what it leaves in the background is waited for.
	m.is(`./o2fencectl run --budget 1000 -- sh -c 'trap "exit 5" USR1; touch /run/ready; while :; do sleep 0.1; done' 2>/dev/null & run=$!
		await test -e /run/ready; kill -USR1 $run; wait $run || echo $?`, "5")
	m.is(`mkfifo /run/fifo
		./o2fencectl run --budget 1000 -- sh -c 'cat /run/fifo >/dev/null & exit 3' 2>/dev/null & run=$!
		exec 3>/run/fifo; await sh -c "test \$(cat /proc/sys/vm/min_free_kbytes) = `+strconv.Itoa(before+1000)+`"
		kill -0 $run && echo waits; exec 3>&-; wait $run || echo $?`, "waits\n3")
	m.is("free", strconv.Itoa(before))
}

func runRefuses(m *machine) {
	before := m.number("free")
	m.is("./o2fencectl run --budget 99999999 -- true 2>/run/err || echo $?; grep -c 'at most [0-9]* KiB are left' /run/err", "125\n1")
	m.is("setpriv --bounding-set -sys_resource ./o2fencectl run --budget 1000 -- true 2>/run/err || echo $?; grep -c CAP_SYS_RESOURCE /run/err", "125\n1")
	m.is("free", strconv.Itoa(before))
}

// The command goes on, and keeps the reserve until it ends.
func runIsKilled(m *machine) {
	before := m.number("free")
	m.sh(`./o2fencectl run --budget 1000 -- sleep 600 2>/dev/null & run=$!
		await pidof sleep >/dev/null; await grep -q $(pidof sleep) /run/o2fence/reserve.json; kill -9 $run`)
	m.keepsTheRules("sleep") // which does nothing of that by itself
	m.is("./o2fencectl run --budget 50 -- true 2>/dev/null; free", strconv.Itoa(before+1000))
	m.sh("kill $(pidof sleep); await sh -c '! pidof sleep'")
	m.is("./o2fencectl run --budget 50 -- true 2>/dev/null; free", strconv.Itoa(before))
}

// keepsTheRules looks at a daemon.
func (m *machine) keepsTheRules(name string) {
	m.Helper()
	m.is("unflagged $(pidof "+name+")", "")
	m.sh("await grep -qx -- -1000 /proc/$(pidof " + name + ")/oom_score_adj") // iscsid sets its own
	m.is("field $(pidof "+name+") THP_enabled", "0")
	m.is("grep -c VmFlags /proc/$(pidof "+name+")/smaps | sed 's/[1-9].*/some/'", "some")
	// All that is mapped is locked, but for what is the kernel's own.
	m.is(`awk '/^[0-9a-f]+-/ { name = $0 } /^VmFlags/ && name !~ /\[v/ && !/ lo/ { print name }' /proc/$(pidof `+name+`)/smaps`, "")
}

// needs skips a test without its daemons. The machine's files are the host's.
func (m *machine) needs(programs ...string) {
	m.Helper()
	for _, program := range programs {
		if _, err := m.VM.Run(m.ctx, "sh", "-c", "command -v "+program); err != nil {
			m.Skipf("no %s: install open-iscsi, multipath-tools and tgt", program)
		}
	}
}

// An initiator and a target on one machine: the disk that appears is read through the daemon's session.
func iscsi(m *machine) {
	m.needs("iscsid", "iscsiadm", "tgtd")
	before := m.number("free")
	m.sh(`
		ip link set lo up
		mkdir -p /run/tgtd /run/lock/iscsi; truncate -s 16M /run/disk; echo o2fence | dd of=/run/disk conv=notrunc status=none
		tgtd >/dev/null 2>&1; await tgtadm --lld iscsi --mode sys --op show >/dev/null 2>&1
		tgtadm --lld iscsi --mode target --op new --tid 1 -T iqn.2026-01.test:disk
		tgtadm --lld iscsi --mode logicalunit --op new --tid 1 --lun 1 -b /run/disk
		tgtadm --lld iscsi --mode target --op bind --tid 1 -I ALL
		modprobe -a iscsi_tcp sd_mod
		echo InitiatorName=iqn.2026-01.test:node0 > /etc/iscsi/initiatorname.iscsi
		nohup ./o2fencectl run --budget 2048 -- iscsid -f >/dev/null 2>/run/iscsid.err &
		await grep -q ISCSIADM_ABSTRACT_NAMESPACE /proc/net/unix
		iscsiadm -m discovery -t st -p 127.0.0.1 >/dev/null
		iscsiadm -m node -l >/dev/null
		await sh -c 'ls /sys/class/iscsi_session/*/device/target*/*/block/* >/dev/null 2>&1'`)
	m.keepsTheRules("iscsid")
	m.is(`disk=$(ls /sys/class/iscsi_session/*/device/target*/*/block/ | head -1); dd if=/dev/$disk bs=8 count=1 status=none | head -1`, "o2fence")
	m.is("free", strconv.Itoa(before+2048))
	m.sh(`await sh -c './o2fencectl grants --json | grep -q "\"sockets\": [1-9]"'`)
}

// A map on the disk of the session above.
func multipath(m *machine) {
	m.needs("iscsid", "iscsiadm", "tgtd", "multipathd")
	before := m.number("free")
	m.sh(`
		modprobe -a dm_multipath
		/lib/systemd/systemd-udevd --daemon >/dev/null 2>&1; udevadm trigger --subsystem-match=block; udevadm settle
		printf 'defaults {\n\tfind_multipaths no\n\tuser_friendly_names no\n}\n' > /etc/multipath.conf
		nohup ./o2fencectl run --budget 2048 -- multipathd -d -s >/run/multipathd.out 2>&1 &
		await sh -c 'multipathd show daemon 2>/dev/null | grep -q idle'
		multipathd reconfigure >/dev/null
		await sh -c 'multipathd show maps 2>/dev/null | grep -q dm-' || { multipathd show paths; cat /run/multipathd.out; udevadm info /dev/sda; false; }`)
	m.keepsTheRules("multipathd")
	m.is("dd if=/dev/dm-0 bs=8 count=1 status=none", "o2fence")
	m.is("free", strconv.Itoa(before+2048))
	m.sh("multipathd shutdown >/dev/null; await sh -c '! pidof multipathd'; iscsiadm -m node -u >/dev/null; pkill -x iscsid || true; await sh -c '! pidof iscsid o2fencectl'")
	m.is("free", strconv.Itoa(before-2048))
	m.onlyFlushWarning()
}

// onlyFlushWarning forgets the one warning that is to be expected: multipathd closes an inotify descriptor
// when it ends, for which the kernel waits for a worker that may need memory. It is right to say so.
func (m *machine) onlyFlushWarning() {
	m.Helper()
	for _, fault := range m.KernelFaults() {
		if !strings.Contains(fault, "check_flush_dependency") && !strings.HasSuffix(fault, "Call Trace:") {
			m.Errorf("kernel fault: %s", fault)
		}
	}
	m.ClearKernelFaults()
}
