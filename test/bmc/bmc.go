// SPDX-License-Identifier: GPL-2.0-only

// Package bmc starts real BMC servers for tests and for the demo: OpenIPMI's ipmi_sim, pyghmi's
// fakebmc and bougou/go-ipmi's server. Each is a process of its own that answers IPMI over LAN and
// switches a Power of the caller's.
package bmc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// A Config is what a BMC shall be like.
type Config struct {
	Addr      netip.AddrPort // where it listens; the zero value and port 0 mean a free port of 127.0.0.1
	User      string
	Password  string
	Power     Power
	Privilege string // go-ipmi only: highest level of User, "user", "operator" or, for "", "admin"
	KG        string // ipmi_sim only: the BMC key K_G of 20 characters; "" is none
}

// A BMC is a running server.
type BMC struct {
	config Config
	dir    string
	power  *powerServer
	start  func(*BMC) (*exec.Cmd, error)
	cmd    *exec.Cmd
	exited chan error
}

// Start starts OpenIPMI's ipmi_sim and returns when it answers. It keeps its files in dir, which
// has to exist and to be its own. ctx bounds the start alone; Close ends the server.
func Start(ctx context.Context, dir string, c Config) (*BMC, error) {
	return start(ctx, dir, c, startSim)
}

// StartPyghmi starts a BMC made of pyghmi, as Start does. It offers cipher suite 3 only and answers
// with that whatever it is asked for.
func StartPyghmi(ctx context.Context, dir string, c Config) (*BMC, error) {
	return start(ctx, dir, c, startPyghmi)
}

// StartGoIPMI starts bougou/go-ipmi's server, as Start does. The program comes from BuildGoIPMI.
func StartGoIPMI(ctx context.Context, dir, program string, c Config) (*BMC, error) {
	return start(ctx, dir, c, func(b *BMC) (*exec.Cmd, error) { return startGoIPMI(b, program) })
}

func start(ctx context.Context, dir string, c Config, cmd func(*BMC) (*exec.Cmd, error)) (*BMC, error) {
	if !c.Addr.IsValid() {
		c.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 0)
	}
	if strings.ContainsAny(c.User+c.Password+c.KG+dir, "\"\\\n ") {
		return nil, errors.New("bmc: user, password, K_G and dir cannot hold quotes, backslashes or white space")
	}
	power, err := newPowerServer(c.Power)
	if err != nil {
		return nil, err
	}
	b := &BMC{config: c, dir: dir, power: power, start: cmd}
	if err := b.launch(ctx); err != nil {
		power.close()
		return nil, err
	}
	return b, nil
}

// Addr is where the BMC listens.
func (b *BMC) Addr() netip.AddrPort { return b.config.Addr }

// Restart ends the server and starts it again at the same address, its sessions forgotten.
func (b *BMC) Restart(ctx context.Context) error {
	b.kill()
	return b.launch(ctx)
}

// Close ends the server. The machine stays as it is.
func (b *BMC) Close() error {
	b.kill()
	b.power.close()
	return nil
}

func (b *BMC) kill() {
	_ = b.cmd.Process.Kill()
	<-b.exited
}

// launch starts the process and waits until it answers. The port that was free a moment ago may
// not be any more, so another one is tried.
func (b *BMC) launch(ctx context.Context) error {
	any := b.config.Addr.Port() == 0
	for try := 0; ; try++ {
		if any {
			addr, err := freePort(b.config.Addr.Addr())
			if err != nil {
				return err
			}
			b.config.Addr = addr
		}
		err := b.run(ctx)
		if err == nil || !any || try == 2 || ctx.Err() != nil {
			return err
		}
	}
}

func (b *BMC) run(ctx context.Context) error {
	cmd, err := b.start(b)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(b.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = b.dir, log, log
	// Should this process be killed, its BMCs must not stay behind.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait(); close(exited) }()
	b.cmd, b.exited = cmd, exited
	if err := b.ready(ctx); err != nil {
		b.kill()
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("bmc: %s: %w\n%s", filepath.Base(cmd.Path), err, text)
	}
	return nil
}

// ready waits until the BMC answers Get Channel Authentication Capabilities, which needs no session.
func (b *BMC) ready(ctx context.Context) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(b.config.Addr))
	if err != nil {
		return err
	}
	defer conn.Close()
	question := []byte("\x06\x00\xff\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09\x20\x18\xc8\x81\x00\x38\x8e\x04\xb5")
	answer := make([]byte, 64)
	for {
		select {
		case err := <-b.exited:
			return fmt.Errorf("exited early: %w", errors.Join(err))
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		_, _ = conn.Write(question)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := conn.Read(answer); err == nil {
			return nil
		} else if errors.Is(err, syscall.ECONNREFUSED) {
			time.Sleep(5 * time.Millisecond) // not listening yet
		}
	}
}

// PoweredOn asks ipmitool, as a second opinion.
func (b *BMC) PoweredOn(ctx context.Context) (bool, error) {
	cmd := exec.CommandContext(ctx, "ipmitool", "-I", "lanplus", "-C", "3", "-E", "-U", b.config.User,
		"-H", b.config.Addr.Addr().String(), "-p", strconv.Itoa(int(b.config.Addr.Port())),
		"chassis", "power", "status")
	cmd.Env = append(os.Environ(), "IPMI_PASSWORD="+b.config.Password)
	out, err := cmd.CombinedOutput()
	switch strings.TrimSpace(string(out)) {
	case "Chassis Power is on":
		return true, err
	case "Chassis Power is off":
		return false, err
	}
	return false, fmt.Errorf("ipmitool: %w: %s", errors.Join(err), out)
}

func freePort(addr netip.Addr) (netip.AddrPort, error) {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		return netip.AddrPort{}, err
	}
	defer c.Close()
	return netip.AddrPortFrom(addr, uint16(c.LocalAddr().(*net.UDPAddr).Port)), nil
}
