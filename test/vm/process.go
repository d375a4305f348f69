// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// A process is one QEMU: a machine from power-on to power-off.
type process struct {
	cmd     *exec.Cmd
	stderr  bytes.Buffer
	monitor *monitor
	agent   *agent
	killed  atomic.Bool

	done chan struct{} // closed when QEMU, all its threads included, is gone
	exit Exit          // valid when done is closed
}

// An Exit is how a machine went off.
type Exit struct {
	Time time.Time
	// Reason is "power-off" for the harness's own doing, otherwise QEMU's word for it:
	// "guest-shutdown", "guest-reset" (a panic ends with one too), "host-qmp-quit", …
	Reason string
}

// descriptors collects what QEMU inherits.
type descriptors struct {
	files []*os.File
}

func (d *descriptors) add(f *os.File) (fd int) {
	d.files = append(d.files, f)
	return 2 + len(d.files)
}

// pair adds one end of a stream socket and returns the other, which meets its end when QEMU ends, or
// when it never begins.
func (d *descriptors) pair() (fd int, ours net.Conn, err error) {
	theirs, ours, err := socketPair(syscall.SOCK_STREAM)
	if err != nil {
		return 0, nil, err
	}
	return d.add(theirs), ours, nil
}

func (d *descriptors) close() {
	for _, f := range d.files {
		f.Close()
	}
}

// startProcess starts a QEMU for m and waits until its monitor answers.
func startProcess(ctx context.Context, m *VM) (*process, error) {
	var inherited descriptors
	defer inherited.close()
	// Inherited sockets instead of paths: nothing to wait for, to clean up, or to be too long.
	monitorFD, monitorConn, err := inherited.pair()
	if err != nil {
		return nil, err
	}
	agentFD, agentConn, err := inherited.pair()
	if err != nil {
		return nil, errors.Join(err, monitorConn.Close())
	}
	p := &process{done: make(chan struct{}), monitor: newMonitor(monitorConn), agent: newAgent(agentConn)}
	args := machineArgs(m.cfg, m.MonitorPath(), monitorFD, agentFD)
	if m.port != nil {
		cable, err := m.port.connect()
		if err != nil {
			return nil, err
		}
		args = append(args, switchArgs(m.cfg.Address, inherited.add(cable))...)
	}
	// Last, so that eth0 is the switch.
	args = append(args, hostNetworkArgs()...)
	p.cmd = exec.Command("qemu-system-x86_64", append(args, m.cfg.Devices...)...)
	p.cmd.ExtraFiles = inherited.files
	err = p.start(m.console)
	// With our copies closed, the connections end when QEMU ends.
	inherited.close()
	if err != nil {
		return nil, err
	}
	if err = p.monitor.execute(ctx, "qmp_capabilities"); err != nil {
		p.kill()
		<-p.done
		return nil, fmt.Errorf("%w: %s", err, bytes.TrimSpace(p.stderr.Bytes()))
	}
	return p, nil
}

// start runs QEMU and sees to it that it ends with this process. The kernel ties a child's death
// signal to the thread that forked it, so that thread is kept until QEMU is gone.
func (p *process) start(console io.Writer) error {
	p.cmd.Stdout = console
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL,
		Setpgid:   true, // an interrupt on the terminal is for the harness to act on
	}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.wait()
		}
	}()
	return <-started
}

func (p *process) wait() {
	err := p.cmd.Wait()
	p.exit = Exit{Time: time.Now(), Reason: p.reason(err)}
	close(p.done)
}

// reason says why QEMU, which ended with err, is gone: we did it, or what it announced, or what it
// complained of.
func (p *process) reason(err error) string {
	if p.killed.Load() {
		return "power-off"
	}
	// The connection ends after QEMU's last words on it.
	<-p.monitor.gone
	if reason := p.monitor.shutdownReason(); reason != "" {
		return reason
	}
	return strings.TrimSpace(fmt.Sprintf("%v %s", err, p.stderr.Bytes()))
}

// kill is what pulling the plug is: once done is closed, no write of QEMU's is on its way any more.
func (p *process) kill() {
	p.killed.Store(true)
	_ = p.cmd.Process.Kill() // fails only when it is gone already
}

func (p *process) isRunning() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}
