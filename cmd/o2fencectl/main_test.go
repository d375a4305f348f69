// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/bmc"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"o2fencectl": main})
}

// password is the BMC's; no output may have it.
const password = "hunter2"

// clusterConf has three nodes, the last of which is the machine of the test in here.conf.
const clusterConf = `cluster:
	name = web
	node_count = 3

node:
	cluster = web
	name = web1
	number = 1
	ip_address = 192.0.2.1
	ip_port = 7777

node:
	cluster = web
	name = web2
	number = 2
	ip_address = 192.0.2.2
	ip_port = 7777

node:
	cluster = web
	name = web3
	number = 3
	ip_address = 192.0.2.3
	ip_port = 7777
`

// TestCommandLines runs testdata/script. Each script finds cluster.conf, here.conf and the file
// password, which holds the BMC's. Beside testscript's own commands there are
//
//	exits CODE COMMAND ARGUMENT...   the command must exit with this code
//	bmc                              starts ipmi_sim; $BMC is its port
//	freeport                         $PORT is a UDP port of 127.0.0.1 that nobody has
//	asks NUMBER                      asks about web2 at that port with the key in the file key, as request
//	                                 NUMBER, until it is answered; $REQUEST is what the desk calls it
//	answered ERROR NOTE              waits for that, and for these patterns
func TestCommandLines(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Values[replies] = make(chan reply, 1)
			host, err := os.Hostname()
			return errors.Join(err,
				os.WriteFile(filepath.Join(e.WorkDir, "cluster.conf"), []byte(clusterConf), 0o644),
				os.WriteFile(filepath.Join(e.WorkDir, "here.conf"), []byte(strings.ReplaceAll(clusterConf, "web3", host)), 0o644),
				os.WriteFile(filepath.Join(e.WorkDir, "password"), []byte(password+"\n"), 0o600),
			)
		},
		Condition: func(name string) (bool, error) {
			if name != "loaded" {
				return false, fmt.Errorf("unknown condition %q", name)
			}
			_, err := os.Stat("/sys/module/o2fence")
			return err == nil, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "bmc": startBMC, "freeport": freePort, "asks": asks, "answered": answered,
		},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND ARGUMENT...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func startBMC(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: bmc")
	}
	dir := ts.MkAbs("bmc")
	ts.Check(os.Mkdir(dir, 0o700))
	machine := new(fencetest.Machine)
	ts.Check(machine.SetOn(true))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b, err := bmc.Start(ctx, dir, bmc.Config{User: "fence", Password: password, Power: machine})
	ts.Check(err)
	ts.Defer(func() { b.Close() })
	ts.Setenv("BMC", strconv.Itoa(int(b.Addr().Port())))
}

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{nil, 0},
		{errSaid, 1},
		{errors.New("anything"), 1},
		{usageError{fs.ErrPermission}, 2},
		{fmt.Errorf("join: %w", usageError{fs.ErrNotExist}), 2},
		{kernel.ErrNotLoaded, 3},
		{&kernel.Refusal{Errno: syscall.EPERM}, 4},
		{&fs.PathError{Op: "open", Path: "/dev/sda1", Err: syscall.EACCES}, 4},
		{&kernel.Refusal{Errno: syscall.EBUSY}, 1},
	} {
		if got := exitCode(c.err); got != c.want {
			t.Errorf("%v: exit code %d, want %d", c.err, got, c.want)
		}
	}
}

func TestAllMissingMethodsAreNamedAtOnce(t *testing.T) {
	err := errMissing([]setup.MissingMethod{
		{Method: "ipmi", Nodes: []string{"web1", "web2"}}, {Method: "manual", Nodes: []string{"web3"}},
	})
	for _, want := range []string{"ipmi, of web1, web2", "manual, of web3", "start o2fenced", "load the module o2fence_methods"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: does not say %q", err, want)
		}
	}
	if err := errMissing(nil); err != nil {
		t.Error(err)
	}
}
