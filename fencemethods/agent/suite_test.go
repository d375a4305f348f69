// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/agent/sandbox"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/bmc"
	"github.com/o2fence/o2fence/test/bmc/wire"
)

// An outdoors runs agents as a jail does, without its walls: what an agent says, and how it is killed,
// is the same, and the suite can be run where there is no cgroup v2. The walls have tests of their
// own.
type outdoors struct{ program string }

func (o outdoors) Run(ctx context.Context, stdin []byte) (sandbox.Result, error) {
	cmd := exec.CommandContext(ctx, o.program)
	var out, err bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &err
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	failed := cmd.Run()
	r := sandbox.Result{End: sandbox.Exited, Stdout: out.Bytes(), Stderr: err.Bytes()}
	exit, ok := errors.AsType[*exec.ExitError](failed)
	switch {
	case ctx.Err() != nil:
		return r, ctx.Err()
	case ok && exit.Exited():
		r.Code = exit.ExitCode()
	case failed != nil:
		r.End, r.Code = sandbox.Signaled, int(syscall.SIGKILL)
	}
	return r, nil
}

func (o outdoors) Close() error { return nil }

// outside is the method without its sandbox.
func outside() fencemethods.Method {
	m := Method()
	m.New = func(_ fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
		return newDevice(v, func() (jail, error) { return outdoors{v["program"]}, nil })
	}
	return m
}

// suite runs the conformance suite on an agent, for make conformance: on a busy machine an agent gives up
// by itself now and then.
func suite(t *testing.T, program, peer string, start func(*testing.T, *fencetest.Machine) fencetest.Peer, skip map[string]string) {
	t.Helper()
	fencetest.Theirs(t, program)
	fencetest.Run(t, fencetest.Harness{
		Method: outside(), Peer: peer, Start: start, Crowd: "ipmi_sims, each with a fence_ipmilan of its own", Skip: skip, Slow: true,
	})
}

func TestOffIsProvenByFenceIPMILAN(t *testing.T) {
	const program = "/usr/sbin/fence_ipmilan"
	suite(t, program, "fence_ipmilan and ipmi_sim", func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
		b, err := bmc.Start(within(t, patience), t.TempDir(), bmc.Config{User: "fence", Password: "correct-horse", Power: m})
		check(t, err)
		t.Cleanup(func() { b.Close() })
		w, err := wire.New(b.Addr())
		check(t, err)
		t.Cleanup(func() { w.Close() })
		at := func(port string) string {
			return "ip=127.0.0.1 ipport=" + port + " username=fence lanplus=1 cipher=3"
		}
		return fencetest.Peer{
			Params: map[string]string{
				"program": program, "password_file": secretFile(t, "correct-horse"),
				"options": at(strconv.Itoa(int(w.Addr().Port()))),
			},
			Secret:   "correct-horse",
			Sealed:   true, // ipmitool gives up where something else comes between
			Absent:   map[string]string{"options": at(strconv.Itoa(fencetest.ClosedPort(t, "udp4")))},
			SetFault: w.SetFault,
			Restart:  func() error { return b.Restart(t.Context()) },
			Foreign: func(t testing.TB) map[string]map[string]string {
				return map[string]map[string]string{"an echo": {"options": at(fencetest.Echo(t, "udp4"))}}
			},
		}
	}, map[string]string{
		"damaged answers between": "ipmitool gives up, and the agent with it: the fence fails, and nothing is believed",
		"wrong credentials":       "the agent does not tell them from a BMC that cannot say its state; they fail, see TestFenceIPMILAN",
	})
}
