// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"errors"
	"fmt"

	"github.com/o2fence/o2fence/test/guest/wire"
)

// A PowerState is what a machine's power button would tell, if it had one.
type PowerState int

// A paused machine is on, but nothing in it moves, its clock included.
const (
	Off PowerState = iota
	Running
	Paused
)

func (s PowerState) String() string {
	switch s {
	case Off:
		return "off"
	case Running:
		return "running"
	case Paused:
		return "paused"
	}
	return fmt.Sprintf("PowerState(%d)", int(s))
}

// current returns the last process, nil when there never was one.
func (m *VM) current() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.run
}

// running returns the process, or ErrOff.
func (m *VM) running() (*process, error) {
	if p := m.current(); p != nil && p.isRunning() {
		return p, nil
	}
	return nil, m.errorf("%w", ErrOff)
}

// PowerState tells the machine's state now. It is Off only when QEMU is gone.
func (m *VM) PowerState() PowerState {
	p, err := m.running()
	switch {
	case err != nil:
		return Off
	case p.monitor.isPaused():
		return Paused
	}
	return Running
}

// PowerOn starts a machine that is off; of one that is on it changes nothing. It does not wait for
// the guest: see Ready. ctx bounds the start only.
func (m *VM) PowerOn(ctx context.Context) error {
	m.power.Lock()
	defer m.power.Unlock()
	return m.powerOn(ctx)
}

func (m *VM) powerOn(ctx context.Context) error {
	if m.closed {
		return m.errorf("closed: %w", ErrOff)
	}
	if _, err := m.running(); err == nil {
		return nil
	}
	m.console.note("power on")
	p, err := startProcess(ctx, m)
	if err != nil {
		return m.errorf("power on: %w", err)
	}
	m.mu.Lock()
	m.run = p
	m.mu.Unlock()
	go func() {
		<-p.done
		m.console.note("off: %s", p.exit.Reason)
	}()
	return nil
}

// PowerOff pulls the plug, whatever the machine is doing, and returns when it is off: nothing it had
// in flight can reach its disks any more.
func (m *VM) PowerOff() {
	m.power.Lock()
	defer m.power.Unlock()
	m.powerOff()
}

func (m *VM) powerOff() {
	if p, err := m.running(); err == nil {
		p.kill()
		<-p.done
	}
	if m.port != nil {
		m.port.disconnect()
	}
}

// Reset is PowerOff and PowerOn with nobody in between.
func (m *VM) Reset(ctx context.Context) error {
	m.power.Lock()
	defer m.power.Unlock()
	m.powerOff()
	return m.powerOn(ctx)
}

// Pause freezes the machine where it is. What it had in flight to its disks is finished first.
func (m *VM) Pause(ctx context.Context) error { return m.monitorCommand(ctx, "stop") }

// Resume lets a paused machine go on, unaware.
func (m *VM) Resume(ctx context.Context) error { return m.monitorCommand(ctx, "cont") }

func (m *VM) monitorCommand(ctx context.Context, command string) error {
	p, err := m.running()
	if err != nil {
		return err
	}
	if err := p.monitor.execute(ctx, command); err != nil {
		return m.errorf("%w", err)
	}
	return nil
}

// Exited returns a channel that is closed once the machine, as it is on now, is off; closed already
// when it is off.
func (m *VM) Exited() <-chan struct{} {
	if p := m.current(); p != nil {
		return p.done
	}
	off := make(chan struct{})
	close(off)
	return off
}

// Wait waits until the machine is off and tells how it went off the last time. The error is ErrOff
// when it was never on, or ctx's.
func (m *VM) Wait(ctx context.Context) (Exit, error) {
	p := m.current()
	if p == nil {
		return Exit{}, m.errorf("never on: %w", ErrOff)
	}
	select {
	case <-p.done:
		return p.exit, nil
	case <-ctx.Done():
		return Exit{}, m.errorf("waiting for power-off: %w", ctx.Err())
	}
}

// Ready waits until the guest is up and its agent serves. The error is ErrOff when the machine went
// off before.
func (m *VM) Ready(ctx context.Context) error {
	_, err := m.readyAgent(ctx)
	return err
}

func (m *VM) readyAgent(ctx context.Context) (*agent, error) {
	p, err := m.running()
	if err != nil {
		return nil, err
	}
	select {
	case <-p.agent.up:
		return p.agent, nil
	case <-p.done:
		return nil, m.errorf("%w: %s\n%s", ErrOff, p.exit.Reason, m.console.tail(20))
	case <-ctx.Done():
		return nil, m.errorf("not up: %w\n%s", ctx.Err(), m.console.tail(20))
	}
}

// Boot is PowerOn and Ready.
func (m *VM) Boot(ctx context.Context) error {
	if err := m.PowerOn(ctx); err != nil {
		return err
	}
	return m.Ready(ctx)
}

// Shutdown asks the guest to power itself off, cleanly where its init does more than sync, and waits
// until it is off. It is an error when the machine went off in any other way.
func (m *VM) Shutdown(ctx context.Context) error {
	a, err := m.readyAgent(ctx)
	if err != nil {
		return err
	}
	if m.cfg.Init != "" {
		_, err = m.Run(ctx, "poweroff")
	} else {
		err = a.do(ctx, wire.Request{PowerOff: true})
	}
	// The answer is lost when the guest is faster off than it is sent.
	if err != nil && !errors.Is(err, ErrOff) {
		return err
	}
	exit, err := m.Wait(ctx)
	if err == nil && exit.Reason != "guest-shutdown" {
		err = m.errorf("shutdown: went off by %s", exit.Reason)
	}
	return err
}
