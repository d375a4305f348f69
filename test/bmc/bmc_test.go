// SPDX-License-Identifier: GPL-2.0-only

package bmc

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// A machine is a Power that notes what it is asked to do.
type machine struct {
	mu   sync.Mutex
	on   bool
	err  error
	done []string
}

func (m *machine) On() (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on, m.err
}

func (m *machine) SetOn(on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on, m.done = on, append(m.done, map[bool]string{true: "on", false: "off"}[on])
	return m.err
}

func (m *machine) Reset() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.done = append(m.done, "reset")
	return m.err
}

func (m *machine) did() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return strings.Join(m.done, " ")
}

func startSimFor(t *testing.T, m *machine) *BMC {
	t.Helper()
	b, err := Start(soon(t), t.TempDir(), Config{User: "admin", Password: "s3cret", Power: m})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// ipmitool is any user's way to the BMC.
func ipmitool(t *testing.T, b *BMC, command string) error {
	t.Helper()
	cmd := exec.CommandContext(soon(t), "ipmitool", "-I", "lanplus", "-C", "3", "-U", "admin", "-P", "s3cret",
		"-H", "127.0.0.1", "-p", strconv.Itoa(int(b.Addr().Port())), "chassis", "power", command)
	out, err := cmd.CombinedOutput()
	t.Logf("%s: %s", command, out)
	return err
}

func TestTheMachineDoesWhatTheBMCIsTold(t *testing.T) {
	m := &machine{on: true}
	b := startSimFor(t, m)
	for _, command := range []string{"off", "on", "reset"} {
		if err := ipmitool(t, b, command); err != nil {
			t.Error(err)
		}
	}
	if got := m.did(); got != "off on reset" {
		t.Errorf("the machine did %q", got)
	}
}

func TestAMachineThatCannotTellIsNeitherOnNorOff(t *testing.T) {
	b := startSimFor(t, &machine{err: errors.New("no idea")})
	if on, err := b.PoweredOn(soon(t)); err == nil {
		t.Errorf("on: %v", on)
	}
}

func TestARestartedBMCIsWhereItWas(t *testing.T) {
	b := startSimFor(t, &machine{on: true})
	before := b.Addr()
	if err := b.Restart(soon(t)); err != nil {
		t.Fatal(err)
	}
	if on, err := b.PoweredOn(soon(t)); b.Addr() != before || !on || err != nil {
		t.Errorf("at %v, on: %v, %v; was at %v, on", b.Addr(), on, err, before)
	}
}

func TestAnAddressThatIsTakenIsAnError(t *testing.T) {
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	taken := netip.MustParseAddrPort(c.LocalAddr().String())
	if _, err := Start(soon(t), t.TempDir(), Config{Addr: taken, Power: &machine{}}); err == nil {
		t.Error("no error")
	}
}

func TestOnlyTheBMCMaySwitchTheMachine(t *testing.T) {
	m := &machine{on: true}
	s, err := newPowerServer(m)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for _, question := range []string{"", "set power 0", "wrong set power 0"} {
		if text, err := s.answer(strings.Fields(question)); err == nil {
			t.Errorf("%q: %q", question, text)
		}
	}
	if !m.on {
		t.Error("the machine is off")
	}
}
