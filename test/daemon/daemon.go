// SPDX-License-Identifier: GPL-2.0-only

// Package daemon runs other people's servers for tests and benchmarks: each a process of its own, at a
// UDP port of its own, and waited for until it answers there.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// A Config is what Start needs to know.
type Config struct {
	Dir      string         // where it keeps its files and its log; it has to exist, and to be its own
	Addr     netip.AddrPort // where it listens; the zero value and port 0 mean a free port of 127.0.0.1
	Question []byte         // what it answers once it serves

	// Command prepares what is to run, and the files that tell it to listen at addr. It is called for
	// each start.
	Command func(addr netip.AddrPort) (*exec.Cmd, error)
}

// A Daemon is a server that runs.
type Daemon struct {
	config Config
	cmd    *exec.Cmd
	exited chan struct{}
}

// Start starts a server and returns when it answers. ctx bounds the start alone; Kill ends the server.
func Start(ctx context.Context, c Config) (*Daemon, error) {
	if !c.Addr.IsValid() {
		c.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	}
	d := &Daemon{config: c}
	if err := d.launch(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// Addr is where it listens.
func (d *Daemon) Addr() netip.AddrPort { return d.config.Addr }

// Kill ends the server, and returns when it has ended.
func (d *Daemon) Kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
}

// Restart ends the server and starts it again at the same address.
func (d *Daemon) Restart(ctx context.Context) error {
	d.Kill()
	return d.launch(ctx)
}

// launch starts the process and waits until it answers. The port that was free a moment ago may not be
// any more, so another one is tried.
func (d *Daemon) launch(ctx context.Context) error {
	anyPort := d.config.Addr.Port() == 0
	for try := 0; ; try++ {
		if anyPort {
			addr, err := freePort(d.config.Addr.Addr())
			if err != nil {
				return err
			}
			d.config.Addr = addr
		}
		err := d.run(ctx)
		if err == nil || !anyPort || try == 2 || ctx.Err() != nil {
			return err
		}
	}
}

func (d *Daemon) run(ctx context.Context) error {
	cmd, err := d.config.Command(d.config.Addr)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(d.config.Dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = d.config.Dir, log, log
	// Should this process be killed, its servers must not stay behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	d.cmd, d.exited = cmd, make(chan struct{})
	go func(exited chan struct{}) {
		_ = cmd.Wait()
		close(exited)
	}(d.exited)
	if err := d.ready(ctx); err != nil {
		d.Kill()
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, text[max(0, len(text)-2000):])
	}
	return nil
}

func (d *Daemon) ready(ctx context.Context) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(d.config.Addr))
	if err != nil {
		return err
	}
	defer conn.Close()
	answer := make([]byte, 512)
	for {
		select {
		case <-d.exited:
			return fmt.Errorf("exited early: %v", d.cmd.ProcessState)
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		_, _ = conn.Write(d.config.Question)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := conn.Read(answer); err == nil {
			return nil
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			time.Sleep(5 * time.Millisecond) // not listening yet
		}
	}
}

func freePort(addr netip.Addr) (netip.AddrPort, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer c.Close()
	return netip.AddrPortFrom(addr, uint16(c.LocalAddr().(*net.UDPAddr).Port)), nil
}
