// SPDX-License-Identifier: GPL-2.0-only

// Package bmc starts real BMC servers for tests and for the demo: OpenIPMI's ipmi_sim, pyghmi's
// fakebmc and bougou/go-ipmi's server. Each is a process of its own that answers IPMI over LAN and
// switches a Power of the caller's.
package bmc

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/o2fence/o2fence/test/daemon"
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
	*daemon.Daemon
	config Config // but for where it listens
	dir    string
	power  *powerServer
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
	return start(ctx, dir, c, func(b *BMC, addr netip.AddrPort) (*exec.Cmd, error) {
		return startGoIPMI(b, addr, program)
	})
}

// askCapabilities is Get Channel Authentication Capabilities, which needs no session.
const askCapabilities = "\x06\x00\xff\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x09\x20\x18\xc8\x81\x00\x38\x8e\x04\xb5"

func start(ctx context.Context, dir string, c Config, command func(*BMC, netip.AddrPort) (*exec.Cmd, error)) (*BMC, error) {
	if strings.ContainsAny(c.User+c.Password+c.KG+dir, "\"\\\n ") {
		return nil, errors.New("bmc: user, password, K_G and dir cannot hold quotes, backslashes or white space")
	}
	power, err := newPowerServer(c.Power)
	if err != nil {
		return nil, err
	}
	b := &BMC{config: c, dir: dir, power: power}
	b.Daemon, err = daemon.Start(ctx, daemon.Config{
		Dir: dir, Addr: c.Addr, Question: []byte(askCapabilities),
		Command: func(addr netip.AddrPort) (*exec.Cmd, error) { return command(b, addr) },
	})
	if err != nil {
		power.close()
		return nil, err
	}
	return b, nil
}

// Close ends the server. The machine stays as it is.
func (b *BMC) Close() error {
	b.Kill()
	b.power.close()
	return nil
}

// PoweredOn asks ipmitool, as a second opinion.
func (b *BMC) PoweredOn(ctx context.Context) (bool, error) {
	cmd := exec.CommandContext(ctx, "ipmitool", "-I", "lanplus", "-C", "3", "-E", "-U", b.config.User,
		"-H", b.Addr().Addr().String(), "-p", strconv.Itoa(int(b.Addr().Port())),
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
