// SPDX-License-Identifier: GPL-2.0-only

package ipmi

import (
	"context"
	"errors"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/bmc"
)

// openBMC opens a device for b, some of whose parameters are others.
func openBMC(t *testing.T, b *bmc.BMC, others map[string]string) fencemethods.Device {
	t.Helper()
	p := params(t, int(b.Addr().Port()))
	maps.Copy(p, others)
	return fencetest.Open(t, Method(), p)
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestIpmitoolAgreesOnThePower(t *testing.T) {
	b := startBMC(t, bmc.Start, bmc.Config{Power: new(fencetest.Machine)})
	d, ctx := openBMC(t, b, nil), soon(t)
	for _, step := range []struct {
		do   func(context.Context) error
		want bool
	}{{d.On, true}, {d.Off, false}, {d.On, true}} {
		if err := step.do(ctx); err != nil {
			t.Fatal(err)
		}
		if on, err := b.PoweredOn(ctx); err != nil || on != step.want {
			t.Errorf("ipmitool says on: %v, %v; want %v", on, err, step.want)
		}
	}
}

func TestABMCMayHaveAnIPv6Address(t *testing.T) {
	loopback := netip.MustParseAddrPort("[::1]:0")
	c, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Skip("this machine has no IPv6:", err)
	}
	c.Close()
	b := startBMC(t, bmc.Start, bmc.Config{Addr: loopback, Power: new(fencetest.Machine)})
	d, ctx := openBMC(t, b, map[string]string{"addr": "::1"}), soon(t)
	if err := errors.Join(d.On(ctx), d.Off(ctx)); err != nil {
		t.Error(err)
	}
}

// A BMC has few sessions; ipmi_sim has 63.
func TestSessionsAreGivenBack(t *testing.T) {
	b := startBMC(t, bmc.Start, bmc.Config{Power: new(fencetest.Machine)})
	d, ctx := openBMC(t, b, nil), soon(t)
	for n := range 70 {
		if err := d.Check(ctx); err != nil {
			t.Fatalf("after %d sessions: %v", n, err)
		}
	}
}

func TestRefusalsSayWhatIsWrong(t *testing.T) {
	for _, c := range []struct {
		name   string
		server starter
		config bmc.Config
		params map[string]string
		kind   error
		text   string
	}{
		{
			"suite that the BMC does not have", bmc.Start,
			bmc.Config{},
			map[string]string{"cipher": "17"},
			fencemethods.ErrRefused, "declines the cipher suite",
		},
		{
			"suite that the BMC quietly replaces", bmc.StartPyghmi,
			bmc.Config{},
			map[string]string{"cipher": "17"},
			fencemethods.ErrProtocol, "another cipher suite",
		},
		{
			"user without the rights", goIPMI(t),
			bmc.Config{Privilege: "user"},
			nil, fencemethods.ErrAuth, "operator rights",
		},
		{
			"user without the rights that are asked for", goIPMI(t),
			bmc.Config{Privilege: "operator"},
			map[string]string{"privilege": "admin"},
			fencemethods.ErrAuth, "check privilege",
		},
		{
			"BMC key", bmc.Start,
			bmc.Config{KG: "abcdefghijklmnopqrst"},
			nil, fencemethods.ErrAuth, "K_G",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.config.Power = new(fencetest.Machine)
			err := openBMC(t, startBMC(t, c.server, c.config), c.params).Check(soon(t))
			if !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v; want %v and %q", err, c.kind, c.text)
			}
		})
	}
}

func TestBadParametersAreRefused(t *testing.T) {
	for _, c := range []struct{ key, value, text string }{
		{"addr", "bmc1.example.com", "names are not looked up"},
		{"addr", "fe80::1%eth0", "zone"},
		{"port", "65536", "whole number from 1 to 65535"},
		{"user", "seventeen-letters", "16 bytes"},
		{"cipher", "0", "17, 3, auto"},
		{"cipher", "atuo", `did you mean "auto"?`},
		{"privilege", "user", "operator, admin"},
		{"retry_ms", "0", "whole number from 50 to 10000"},
		{"password_file", "hunter2", "absolute path"},
		{"password", "hunter2", `did you mean "password_file"?`},
	} {
		p := params(t, 623)
		p[c.key] = c.value
		_, err := Method().Parse(p)
		e, ok := errors.AsType[*fencemethods.ParamError](err)
		if !ok || e.Key != c.key || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s = %s: %v; want %q", c.key, c.value, err, c.text)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: gives a secret away", err)
		}
	}
}

func TestAPasswordThatIPMICannotHaveIsRefused(t *testing.T) {
	p := params(t, 623)
	p["password_file"] = fencetest.SecretFile(t, "twenty-one-characters")
	if _, err := Method().Open(fencemethods.Target{}, p); err == nil || !strings.Contains(err.Error(), "20 bytes") {
		t.Errorf("Open: %v, want a word on the 20 bytes", err)
	}
}
