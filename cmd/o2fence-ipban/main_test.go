// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ipban"
	"github.com/o2fence/o2fence/test/netns"
)

// programVar makes this test binary the program itself.
const programVar = "O2FENCE_TEST_IPBAN"

func TestMain(m *testing.M) {
	if os.Getenv(programVar) != "" {
		main()
	}
	os.Exit(m.Run())
}

const (
	patience = 20 * time.Second
	testKey  = "0123456789abcdef0123456789abcdef"
	conf     = `server:
	listen = 198.18.6.9
	key_file = KEY
	target = other
	settle_ms = 100
	hold_ms = 0

node:
	cluster = c
	name = web1
	number = 1
	addresses = 198.18.6.1, 2001:db8:6::1
`
)

// A site is a machine that bans, a node and a survivor that orders a ban, each with a network of its own.
type site struct {
	*testing.T
	storage, node, survivor *netns.Space
	dir                     string
	device                  fencemethods.Device // the survivor's
	log                     *messages
}

func newSite(t *testing.T) *site {
	x := &site{T: t, storage: netns.New(t), node: netns.New(t), survivor: netns.New(t), dir: t.TempDir(), log: &messages{}}
	netns.Link(x.node, x.storage, []string{"198.18.6.1/25", "2001:db8:6::1/64"}, []string{"198.18.6.9/25", "2001:db8:6::9/64"})
	netns.Link(x.survivor, x.storage, []string{"198.18.6.131/25"}, []string{"198.18.6.139/25"})
	x.survivor.Run("ip", "route", "add", "198.18.6.9", "via", "198.18.6.139")
	x.write("key", testKey)
	x.write("ipban.conf", strings.ReplaceAll(conf, "KEY", filepath.Join(x.dir, "key")))
	x.survivor.Do(func() (err error) {
		x.device, err = ipban.Method().Open(fencemethods.Target{Cluster: "c", Node: 1, Name: "web1"},
			map[string]string{"addrs": "198.18.6.9", "key_file": filepath.Join(x.dir, "key")})
		return err
	})
	t.Cleanup(func() { x.device.Close() })
	return x
}

func (x *site) write(name, text string) {
	x.Helper()
	if err := os.WriteFile(filepath.Join(x.dir, name), []byte(text), 0o600); err != nil {
		x.Fatal(err)
	}
}

func (x *site) program(args ...string) *exec.Cmd {
	cmd := x.storage.Command(append([]string{os.Args[0], "--config", filepath.Join(x.dir, "ipban.conf"), "--state", filepath.Join(x.dir, "state.json")}, args...)...)
	cmd.Env = append(os.Environ(), programVar+"=1")
	return cmd
}

// run runs the program and returns its output and exit code.
func (x *site) run(args ...string) (string, int) {
	x.Helper()
	out, err := x.program(args...).CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	switch {
	case ok:
		return string(out), exit.ExitCode()
	case err != nil:
		x.Fatal(err)
	}
	return string(out), 0
}

func (x *site) mustRun(args ...string) string {
	x.Helper()
	out, code := x.run(args...)
	if code != 0 {
		x.Fatalf("%v: exit code %d\n%s", args, code, out)
	}
	return out
}

// serve starts the daemon, and returns when it answers. end ends it with a signal.
func (x *site) serve() (end func(syscall.Signal) error) {
	x.Helper()
	cmd := x.program("serve")
	cmd.Stderr = x.log
	if err := cmd.Start(); err != nil {
		x.Fatal(err)
	}
	wait := sync.OnceValue(cmd.Wait)
	end = func(s syscall.Signal) error {
		_ = cmd.Process.Signal(s)
		return wait()
	}
	x.Cleanup(func() { _ = end(syscall.SIGKILL) })
	if err := x.device.Check(x.within(patience)); err != nil {
		x.Fatalf("%v\n%s", err, x.log)
	}
	return end
}

func (x *site) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(x.Context(), d)
	x.Cleanup(cancel)
	return ctx
}

func (x *site) mustOff() {
	x.Helper()
	if err := x.device.Off(x.within(patience)); err != nil {
		x.Fatalf("%v\n%s", err, x.log)
	}
}

// reaches says whether the node can connect to the storage server, which takes its time when it cannot.
func (x *site) reaches() bool {
	x.Helper()
	var l net.Listener
	x.storage.Do(func() (err error) {
		l, err = net.Listen("tcp", "198.18.6.9:0")
		return err
	})
	defer l.Close()
	reached := false
	x.node.Do(func() error {
		c, err := net.DialTimeout("tcp", l.Addr().String(), 400*time.Millisecond)
		if reached = err == nil; reached {
			c.Close()
		}
		return nil
	})
	return reached
}

// messages are what the daemon says.
type messages struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (m *messages) Write(b []byte) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text.Write(b)
}

func (m *messages) String() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.text.String()
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}

func TestANodeIsCutOffFromAfarAndStaysSo(t *testing.T) {
	x := newSite(t)
	stop := x.serve()
	if !x.reaches() {
		t.Fatal("the node never got through")
	}
	x.mustOff()
	if x.reaches() {
		t.Error("FALSE SUCCESS: the node gets through")
	}
	if err := stop(syscall.SIGTERM); err != nil {
		t.Errorf("told to end: %v\n%s", err, x.log)
	}
	if x.reaches() {
		t.Error("without the daemon the node gets through")
	}
	x.storage.Run("nft", "flush ruleset") // what a restart of the machine does
	if out, code := x.run("status"); code != 1 || !strings.Contains(out, "unknown") {
		t.Errorf("without rules: %d, %s", code, out)
	}
	x.mustRun("restore")
	if x.reaches() {
		t.Error("after a restart the node gets through")
	}
	var reports []report
	if err := json.Unmarshal([]byte(x.mustRun("status", "--json")), &reports); err != nil || len(reports) != 1 || reports[0].State != "banned" {
		t.Errorf("%+v, %v", reports, err)
	}
	stop = x.serve()
	x.mustOff()
	if err := stop(syscall.SIGKILL); err == nil {
		t.Error("it was killed, and ended well")
	}
	x.serve()
	if err := x.device.On(x.within(patience)); err != nil {
		t.Fatal(err)
	}
	if !x.reaches() {
		t.Error("let in again, the node does not get through")
	}
	if out := x.mustRun("status"); !strings.Contains(out, "web1  allowed") {
		t.Errorf("status: %s", out)
	}
}

// As "systemctl reload nftables" does with Debian's nftables.conf.
func TestRulesThatSomebodyFlushesAreMadeAgain(t *testing.T) {
	x := newSite(t)
	x.serve()
	x.mustOff()
	x.storage.Run("nft", "flush ruleset")
	await(t, "the daemon tells of it", func() bool {
		return strings.Contains(x.log.String(), "SOMEBODY HAS ALTERED THE PACKET FILTER")
	})
	if x.reaches() {
		t.Error("the node gets through")
	}
	x.mustOff()
}

func TestAnAdministratorReleasesANode(t *testing.T) {
	x := newSite(t)
	x.serve()
	x.mustOff()
	x.mustRun("release", "c/web1")
	if !x.reaches() {
		t.Error("released, the node does not get through")
	}
	if state, err := x.device.Status(x.within(patience)); state != fencemethods.On || err != nil {
		t.Errorf("Status = %v, %v", state, err)
	}
	if out, code := x.run("release", "web1"); code != 1 || !strings.Contains(out, `no node "web1" is banned`) {
		t.Errorf("released twice: %d, %s", code, out)
	}
	x.mustOff()
}

// Whoever looks for the reason why a machine does not get through has to find it.
func TestABanOfWhomNobodyKnowsIsShown(t *testing.T) {
	x := newSite(t)
	x.serve()
	x.mustOff()
	x.write("ipban.conf", strings.ReplaceAll(strings.ReplaceAll(conf, "KEY", "/key"), "number = 1", "number = 2"))
	var reports []report
	out, code := x.run("status", "--json")
	if err := json.Unmarshal([]byte(out), &reports); err != nil || code != 1 || len(reports) != 2 {
		t.Fatalf("%d, %s, %v", code, out, err)
	}
	if r := reports[1]; r.Name != "web1" || r.Number != 1 || r.State != "unknown" || !strings.Contains(r.Why, "release") {
		t.Errorf("%+v", r)
	}
}

func TestCheckTellsOfWhatIsMissing(t *testing.T) {
	x := newSite(t)
	if out, code := x.run("check"); code != 1 || !strings.Contains(out, "c/web1: ") {
		t.Errorf("without a table: %d, %s", code, out)
	}
	x.mustRun("restore")
	if out := x.mustRun("check"); out != "c/web1: ok\n" {
		t.Errorf("check: %s", out)
	}
	x.write("ipban.conf", "server:\n\tlisten = storage1\n")
	if out, code := x.run("check"); code != 2 || !strings.Contains(out, "ipban.conf:2: listen") {
		t.Errorf("a wrong configuration: %d, %s", code, out)
	}
	x.write("ipban.conf", strings.ReplaceAll(strings.ReplaceAll(conf, "KEY", "/key"), "198.18.6.1,", "198.18.6.139,"))
	if out, code := x.run("restore"); code != 2 || !strings.Contains(out, "198.18.6.139 is an address of this machine") {
		t.Errorf("a node with an address of the machine's: %d, %s", code, out)
	}
	x.write("state.json", "?")
	x.write("ipban.conf", strings.ReplaceAll(conf, "KEY", "/key"))
	if out, code := x.run("restore"); code != 1 || !strings.Contains(out, "not a list of banned nodes") {
		t.Errorf("a damaged state: %d, %s", code, out)
	}
}
