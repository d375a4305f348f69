// SPDX-License-Identifier: GPL-2.0-only

// Package ask tests the method ask between machines: a node with the real bridge, and admin machines with
// the real o2fencectl, each in a network of its own.
package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mdlayher/netlink"

	"github.com/o2fence/o2fence/bridge/dispatch"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods/ask/desk"
	"github.com/o2fence/o2fence/test/netns"
)

const (
	testKey  = "0123456789abcdef0123456789abcdef"
	patience = 30 * time.Second // for what has to succeed: only a hang takes that long
)

const clusterConf = `cluster:
	name = web
	node_count = 2

node:
	cluster = web
	name = web1
	number = 1
	ip_address = 198.18.1.1
	ip_port = 7777

node:
	cluster = web
	name = web2
	number = 2
	ip_address = 198.18.1.3
	ip_port = 7777
`

const fenceConf = `fence:
	node = web2
	method = ask
	addrs = 198.18.1.2,198.18.2.2,127.0.0.1
	key_file = %s
	repeat_ms = 200

fence:
	node = web1
	method = watchdog
`

// A fixture has a node that asks, itself as well, and two admin machines that do not see each other.
type fixture struct {
	t              *testing.T
	dir            string
	program        string
	node           *netns.Space
	ann, ben, here *admin
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, dir: t.TempDir(), node: netns.New(t)}
	f.program = filepath.Join(f.dir, "o2fencectl")
	if out, err := exec.Command("go", "build", "-o", f.program, "../../cmd/o2fencectl").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	f.ann, f.ben, f.here = f.newAdmin("ann", netns.New(t)), f.newAdmin("ben", netns.New(t)), f.newAdmin("here", f.node)
	netns.Link(f.node, f.ann.space, []string{"198.18.1.1/24"}, []string{"198.18.1.2/24"})
	netns.Link(f.node, f.ben.space, []string{"198.18.2.1/24"}, []string{"198.18.2.2/24"})
	f.write("cluster.conf", clusterConf, 0o644)
	f.write("fence.conf", fmt.Sprintf(fenceConf, f.write("ask.key", testKey+"\n", 0o600)), 0o644)
	return f
}

func (f *fixture) write(name, text string, mode os.FileMode) string {
	f.t.Helper()
	name = filepath.Join(f.dir, name)
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		f.t.Fatal(err)
	}
	return name
}

// ctl runs the tool in one of the networks, as an administrator of that name.
func (f *fixture) ctl(space *netns.Space, who string, args ...string) (string, error) {
	cmd := space.Command(append([]string{f.program}, args...)...)
	cmd.Env = append(os.Environ(), "SUDO_USER="+who)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// An admin is an admin machine.
type admin struct {
	f       *fixture
	name    string
	space   *netns.Space
	socket  string
	program *exec.Cmd
	said    said
}

// A said is what a program has written, and goes on writing.
type said struct {
	mu   sync.Mutex
	text []byte
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text = append(s.text, p...)
	return len(p), nil
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.text)
}

func (f *fixture) newAdmin(name string, space *netns.Space) *admin {
	return &admin{f: f, name: name, space: space, socket: filepath.Join(f.dir, name)}
}

// listen starts the listener, and waits until it takes calls. It ends with the test.
func (a *admin) listen() {
	a.f.t.Helper()
	a.program = a.space.Command(a.f.program, "listen", "--desk="+a.socket, "--key-file="+filepath.Join(a.f.dir, "ask.key"))
	a.program.Stdout, a.program.Stderr = &a.said, os.Stderr
	if err := a.program.Start(); err != nil {
		a.f.t.Fatal(err)
	}
	a.f.t.Cleanup(func() { a.kill(syscall.SIGKILL) })
	a.until("it listens", func() bool { _, err := a.questions(); return err == nil })
}

func (a *admin) kill(s syscall.Signal) {
	_ = a.program.Process.Signal(s)
	_ = a.program.Wait()
}

func (a *admin) questions() (all []desk.Record, err error) {
	out, err := a.f.ctl(a.space, a.name, "questions", "--json", "--desk="+a.socket)
	if err != nil {
		return nil, err
	}
	return all, json.Unmarshal([]byte(out), &all)
}

// asked waits for a question in that state, and returns it.
func (a *admin) asked(prefix string, state desk.State) (found desk.Record) {
	a.f.t.Helper()
	a.until(fmt.Sprintf("%s is asked %s..., %s", a.name, prefix, state), func() bool {
		all, err := a.questions()
		if err != nil {
			a.f.t.Fatal(err)
		}
		for _, r := range all {
			if strings.HasPrefix(r.Request, prefix) && r.State == state {
				found = r
				return true
			}
		}
		return false
	})
	return found
}

func (a *admin) until(what string, is func() bool) {
	a.f.t.Helper()
	for end := time.Now().Add(patience); !is(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			a.f.t.Fatalf("not seen: %s", what)
		}
	}
}

func (a *admin) answer(command string, r desk.Record, why string) (string, error) {
	return a.f.ctl(a.space, a.name, command, r.Node, "--request", r.Request, "--reason", why, "--desk="+a.socket)
}

// A fakeKernel gives the bridge orders, and takes its answers.
type fakeKernel struct {
	t       *testing.T
	orders  chan kernel.Initiate
	answers chan kernel.Answer
}

func (k *fakeKernel) Receive(in *kernel.Initiate) (uapi.Cmd, error) {
	order, ok := <-k.orders
	if !ok {
		return 0, os.ErrClosed
	}
	*in = order
	return uapi.CmdInitiate, nil
}

func (k *fakeKernel) Fenced(a *kernel.Answer) error {
	k.answers <- *a
	return nil
}

// order is an INITIATE as the kernel sends it.
func (k *fakeKernel) order(request uint64, params []byte) {
	k.t.Helper()
	ae := netlink.NewAttributeEncoder()
	ae.String(uint16(uapi.AttrCluster), "web")
	ae.Uint32(uint16(uapi.AttrNode), 2)
	ae.Uint64(uint16(uapi.AttrIncarnation), 0xabc)
	ae.Uint64(uint16(uapi.AttrRequest), request)
	ae.Uint32(uint16(uapi.AttrAttempt), 1)
	ae.String(uint16(uapi.AttrMethod), "ask")
	ae.String(uint16(uapi.AttrReason), "missed 5 heartbeats")
	ae.Uint32(uint16(uapi.AttrTimeoutMS), 600000)
	ae.String(uint16(uapi.AttrParams), string(params))
	attrs, err := ae.Encode()
	if err != nil {
		k.t.Fatal(err)
	}
	var in kernel.Initiate
	if _, err := in.Decode(append([]byte{byte(uapi.CmdInitiate), uapi.GenlVersion, 0, 0}, attrs...)); err != nil {
		k.t.Fatal(err)
	}
	k.orders <- in
}

// bridge has the node's bridge serve a kernel that the test plays, with the sockets of its network.
func (f *fixture) bridge() (k *fakeKernel, params []byte) {
	f.t.Helper()
	cfg, err := setup.Load(filepath.Join(f.dir, "cluster.conf"), filepath.Join(f.dir, "fence.conf"))
	if err != nil {
		f.t.Fatal(err)
	}
	var carried *setup.Bridge
	f.node.Do(func() (err error) {
		carried, err = setup.OpenBridge(cfg, func() {})
		return err
	})
	k = &fakeKernel{t: f.t, orders: make(chan kernel.Initiate), answers: make(chan kernel.Answer, 1)}
	d := dispatch.New(k, carried.Nodes, dispatch.Options{
		Settled: func(context.Context, string, uint32) (bool, error) { return true, nil },
		Idle:    func() {}, Log: f.t.Logf, Begin: func() {},
	})
	var served sync.WaitGroup
	served.Go(func() {
		if err := d.Serve(); !errors.Is(err, os.ErrClosed) {
			f.t.Error(err)
		}
	})
	f.t.Cleanup(func() {
		close(k.orders)
		served.Wait()
		carried.Close()
	})
	for _, n := range carried.Nodes {
		if n.Number == 2 {
			params = n.Jobs[0].Params
		}
	}
	return k, params
}

func TestAnAdministratorOnAnotherMachineConfirms(t *testing.T) {
	f := newFixture(t)
	f.ann.listen()
	f.ben.listen()
	f.here.listen()
	out, err := f.ctl(f.node, "root", "check", "--cluster-conf="+filepath.Join(f.dir, "cluster.conf"), "--fence-conf="+filepath.Join(f.dir, "fence.conf"))
	if err != nil || !strings.Contains(out, "ask") || strings.Contains(out, "FAILED") {
		t.Errorf("check: %v\n%s", err, out)
	}
	k, params := f.bridge()

	// Ben confirms, and ann is told.
	k.order(7, params)
	f.ann.asked("7-", desk.Open)
	r := f.ben.asked("7-", desk.Open)
	if r.Cluster != "web" || r.Node != "web2" || r.Incarnation != "0000000000000abc" || r.Reason != "missed 5 heartbeats" {
		t.Errorf("asked %+v", r)
	}
	if out, err := f.ben.answer("confirm", r, "pulled both cords"); err != nil || !strings.Contains(out, "the answer counts") {
		t.Errorf("ben: %v\n%s", err, out)
	}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	voucher := "ben@" + host + ": pulled both cords"
	if a := <-k.answers; a.Request != 7 || a.Errno != 0 || a.Errmsg != voucher {
		t.Errorf("the kernel is told %+v", a)
	}
	if over := f.ann.asked("7-", desk.Over); !strings.Contains(over.End, "confirmed by "+voucher) {
		t.Errorf("ann is told %q", over.End)
	}

	// The next request is another question, and ann's machine forgets it in the middle.
	k.order(8, params)
	eight := f.ann.asked("8-", desk.Open)
	for _, a := range []*admin{f.ann, f.ben} {
		if out, err := a.answer("confirm", r, "I am sure"); err == nil || !strings.Contains(out, "that question is over") {
			t.Errorf("%s confirms request 7: %v\n%s", a.name, err, out)
		}
	}
	f.ann.kill(syscall.SIGKILL)
	f.ann.listen()
	if again := f.ann.asked("8-", desk.Open); again.Request != eight.Request {
		t.Errorf("it comes again as %s, was %s", again.Request, eight.Request)
	}
	select {
	case a := <-k.answers:
		t.Errorf("the kernel is told %+v before anybody has answered", a)
	default:
	}
	if out, err := f.ann.answer("decline", eight, "its fans are running"); err != nil {
		t.Errorf("ann: %v\n%s", err, out)
	}
	if a := <-k.answers; a.Request != 8 || a.Errno != syscall.EREMOTEIO || !strings.Contains(a.Errmsg, "declined by ann@"+host+": its fans are running") {
		t.Errorf("the kernel is told %+v", a)
	}

	// On the node itself, while nobody else is there.
	f.ann.kill(syscall.SIGKILL)
	k.order(9, params)
	if out, err := f.here.answer("confirm", f.here.asked("9-", desk.Open), "I stand before it"); err != nil {
		t.Errorf("here: %v\n%s", err, out)
	}
	if a := <-k.answers; a.Request != 9 || a.Errno != 0 || a.Errmsg != "here@"+host+": I stand before it" {
		t.Errorf("the kernel is told %+v", a)
	}
	f.ben.until("ben's listener says how it ended", func() bool {
		return strings.Contains(f.ben.said.String(), "over: declined by ann@")
	})
	f.ben.kill(syscall.SIGTERM)
	if said := f.ben.said.String(); strings.Contains(said, testKey) {
		t.Errorf("ben's listener said\n%s", said)
	}
}
