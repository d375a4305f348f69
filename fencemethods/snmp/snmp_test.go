// SPDX-License-Identifier: GPL-2.0-only

package snmp

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

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/snmpd"
)

func TestOffIsProvenByVersion1(t *testing.T) {
	conformance(t, "snmpd as an APC rPDU, version 1", "apc-rpdu", byCommunity("1"))
}

func TestOffIsProvenByVersion2c(t *testing.T) {
	conformance(t, "snmpd as an APC rPDU, version 2c", "apc-rpdu", byCommunity("2c"))
}

// Of all models this one is told apart by the least: off is 0, on is 1.
func TestOffIsProvenOfAnEaton(t *testing.T) {
	conformance(t, "snmpd as an Eaton, version 2c", "eaton-managed", byCommunity("2c"))
}

func TestOffIsProvenByVersion3(t *testing.T) {
	conformance(t, "snmpd as an APC rPDU, version 3", "apc-rpdu", byUser("sha", "SHA", "aes", "AES"))
}

func conformance(t *testing.T, peer, model string, credentials func(testing.TB, *snmpd.Config) login) {
	fencetest.Run(t, fencetest.Harness{
		Method: Method(), Peer: peer, Start: start(model, credentials),
		Together: strips(model, credentials), Crowd: crowd,
	})
}

const crowd = "outlets of strips that have 24 each"

// A socket is a power that can be stubborn. Unlike fencetest.Machine, there are several at a device.
type socket struct {
	mu     sync.Mutex
	on     bool
	ignore int // so many commands
	orders int
}

func (s *socket) On() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.on, nil
}

func (s *socket) SetOn(on bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.orders++; s.orders > s.ignore {
		s.on = on
	}
	return nil
}

func (s *socket) state() (on bool, orders int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.on, s.orders
}

// openPDU starts a power strip and opens its outlets, by version 2c unless others say otherwise.
func openPDU(t testing.TB, model, outlets string, sockets map[outlet]power, others map[string]string) fencemethods.Device {
	t.Helper()
	kind, _ := findTable(model)
	return openAt(t, startPDU(t, pdu(kind, sockets)), model, outlets, others)
}

func openAt(t testing.TB, a *snmpd.Agent, model, outlets string, others map[string]string) fencemethods.Device {
	t.Helper()
	params := with(byCommunity("2c")(t, nil).params, where(int(a.Addr().Port()), model, outlets))
	return fencetest.Open(t, Method(), with(params, others))
}

func within(t testing.TB, limit time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func TestEveryModelIsSwitched(t *testing.T) {
	for _, kind := range tables() {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			node, other := outlet{1, 3}, outlet{1, 4}
			outlets := "3"
			if kind.chained {
				node, other, outlets = outlet{2, 3}, outlet{1, 3}, "2:3"
			}
			mine, others := &socket{on: true}, &socket{on: true}
			d, ctx := openPDU(t, kind.name, outlets, map[outlet]power{node: mine, other: others}, nil), soon(t)
			if err := errors.Join(d.Check(ctx), d.Off(ctx)); err != nil {
				t.Fatal(err)
			}
			if on, _ := mine.state(); on {
				t.Error("FALSE SUCCESS: the outlet is on")
			}
			if err := d.On(ctx); err != nil {
				t.Error(err)
			}
			if on, orders := mine.state(); !on || orders < 2 {
				t.Errorf("on: %v after %d orders", on, orders)
			}
			if _, orders := others.state(); orders != 0 {
				t.Errorf("another outlet got %d orders", orders)
			}
		})
	}
}

func TestSnmpgetAgreesOnTheOutlet(t *testing.T) {
	kind, _ := findTable("apc-rpdu")
	a := startPDU(t, pdu(kind, map[outlet]power{{1, 3}: &socket{on: true}}))
	d, ctx := openAt(t, a, "apc-rpdu", "3", nil), soon(t)
	state, _ := kind.objects(outlet{1, 3})
	for _, step := range []struct {
		do   func(context.Context) error
		want string
	}{{d.Off, "2"}, {d.On, "1"}} {
		if err := step.do(ctx); err != nil {
			t.Fatal(err)
		}
		out, err := exec.CommandContext(ctx, "snmpget", "-v2c", "-c", community, "-m", "", "-Oqv", a.Addr().String(), state).CombinedOutput()
		if got := strings.TrimSpace(string(out)); got != step.want || err != nil {
			t.Errorf("snmpget says %q, %v; want %s", got, err, step.want)
		}
	}
}

func TestCheckFindsAnOutletThatCannotBeSwitched(t *testing.T) {
	kind, _ := findTable("apc-rpdu")
	c := pdu(kind, map[outlet]power{{1, 3}: &socket{on: true}})
	for i := range c.Objects {
		c.Objects[i].Set = nil
	}
	if err := openAt(t, startPDU(t, c), "apc-rpdu", "3", nil).Check(soon(t)); !errors.Is(err, fencemethods.ErrRefused) {
		t.Errorf("%v, want %v", err, fencemethods.ErrRefused)
	}
}

// What the field's agents take for off, see peers.md: here it is an error.
func TestAnOutletThatIsNotThereIsNotOff(t *testing.T) {
	for _, version := range []string{"1", "2c", "3"} {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			kind, _ := findTable("apc-rpdu")
			c := pdu(kind, map[outlet]power{{1, 3}: &socket{}})
			params := byCommunity(version)(t, &c).params
			if version == "3" {
				params = byUser("sha", "SHA", "aes", "AES")(t, &c).params
			}
			a := startPDU(t, c)
			for _, outlets := range []string{"9", "3,9"} {
				d := fencetest.Open(t, Method(), with(params, where(int(a.Addr().Port()), "apc-rpdu", outlets)))
				err := d.Off(soon(t))
				if !errors.Is(err, fencemethods.ErrRefused) || !strings.Contains(err.Error(), "no outlet 9") {
					t.Errorf("Off: %v, want %v", err, fencemethods.ErrRefused)
				}
				if state, err := d.Status(soon(t)); state != fencemethods.Unknown || err == nil {
					t.Errorf("Status = %v, %v", state, err)
				}
			}
		})
	}
}

// A box that answers to the same numbers, but is of another make, is neither believed nor commanded.
func TestAnotherMakeIsNotFenced(t *testing.T) {
	for _, version := range []string{"1", "2c"} {
		for make, id := range map[string]string{
			"net-snmp": "", "another APC": apc + ".1.3.4.51", "another enterprise": ".1.3.6.1.4.1.3181.1.3.4.5",
		} {
			t.Run(version+" "+make, func(t *testing.T) {
				t.Parallel()
				kind, _ := findTable("apc-rpdu")
				running, off := &socket{on: true}, &socket{}
				c := pdu(kind, map[outlet]power{{1, 3}: running, {1, 4}: off})
				c.SysObjectID = id
				a := startPDU(t, c)
				for _, outlets := range []string{"3", "4", "5"} {
					d := openAt(t, a, "apc-rpdu", outlets, byCommunity(version)(t, nil).params)
					for op, err := range map[string]error{"off": d.Off(soon(t)), "on": d.On(soon(t)), "check": d.Check(soon(t))} {
						if !errors.Is(err, fencemethods.ErrUnsupported) || !strings.Contains(err.Error(), "check addr and model") {
							t.Errorf("%s of outlet %s: %v, want %v", op, outlets, err, fencemethods.ErrUnsupported)
						}
					}
				}
				for _, s := range []*socket{running, off} {
					if _, orders := s.state(); orders != 0 {
						t.Errorf("it got %d orders", orders)
					}
				}
			})
		}
	}
}

func TestAnotherDeviceOfTheSameMakeIsNotFenced(t *testing.T) {
	node := &socket{on: true}
	sockets := map[outlet]power{{1, 3}: node}
	err := openPDU(t, "apc-rpdu", "3", sockets, map[string]string{"sysname": "pdu2"}).Off(soon(t))
	if _, orders := node.state(); !errors.Is(err, fencemethods.ErrRefused) || orders != 0 {
		t.Errorf("%v, want %v; %d orders", err, fencemethods.ErrRefused, orders)
	}
	if err := openPDU(t, "apc-rpdu", "3", sockets, map[string]string{"sysname": "pdu1"}).Off(soon(t)); err != nil {
		t.Error(err)
	}
}

func TestAllOutletsOfANodeHaveToBeOff(t *testing.T) {
	stuck, good, other := &socket{on: true, ignore: 1000}, &socket{on: true}, &socket{on: true}
	sockets := map[outlet]power{{1, 1}: good, {1, 2}: stuck, {1, 3}: other}
	d := openPDU(t, "apc-rpdu", "1,2", sockets, nil)
	if err := d.Off(within(t, 3*time.Second)); !errors.Is(err, fencemethods.ErrNotOff) {
		t.Errorf("%v, want %v", err, fencemethods.ErrNotOff)
	}
	if on, _ := good.state(); on {
		t.Error("the outlet that obeys is on")
	}
	if on, orders := other.state(); !on || orders != 0 {
		t.Error("the outlet of another node was switched")
	}
	if state, err := d.Status(soon(t)); state != fencemethods.On || err != nil {
		t.Errorf("Status = %v, %v; want %v", state, err, fencemethods.On)
	}
}

// Off and on alike look at all outlets: one that is as it shall be says nothing of the others.
func TestAllOutletsOfANodeAreSwitched(t *testing.T) {
	first, second := &socket{}, &socket{on: true, ignore: 1}
	d := openPDU(t, "apc-rpdu", "1,2", map[outlet]power{{1, 1}: first, {1, 2}: second}, nil)
	if err := d.Off(soon(t)); err != nil {
		t.Fatal(err)
	}
	if on, _ := second.state(); on {
		t.Error("FALSE SUCCESS: an outlet is on")
	}
	if err := first.SetOn(true); err != nil {
		t.Fatal(err)
	}
	if err := d.On(soon(t)); err != nil {
		t.Fatal(err)
	}
	if on, _ := second.state(); !on {
		t.Error("an outlet is off")
	}
}

func TestAPowerStripMayHaveAnIPv6Address(t *testing.T) {
	loopback := netip.MustParseAddrPort("[::1]:0")
	conn, err := net.ListenUDP("udp6", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Skip("this machine has no IPv6:", err)
	}
	conn.Close()
	kind, _ := findTable("apc-rpdu")
	c := pdu(kind, map[outlet]power{{1, 3}: &socket{on: true}})
	c.Addr = loopback
	if err := openAt(t, startPDU(t, c), "apc-rpdu", "3", map[string]string{"addr": "::1"}).Off(soon(t)); err != nil {
		t.Error(err)
	}
}

func TestEveryProtocolOfVersion3Works(t *testing.T) {
	for _, p := range []struct{ auth, authName, priv, privName string }{
		{"md5", "MD5", "des", "DES"},
		{"sha224", "SHA-224", "aes", "AES"},
		{"sha256", "SHA-256", "aes192", "AES-192"},
		{"sha384", "SHA-384", "aes256", "AES-256"},
		{"sha512", "SHA-512", "aes256", "AES-256"},
		{"sha512", "SHA-512", "des", "DES"},
	} {
		t.Run(p.auth+" "+p.priv, func(t *testing.T) {
			t.Parallel()
			kind, _ := findTable("apc-rpdu")
			node := &socket{on: true}
			c := pdu(kind, map[outlet]power{{1, 3}: node})
			params := byUser(p.auth, p.authName, p.priv, p.privName)(t, &c).params
			d := fencetest.Open(t, Method(), with(params, where(int(startPDU(t, c).Addr().Port()), "apc-rpdu", "3")))
			if err := errors.Join(d.Check(soon(t)), d.Off(soon(t))); err != nil {
				t.Error(err)
			}
			if on, _ := node.state(); on {
				t.Error("the outlet is on")
			}
		})
	}
}

// Nobody answers a wrong community, so it cannot be told from a device that is gone.
func TestSilenceHintsAtTheCommunity(t *testing.T) {
	d := openPDU(t, "apc-rpdu", "3", map[outlet]power{{1, 3}: &socket{on: true}},
		map[string]string{"community_file": fencetest.SecretFile(t, "notTheCommunity")})
	err := d.Off(within(t, time.Second))
	if !errors.Is(err, fencemethods.ErrUnreachable) || !strings.Contains(err.Error(), "community") {
		t.Errorf("%v; want %v and a hint", err, fencemethods.ErrUnreachable)
	}
}

func TestBadParametersAreRefused(t *testing.T) {
	v2 := with(byCommunity("2c")(t, nil).params, where(161, "apc-rpdu", "3"))
	v3 := with(byUser("sha", "", "aes", "")(t, new(snmpd.Config)).params, where(161, "apc-rpdu", "3"))
	for _, c := range []struct {
		params           map[string]string
		key, value, text string
	}{
		{v2, "addr", "pdu1.example.com", "names are not looked up"},
		{v2, "version", "4", "1, 2c, 3"},
		{v2, "version", "1c", "did you mean"},
		{v2, "community", "s3cretCommunity", `did you mean "community_file"?`},
		{v2, "community_file", "s3cretCommunity", "absolute path"},
		{v2, "user", "fence", "remove it, or check version"},
		{v2, "outlets", "0", "is no outlet"},
		{v2, "outlets", "03", "is no outlet"},
		{v2, "outlets", "3, 4", "is no outlet"},
		{v2, "outlets", "3,3", "comes twice"},
		{v2, "outlets", "4,3", "the lowest first"},
		{v2, "outlets", "1,2,3,4,5,6,7,8,9", "at most 8"},
		{v2, "outlets", "2:3", "no devices in a chain"},
		{v2, "model", "apc-masterswitch-plus", "expected 1:3"},
		{v2, "model", "apc", "expected one of"},
		{v2, "model", "apc-rpdv", `did you mean "apc-rpdu"?`},
		{v3, "version", "2c", "community_file: missing"},
		{v3, "user", strings.Repeat("x", 33), "32 bytes"},
		{v3, "auth", "sha1", `did you mean "sha`},
		{v3, "priv", "aes256", "expected auth = sha256 or more"},
		{v3, "community_file", "/etc/community", "remove it, or check version"},
	} {
		_, err := Method().Parse(with(c.params, map[string]string{c.key: c.value}))
		if e, ok := errors.AsType[*fencemethods.ParamError](err); !ok || !strings.Contains(e.Error(), c.text) {
			t.Errorf("%s = %s: %v; want %q", c.key, c.value, err, c.text)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%v: gives a secret away", err)
		}
	}
}

func TestASecretThatSNMPCannotHaveIsRefused(t *testing.T) {
	v2 := with(byCommunity("2c")(t, nil).params, where(161, "apc-rpdu", "3"))
	v3 := with(byUser("sha", "", "aes", "")(t, new(snmpd.Config)).params, where(161, "apc-rpdu", "3"))
	for _, c := range []struct {
		params    map[string]string
		key, text string
		secret    string
	}{
		{v2, "community_file", "127 bytes", strings.Repeat("x", 128)},
		{v3, "auth_file", "8 bytes", "seven.."},
		{v3, "priv_file", "8 bytes", "seven.."},
	} {
		_, err := Method().Open(fencemethods.Target{}, with(c.params, map[string]string{c.key: fencetest.SecretFile(t, c.secret)}))
		if err == nil || !strings.Contains(err.Error(), c.text) || strings.Contains(err.Error(), c.secret) {
			t.Errorf("%s: %v, want a word on the %s", c.key, err, c.text)
		}
	}
}

func FuzzParseOutlets(f *testing.F) {
	for _, s := range []string{"3", "3,4", "2:3", "1:1,2:8", "", ",", "1:2:3", "+1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		outlets, err := parseOutlets(s)
		if err != nil {
			return
		}
		for _, o := range outlets {
			if o.device < 1 || o.number < 1 || o.number > maxOutlet || !strings.Contains(s, strconv.Itoa(o.number)) {
				t.Errorf("%q has outlet %v", s, o)
			}
		}
	})
}
