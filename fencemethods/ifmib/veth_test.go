// SPDX-License-Identifier: GPL-2.0-only

package ifmib

import (
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/test/snmpd"
)

// A namespace is a network of its own: that of a thread, where functions can be run. What they open
// or start stays in it.
type namespace struct {
	tid int
	do  chan func()
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	n := &namespace{do: make(chan func())}
	ready := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, and the network with both
		err := unix.Unshare(unix.CLONE_NEWNET)
		n.tid = unix.Gettid()
		ready <- err
		for f := range n.do {
			f()
		}
	}()
	if err := <-ready; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { close(n.do) })
	return n
}

// run runs f in the namespace.
func (n *namespace) run(f func()) {
	done := make(chan struct{})
	n.do <- func() {
		defer close(done) // also should f end the test
		f()
	}
	<-done
}

func (n *namespace) ip(t *testing.T, command string) {
	t.Helper()
	n.run(func() {
		if out, err := exec.Command("ip", strings.Fields(command)...).CombinedOutput(); err != nil {
			t.Errorf("ip %s: %v: %s", command, err, out)
		}
	})
}

// flags are those of an interface.
func (n *namespace) flags(t *testing.T, name string) (flags net.Flags) {
	t.Helper()
	n.run(func() {
		i, err := net.InterfaceByName(name)
		if err != nil {
			t.Error(err)
			return
		}
		flags = i.Flags
	})
	return flags
}

// quiet is how long nothing arrives before no more is expected.
const quiet = 300 * time.Millisecond

// A path is the node's to its storage, through the port.
type path struct{ storage, node *net.UDPConn }

// open reports whether what the node writes arrives.
func (p path) open() bool {
	word, b := time.Now().String(), make([]byte, 512)
	_, _ = p.node.Write([]byte(word))
	_ = p.storage.SetReadDeadline(time.Now().Add(quiet))
	for { // earlier ones may have waited for the way to open
		n, err := p.storage.Read(b)
		if err != nil || string(b[:n]) == word {
			return err == nil
		}
	}
}

func TestTheLinkReallyGoesDown(t *testing.T) {
	if testing.Short() {
		t.Skip("it makes network namespaces")
	}
	if os.Getuid() != 0 {
		t.Skip("only root may make network namespaces")
	}
	sw, node := newNamespace(t), newNamespace(t)
	sw.ip(t, "link set lo up")
	sw.ip(t, "link add port1 type veth peer name eth0 netns "+strconv.Itoa(node.tid))
	sw.ip(t, "address add 192.0.2.1/24 dev port1")
	sw.ip(t, "link set port1 up")
	node.ip(t, "address add 192.0.2.2/24 dev eth0")
	node.ip(t, "link set eth0 up")

	var p path
	var d fencemethods.Device
	sw.run(func() {
		d = openPort(t, startSwitch(t, snmpd.Config{}), "port1", map[string]string{"sysname": "switch1"})
		var err error
		if p.storage, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(192, 0, 2, 1)}); err != nil {
			t.Error(err)
		}
	})
	node.run(func() {
		var err error
		if p.node, err = net.DialUDP("udp4", nil, p.storage.LocalAddr().(*net.UDPAddr)); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		return
	}
	defer p.storage.Close()
	defer p.node.Close()

	if err := d.Check(within(t, 20*time.Second)); err != nil || !p.open() {
		t.Fatalf("not up to begin with: %v", err)
	}
	began := time.Now()
	if err := d.Off(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	t.Logf("off after %v", time.Since(began))
	if sw.flags(t, "port1")&net.FlagUp != 0 || p.open() {
		t.Error("FALSE SUCCESS: the link is up")
	}
	ctx := within(t, 20*time.Second)
	for node.flags(t, "eth0")&net.FlagRunning != 0 { // the kernel notices at its leisure, a second at most
		if ctx.Err() != nil {
			t.Fatal("the node still has its carrier")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := d.On(ctx); err != nil {
		t.Fatal(err)
	}
	for !p.open() { // which takes a link its time
		if ctx.Err() != nil {
			t.Fatal("the link does not come up again")
		}
	}
}
