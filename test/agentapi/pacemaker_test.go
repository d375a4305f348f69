// SPDX-License-Identifier: GPL-2.0-only

package agentapi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/test/rig"
	"github.com/o2fence/o2fence/test/vm"
)

// A pair is a cluster of two with o2fence, whose first node has the agent too.
type pair struct {
	*rig.Rig
	t      *testing.T
	ctx    context.Context
	node   *vm.VM
	events *rig.Events
}

const fenced = "/usr/lib/pacemaker/pacemaker-fenced"

// startPair needs some programs of other packages.
func startPair(t *testing.T, cfg rig.Config, programs ...string) *pair {
	t.Helper()
	for _, file := range programs {
		if _, err := os.Stat(file); err != nil {
			t.Skip("see scripts/deps:", err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), testTime)
	t.Cleanup(cancel)
	c := vm.TestCluster(t, vm.ClusterConfig{Nodes: 2})
	dir := filepath.Join(filepath.Dir(c.Nodes[0].LogPath()), "bmc")
	check(t, os.MkdirAll(dir, 0o755))
	r, err := rig.New(ctx, c, dir, cfg)
	check(t, err)
	t.Cleanup(func() { r.Close() })
	check(t, c.Start(ctx))
	check(t, c.All(func(m *vm.VM) error { return r.Protect(ctx, m) }))
	check(t, r.Watched(ctx, c.Nodes[0], 0, 1))
	p := &pair{Rig: r, t: t, ctx: ctx, node: c.Nodes[0]}
	p.events, err = r.Follow(ctx, p.node)
	check(t, err)
	p.run("cp", filepath.Join(root(t), "build", "bin", "fence_o2fence"), "/usr/sbin/fence_o2fence")
	return p
}

// run runs a program in the node, which has to succeed.
func (p *pair) run(args ...string) string {
	p.t.Helper()
	out, err := p.node.Run(p.ctx, args...)
	if err != nil {
		log, _ := p.node.Run(p.ctx, "sh", "-c", "cat /run/*.log")
		p.t.Fatalf("%v\n%s\n%s", err, out, log)
	}
	return out
}

// code runs a program in the node and returns its exit code.
func (p *pair) code(args ...string) int {
	p.t.Helper()
	_, err := p.node.Run(p.ctx, args...)
	if exit, ok := errors.AsType[*vm.ExitError](err); ok {
		p.t.Log(err)
		return exit.Code
	}
	check(p.t, err)
	return 0
}

// shell is code for a line of shell.
func (p *pair) shell(format string, args ...any) int {
	p.t.Helper()
	return p.code("sh", "-c", fmt.Sprintf(format, args...))
}

func (p *pair) powered(want vm.PowerState) {
	p.t.Helper()
	if got := p.Nodes[1].PowerState(); got != want {
		p.t.Errorf("node1 is %s, want %s", got, want)
	}
}

// One cluster, in the order of an administrator's day: to start it takes longer than all the rest.
func TestPacemakerFencesThroughO2fence(t *testing.T) {
	p := startPair(t, rig.Config{Cluster: "\tthen = off\n\tthen_delay_ms = 0\n"}, fenced, "/usr/sbin/stonith_admin")
	_, err := p.node.Start(p.ctx, vm.Command{Args: []string{fenced, "--stand-alone", "-l", "/run/fenced.log"}})
	check(t, err)
	p.run("sh", "-c", "until stonith_admin -L >/dev/null 2>&1; do sleep 0.2; done")

	if text := p.run("stonith_admin", "-M", "-a", "fence_o2fence"); !strings.Contains(text, `name="fence_o2fence"`) {
		t.Errorf("metadata: %s", text)
	}
	p.run("stonith_admin", "-R", "o2fence", "-a", "fence_o2fence")
	if text := p.run("stonith_admin", "-l", "node1"); !strings.Contains(text, "o2fence") {
		t.Errorf("node1 can be fenced by: %s", text)
	}
	if code := p.code("stonith_admin", "-F", "node0", "-t", "20"); code == 0 {
		t.Error("a node fences itself")
	}
	if code := p.code("fence_o2fence", "-o", "status", "-n", "node1"); code != 0 {
		t.Errorf("status of a node that is on: exit code %d", code)
	}

	began := time.Now()
	p.run("stonith_admin", "-F", "node1", "-t", "120")
	t.Logf("stonith_admin took %v", time.Since(began).Round(time.Millisecond))
	p.powered(vm.Off)
	e, err := p.events.Await(p.ctx, "fenced", 1)
	check(t, err)
	if e.Method != "ipmi" {
		t.Errorf("fenced by %s", e.Method)
	}
	if _, err := p.events.Await(p.ctx, "notice", 1); err != nil {
		t.Error(err)
	}
	if code := p.code("fence_o2fence", "-o", "status", "-n", "node1"); code != 2 {
		t.Errorf("status of a node that is off: exit code %d", code)
	}

	p.run("stonith_admin", "-U", "node1", "-t", "120")
	check(t, p.PoweredOn(p.ctx, p.Nodes[1]))

	// dlm_controld's words, for corosync's node 77.
	conf := "nodelist {\n\tnode {\n\t\tnodeid: 77\n\t\tring0_addr: " + p.Nodes[1].Address().String() + "\n\t}\n}\n"
	check(t, p.node.WriteFile(p.ctx, "/etc/corosync/corosync.conf", []byte(conf), 0o644))
	const dlm = `printf 'node=%d\nfail_time=%s\n' | fence_o2fence`
	if code := p.shell(dlm, 77, "'$(($(date +%s) - 3600))'"); code != 0 {
		t.Errorf("fenced since the fail time: exit code %d", code)
	}
	p.powered(vm.Running)
	if code := p.shell(dlm, 1, "'$(date +%s)'"); code != 1 {
		t.Errorf("a number that corosync does not have: exit code %d", code)
	}
	p.powered(vm.Running)
	if code := p.shell(dlm, 77, "'$(date +%s)'"); code != 0 {
		t.Errorf("exit code %d", code)
	}
	p.powered(vm.Off)

	p.run("fence_o2fence", "-o", "on", "-n", "node1")
	p.powered(vm.Running)
	if code := p.shell("DRBD_RESOURCE=r0 DRBD_PEER_NODE_ID=1 DRBD_NODE_ID_1=node1 fence_o2fence --drbd"); code != 7 {
		t.Errorf("DRBD's handler: exit code %d", code)
	}
	p.powered(vm.Off)

	// With the BMC gone nobody can prove anything before the watchdog's time, and nobody says so.
	check(t, p.BMCs[1].Close())
	if code := p.code("stonith_admin", "-B", "node1", "-t", "5"); code == 0 {
		t.Error("FALSE SUCCESS: Pacemaker was told of a fence that nobody has proven")
	}
	if code := p.code("fence_o2fence", "-o", "off", "-n", "node1", "--power-timeout=2"); code != 1 {
		t.Errorf("without proof: exit code %d", code)
	}
	if code := p.shell("DRBD_PEER=node1 fence_o2fence --drbd --power-timeout=2"); code != 1 {
		t.Errorf("DRBD's handler without proof: exit code %d", code)
	}
	if code := p.code("fence_o2fence", "-o", "status", "-n", "node1"); code != 1 {
		t.Errorf("status of a node that nobody can read: exit code %d", code)
	}
}
