// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/bridge/uapi"
)

// All that the tests need of o2fence itself is in this file.

var ctx = context.Background()

func loadModules(dir string) error {
	for _, module := range []string{"o2fence", "o2fence_methods"} {
		f, err := os.Open(dir + "/" + module + ".ko")
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			return fmt.Errorf("loading %s: %w", module, err)
		}
	}
	return nil
}

// join joins a cluster in which node i is fenced by act i-1.
func join(client *kernel.Client) error {
	watchdog := kernel.Step{Method: "watchdog", TimeoutMS: 60_000}
	c := kernel.Cluster{
		Name:  "c",
		Nodes: []kernel.Node{{Number: 0, Steps: []kernel.Step{watchdog}}},
	}
	for i, act := range acts {
		own := kernel.Step{Method: act.name, TimeoutMS: 60_000}
		c.Nodes = append(c.Nodes, kernel.Node{Number: uint32(i + 1), Steps: []kernel.Step{own, watchdog}})
	}
	return client.Join(ctx, c)
}

// fence fences the node of an act, and returns when the bridge has answered.
func (b *bridge) fence(client *kernel.Client, name string) error {
	for i, act := range acts {
		if act.name != name {
			continue
		}
		if err := client.Fence(ctx, "c", uint32(i+1), 1, "it is a test"); err != nil {
			return err
		}
		return b.await("fenced " + name)
	}
	return fmt.Errorf("no act %q", name)
}

// serve is the bridge's process. It obeys all rules of memory until an act breaks one.
func serve() error {
	if err := memsafe.Enter(flagThread); err != nil {
		return err
	}
	var err error
	if logFile, err = os.Create("/tmp/offender.log"); err != nil {
		return err
	}
	b, err := kernel.OpenBridge()
	if err != nil {
		return err
	}
	// All of memsafe.Lock but the real-time priority: on the one processor of this machine the audit
	// could not keep up with an offender that has it.
	if err := memsafe.LockMemory(); err != nil {
		return err
	}
	runtime.GOMAXPROCS(runtime.NumCPU())
	memsafe.StartThreads(4)
	memsafe.GrowHeap(2048)
	asked := make(chan kernel.Attempt, len(acts))
	methods := make(chan string, len(acts))
	go receive(b, asked, methods)
	var names []string
	for _, act := range acts {
		names = append(names, act.name)
	}
	if err := b.Bind(ctx, names); err != nil {
		return err
	}
	fmt.Println("bound")
	for attempt := range asked {
		method := <-methods
		for _, act := range acts {
			if act.name == method {
				act.do()
			}
		}
		if err := b.Fenced(&kernel.Answer{Attempt: attempt}); err != nil {
			return err
		}
		fmt.Println("fenced", method)
	}
	return errors.New("the kernel cannot be heard")
}

func receive(b *kernel.Bridge, asked chan<- kernel.Attempt, methods chan<- string) {
	defer close(asked)
	var in kernel.Initiate
	for {
		cmd, err := b.Receive(&in)
		if err != nil {
			return
		}
		if cmd == uapi.CmdInitiate {
			methods <- in.Method.String()
			asked <- in.Attempt
		}
	}
}

func flagThread() error {
	c, err := kernel.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Memalloc(ctx)
}

// A bridge is the tests' end of that process.
type bridge struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
}

func startBridge() (*bridge, error) {
	cmd := exec.Command("/proc/self/exe", "bridge")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b := &bridge{cmd: cmd, lines: bufio.NewScanner(out)}
	return b, b.await("bound")
}

// await waits for a line of the bridge's.
func (b *bridge) await(want string) error {
	if !b.lines.Scan() {
		return errors.Join(errors.New("the bridge has ended"), b.lines.Err())
	}
	if got := b.lines.Text(); got != want {
		return fmt.Errorf("the bridge says %q, want %q", got, want)
	}
	return nil
}
