// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"

	"github.com/o2fence/o2fence/bridge/dispatch"
	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/setup"
	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/test/pressure/wire"
)

// orders calls do for each line of a daemon's FIFO: its number, and the time there is.
func orders(in io.Reader, do func(number string, patience time.Duration) error) error {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var number string
		var ms int
		if _, err := fmt.Sscan(lines.Text(), &number, &ms); err != nil {
			return err
		}
		if err := do(number, time.Duration(ms)*time.Millisecond); err != nil {
			return err
		}
	}
	return io.ErrUnexpectedEOF
}

func answer(out io.Writer, number string, err error) error {
	text := "ok"
	if err != nil {
		text = strings.ReplaceAll(fmt.Sprintf("%.300v", err), "\n", "; ")
	}
	_, err = fmt.Fprintf(out, "%s %s\n", number, text)
	return err
}

// agents is a daemon that executes a program for each fence, with parameters on its standard input,
// as pacemaker-fenced and dlm_controld do: agents NAME PROGRAM KEY=VALUE...
func agents(args []string) error {
	if len(args) < 2 {
		return errors.New("want a name, a program and its parameters")
	}
	in, err1 := fifo(args[0], "in")
	out, err2 := fifo(args[0], "out")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	params := strings.Join(args[2:], "\n") + "\n"
	return orders(in, func(number string, patience time.Duration) error {
		return answer(out, number, execute(args[1], params, patience))
	})
}

// execute runs an agent. One that hangs is killed with all that it has started.
func execute(program, params string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program)
	cmd.Stdin = strings.NewReader(params)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, text)
	}
	return nil
}

// plain is o2fenced without the memory rules: the same configuration, core loop and method, but it is
// asked by a FIFO instead of the kernel, which would refuse it.
func plain([]string) error {
	cfg, err := setup.Load(clusterFile, fenceFile)
	if err != nil {
		return err
	}
	carried, err := setup.OpenBridge(cfg, func() {})
	if err != nil {
		return err
	}
	in, err1 := fifo(wire.Plain, "in")
	out, err2 := fifo(wire.Plain, "out")
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	k := &pretended{asked: make(chan kernel.Initiate), out: out}
	d := dispatch.New(k, carried.Nodes, dispatch.Options{
		Settled: func(context.Context, string, uint32) (bool, error) { return false, nil },
		Idle:    func() {}, Log: func(string, ...any) {}, Begin: func() {},
	})
	failed := make(chan error, 1)
	go func() { failed <- d.Serve() }()
	return errors.Join(orders(in, func(number string, patience time.Duration) error {
		return k.ask(carried.Nodes, number, patience)
	}), <-failed)
}

// A pretended kernel asks for what comes through a FIFO.
type pretended struct {
	asked chan kernel.Initiate
	out   io.Writer
}

const plainNode = 2

func (k *pretended) ask(nodes []dispatch.Node, number string, patience time.Duration) error {
	var request uint64
	if _, err := fmt.Sscan(number, &request); err != nil {
		return err
	}
	for _, n := range nodes {
		if n.Cluster != spareCluster || n.Number != plainNode {
			continue
		}
		ae := netlink.NewAttributeEncoder()
		ae.String(uint16(uapi.AttrCluster), n.Cluster)
		ae.Uint32(uint16(uapi.AttrNode), n.Number)
		ae.Uint64(uint16(uapi.AttrIncarnation), 0)
		ae.Uint64(uint16(uapi.AttrRequest), request)
		ae.Uint32(uint16(uapi.AttrAttempt), 1)
		ae.String(uint16(uapi.AttrMethod), n.Jobs[0].Method)
		ae.Uint32(uint16(uapi.AttrTimeoutMS), uint32(patience.Milliseconds()))
		ae.String(uint16(uapi.AttrParams), string(n.Jobs[0].Params))
		attrs, err := ae.Encode()
		if err != nil {
			return err
		}
		var order kernel.Initiate
		if _, err := order.Decode(append([]byte{byte(uapi.CmdInitiate), uapi.GenlVersion, 0, 0}, attrs...)); err != nil {
			return err
		}
		k.asked <- order
		return nil
	}
	return errors.New("no node to fence")
}

// Receive and Fenced are what dispatch wants of the kernel.
func (k *pretended) Receive(in *kernel.Initiate) (uapi.Cmd, error) {
	order, ok := <-k.asked
	if !ok {
		return 0, os.ErrClosed
	}
	*in = order
	return uapi.CmdInitiate, nil
}

func (k *pretended) Fenced(a *kernel.Answer) error {
	var err error
	if a.Errno != 0 {
		err = fmt.Errorf("%w: %s", a.Errno, a.Errmsg)
	}
	return answer(k.out, fmt.Sprint(a.Request), err)
}
