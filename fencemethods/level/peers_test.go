// SPDX-License-Identifier: GPL-2.0-only

package level

import (
	"context"
	"errors"
	"flag"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/fencemethods/ipmi"
	"github.com/o2fence/o2fence/fencemethods/snmp"
	"github.com/o2fence/o2fence/test/bmc"
	"github.com/o2fence/o2fence/test/bmc/wire"
	"github.com/o2fence/o2fence/test/snmpd"
)

// TestMain lets many cases wait at the same time: most of them do nothing else.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "16"); err != nil {
		panic(err)
	}
	m.Run()
}

// A supply is a power supply of a node, behind an outlet.
type supply struct {
	mu     sync.Mutex
	on     bool
	slow   time.Duration
	ignore int // so many commands
	orders int
	back   func() // comes back on by itself when this is called; set by the test
}

func (s *supply) On() (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.on, nil
}

func (s *supply) SetOn(on bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders++
	switch {
	case s.orders <= s.ignore:
	case s.slow > 0:
		time.AfterFunc(s.slow, func() { s.turn(on) })
	default:
		s.on = on
	}
	if s.back != nil {
		s.back()
	}
	return nil
}

func (s *supply) turn(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.on = on
}

// The objects of outlet 3 of a PDU of APC (PowerNet-MIB, rPDUOutletControl and rPDUOutletStatus).
const (
	apc         = ".1.3.6.1.4.1.318"
	outletState = apc + ".1.1.12.3.5.1.1.4.3"
	outletOrder = apc + ".1.1.12.3.3.1.1.4.3"
	outletOn    = 1
	outletOff   = 2
)

// openStrip starts a power strip whose outlet 3 feeds s, and opens that outlet.
func openStrip(t *testing.T, s *supply) fencemethods.Device {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a, err := snmpd.Start(ctx, t.TempDir(), snmpd.Config{
		SysObjectID: apc + ".1.3.4.5", Community: "private", ReadOnly: "public",
		Objects: []snmpd.Object{
			{Name: outletState, Root: apc + ".1", Get: func() any {
				if on, _ := s.On(); on {
					return outletOn
				}
				return outletOff
			}},
			{Name: outletOrder, Root: apc + ".1", Get: func() any { return outletOn }, Set: func(value int) error {
				return s.SetOn(value == outletOn)
			}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	d, err := snmp.Method().Open(fencemethods.Target{Name: "web1"}, map[string]string{
		"addr": "127.0.0.1", "port": strconv.Itoa(int(a.Addr().Port())), "version": "2c",
		"community_file": fencetest.SecretFile(t, "private"), "model": "apc-rpdu", "outlets": "3", "retry_ms": "50",
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// strips are two power strips of one node, which runs as long as one of them feeds it.
func strips(t *testing.T, a, b *supply) fencemethods.Device {
	t.Helper()
	a.on, b.on = true, true
	return openMembers(t, All,
		Member{Name: "snmp strip-a", Device: openStrip(t, a)},
		Member{Name: "snmp strip-b", Device: openStrip(t, b)})
}

// cut fences, and sees to it that a node that still runs is not called fenced.
func cut(t *testing.T, d fencemethods.Device, timeout time.Duration, a, b *supply) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	defer cancel()
	err := d.Off(ctx)
	first, _ := a.On()
	second, _ := b.On()
	if err == nil && (first || second) {
		t.Error("FALSE SUCCESS: an outlet is on")
	}
	return err
}

func TestANodeOnTwoStripsIsFencedWhenBothAreOff(t *testing.T) {
	t.Parallel()
	a, b := &supply{}, &supply{slow: 300 * time.Millisecond}
	d := strips(t, a, b)
	if err := cut(t, d, patience, a, b); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if state, err := d.Status(ctx); state != fencemethods.Off || err != nil {
		t.Errorf("%v, %v", state, err)
	}
	if err := d.On(ctx); err != nil {
		t.Error(err)
	}
	for name, s := range map[string]*supply{"a": a, "b": b} {
		if on, _ := s.On(); !on {
			t.Errorf("strip %s is not on again", name)
		}
	}
}

func TestAStripThatDoesNotObeyLeavesTheNodeRunning(t *testing.T) {
	t.Parallel()
	a, b := &supply{}, &supply{ignore: 1e9}
	err := cut(t, strips(t, a, b), 2*time.Second, a, b)
	if !errors.Is(err, fencemethods.ErrNotOff) || !strings.Contains(err.Error(), "strip-b") || strings.Contains(err.Error(), "strip-a") {
		t.Error(err)
	}
}

// Somebody, or the strip's own schedule, switches the first on while the second is being switched off.
func TestAStripThatComesBackMeanwhileIsNoticed(t *testing.T) {
	t.Parallel()
	a := &supply{}
	once := sync.Once{}
	b := &supply{back: func() { once.Do(func() { time.Sleep(200 * time.Millisecond); a.turn(true) }) }}
	if err := cut(t, strips(t, a, b), patience, a, b); err != nil {
		t.Error(err)
	}
	if a.orders < 2 {
		t.Errorf("strip a was switched off %d times", a.orders)
	}
}

func TestAStripThatIsGoneLeavesTheNodeRunning(t *testing.T) {
	t.Parallel()
	a, b := &supply{on: true}, &supply{}
	gone, err := snmp.Method().Open(fencemethods.Target{Name: "web1"}, map[string]string{
		"addr": "127.0.0.1", "port": strconv.Itoa(int(uint16(fencetest.ClosedPort(t, "udp4")))), "version": "2c",
		"community_file": fencetest.SecretFile(t, "private"), "model": "apc-rpdu", "outlets": "3", "retry_ms": "50",
	})
	if err != nil {
		t.Fatal(err)
	}
	d := openMembers(t, All, Member{Name: "snmp strip-a", Device: openStrip(t, a)}, Member{Name: "snmp strip-b", Device: gone})
	if err := cut(t, d, time.Second, a, b); !errors.Is(err, fencemethods.ErrUnreachable) || !strings.Contains(err.Error(), "strip-b") {
		t.Error(err)
	}
	either := openMembers(t, Any, Member{Name: "snmp strip-b", Device: gone}, Member{Name: "snmp strip-c", Device: openStrip(t, a)})
	if err := cut(t, either, patience, a, b); err != nil {
		t.Errorf("the one that is there was enough: %v", err)
	}
}

// Two BMCs of one machine pass the suite that every method passes, by either rule.
func TestOffIsProvenByAll(t *testing.T) {
	conformance(t, All, map[string]string{
		"damaged answers between": "each BMC is read once more, and what is damaged three times running ipmi takes for the BMC's word",
	})
}

func TestOffIsProvenByAny(t *testing.T) { conformance(t, Any, map[string]string{}) }

func conformance(t *testing.T, rule Rule, skip map[string]string) {
	t.Helper()
	skip["silent after the command"] = "the second BMC may not have been heard at all, which is another error"
	skip["old answers played again"] = "the tape would mix up two connections; each BMC's own suite has it"
	fencetest.Run(t, fencetest.Harness{Method: twin(rule), Peer: "two ipmi_sims", Start: startTwins, Crowd: "pairs of ipmi_sims", Skip: skip})
}

// twin is a method with ipmi's parameters and the port of a second BMC.
func twin(rule Rule) fencemethods.Method {
	m := ipmi.Method()
	m.Name = "level"
	m.Params = append(m.Params, fencemethods.Param{Name: "second", Required: true, Help: "port of the second BMC"})
	m.New = func(target fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
		var members []Member
		for _, port := range []string{v["port"], v["second"]} {
			own := maps.Clone(v)
			delete(own, "second")
			own["port"] = port
			d, err := ipmi.Method().Open(target, own)
			if err != nil {
				return nil, err
			}
			members = append(members, Member{Name: "ipmi " + port, Device: d})
		}
		return newLevel(rule, members, func() {}, textRoom(m.Name, target.Name)), nil
	}
	return m
}

func startTwins(t *testing.T, m *fencetest.Machine) fencetest.Peer {
	const password = "s3cretPassw0rd"
	var servers []*bmc.BMC
	var wires []*wire.Wire
	for range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		b, err := bmc.Start(ctx, t.TempDir(), bmc.Config{User: "admin", Password: password, Power: m})
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		w, err := wire.New(b.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w.Close() })
		servers, wires = append(servers, b), append(wires, w)
	}
	port := func(w *wire.Wire) string { return strconv.Itoa(int(w.Addr().Port())) }
	closed := strconv.Itoa(int(uint16(fencetest.ClosedPort(t, "udp4"))))
	return fencetest.Peer{
		Params: map[string]string{
			"addr": "127.0.0.1", "port": port(wires[0]), "second": port(wires[1]), "user": "admin",
			"password_file": fencetest.SecretFile(t, password), "retry_ms": "50",
		},
		Secret: password,
		Wrong: map[string]map[string]string{
			"wrong password": {"password_file": fencetest.SecretFile(t, "notThePassword")},
		},
		Absent: map[string]string{"port": closed, "second": closed},
		SetFault: func(f wire.Fault) {
			for _, w := range wires {
				w.SetFault(f)
			}
		},
		Restart: func() error {
			return errors.Join(servers[0].Restart(t.Context()), servers[1].Restart(t.Context()))
		},
	}
}
