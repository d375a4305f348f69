// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/test/guest/wire"
)

// outputGrace is how long after a process's end the output of children that it left behind is
// still waited for.
const outputGrace = 200 * time.Millisecond

// An agent answers the host on one port.
type agent struct {
	sending sync.Mutex
	port    *json.Encoder

	mu     sync.Mutex
	groups map[uint64]int // process groups of the running processes, by request
}

// serve carries out the host's requests until the port fails.
func serve() error {
	// The host's eyes and hands must outlive every memory-pressure test.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		return err
	}
	// Booting quietly is booting fast; from here on the serial log has everything.
	if err := os.WriteFile("/proc/sys/kernel/printk", []byte("8"), 0); err != nil {
		return err
	}
	device, err := findPort(wire.PortName)
	if err != nil {
		return err
	}
	port, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	a := agent{port: json.NewEncoder(port), groups: make(map[uint64]int)}
	a.send(wire.Reply{})
	for requests := json.NewDecoder(port); ; {
		var r wire.Request
		if err := requests.Decode(&r); err != nil {
			return fmt.Errorf("%s: %w", device, err)
		}
		a.handle(r)
	}
}

// findPort finds the device by the port's name: which number it has depends on QEMU's arguments.
func findPort(name string) (string, error) {
	files, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return "", err
	}
	for _, file := range files {
		if got, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(got)) == name {
			return "/dev/" + filepath.Base(filepath.Dir(file)), nil
		}
	}
	return "", fmt.Errorf("no virtio serial port named %s", name)
}

func (a *agent) send(r wire.Reply) {
	a.sending.Lock()
	defer a.sending.Unlock()
	if err := a.port.Encode(r); err != nil {
		fmt.Fprintln(os.Stderr, "guest: reply lost:", err)
	}
}

func (a *agent) handle(r wire.Request) {
	switch {
	case r.Start != nil:
		a.start(r.ID, r.Start)
	case r.Signal != 0:
		a.signal(r.ID, r.Signal)
	case r.Write != nil:
		a.finish(r.ID, writeFile(r.Write))
	case r.PowerOff:
		unix.Sync()
		a.finish(r.ID, unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
	default:
		a.finish(r.ID, errors.New("a request for nothing"))
	}
}

// finish answers a request that is no process, or failed to become one.
func (a *agent) finish(id uint64, err error) {
	reply := wire.Reply{ID: id, Done: true}
	if err != nil {
		reply.Error = err.Error()
	}
	a.send(reply)
}

func writeFile(f *wire.File) error {
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(f.Path, f.Data, f.Mode)
}

// start runs a process in a group of its own, so that a signal reaches its children too.
func (a *agent) start(id uint64, p *wire.Process) {
	// Writers, not pipes of our own: Wait then returns after the last output is sent.
	cmd := exec.Command(p.Args[0], p.Args[1:]...)
	cmd.Env = append(os.Environ(), p.Env...)
	cmd.Dir = p.Dir
	cmd.Stdin = bytes.NewReader(p.Stdin)
	cmd.Stdout = output(func(b []byte) { a.send(wire.Reply{ID: id, Stdout: b}) })
	cmd.Stderr = output(func(b []byte) { a.send(wire.Reply{ID: id, Stderr: b}) })
	cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = outputGrace
	if err := cmd.Start(); err != nil {
		a.finish(id, err)
		return
	}
	// What the agent starts is an ordinary process. It may be gone already.
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", cmd.Process.Pid), []byte("0"), 0)
	a.mu.Lock()
	a.groups[id] = cmd.Process.Pid
	a.mu.Unlock()
	go a.wait(id, cmd)
}

// wait reports the end of a process. Output that its orphans still hold open does not count.
func (a *agent) wait(id uint64, cmd *exec.Cmd) {
	err := cmd.Wait()
	a.mu.Lock()
	delete(a.groups, id)
	a.mu.Unlock()
	reply := wire.Reply{ID: id, Done: true}
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
	case errors.As(err, &exit):
		status := exit.Sys().(syscall.WaitStatus)
		reply.Code = status.ExitStatus()
		if status.Signaled() {
			reply.Signal = status.Signal()
		}
	default:
		reply.Error = err.Error()
	}
	a.send(reply)
}

func (a *agent) signal(id uint64, s unix.Signal) {
	a.mu.Lock()
	defer a.mu.Unlock()
	// A signal that comes too late is one that has had its effect.
	if group, ok := a.groups[id]; ok {
		_ = unix.Kill(-group, s)
	}
}

// output sends what is written to it.
type output func([]byte)

func (o output) Write(b []byte) (int, error) {
	o(b)
	return len(b), nil
}
