// SPDX-License-Identifier: GPL-2.0-only

package ifmib

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
	"github.com/o2fence/o2fence/test/snmpd"
)

func TestOffIsProvenByVersion2c(t *testing.T) {
	conformance(t, "snmpd as a switch, version 2c", false)
}

func TestOffIsProvenByVersion3(t *testing.T) {
	conformance(t, "snmpd as a switch, version 3", true)
}

func conformance(t *testing.T, peer string, version3 bool) {
	fencetest.Run(t, fencetest.Harness{
		Method: Method(), Peer: peer, Start: start(version3), Together: together(version3), Crowd: crowd,
	})
}

// What the field's agents take for off, see peers.md: here it is an error.
func TestAPortThatIsNotThereIsNotOff(t *testing.T) {
	a := startSwitch(t, snmpd.Config{
		Objects: ports(map[int]*row{1: fixed("port1", up, up), 2: fixed("twin", down, down), 3: fixed("twin", up, up)}),
		Without: own(),
	})
	for _, version := range []string{"1", "2c"} {
		for _, c := range []struct{ name, column, text string }{
			{"port9", "ifName", `no port "port9"`},
			{"port1", "ifAlias", "check interface and column"},
			{"PORT1", "ifName", "no port"},
			{"1", "ifName", "no port"},
			{"twin", "ifName", "two ports of that name"},
		} {
			d := openPort(t, a, c.name, map[string]string{"version": version, "column": c.column})
			err := d.Off(within(t, 20*time.Second))
			if !errors.Is(err, fencemethods.ErrRefused) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("version %s, %s in %s: %v; want %v and %q", version, c.name, c.column, err, fencemethods.ErrRefused, c.text)
			}
			if state, err := d.Status(within(t, 20*time.Second)); state != fencemethods.Unknown || err == nil {
				t.Errorf("version %s, %s in %s: Status = %v, %v", version, c.name, c.column, state, err)
			}
		}
	}
}

func TestAPortIsFoundInEveryColumn(t *testing.T) {
	rows := map[int]*row{}
	for n := range 25 {
		rows[10+7*n] = fixed(fmt.Sprintf("port%d", n), down, down)
	}
	a := startSwitch(t, snmpd.Config{Objects: ports(rows), Without: own()})
	for _, version := range []string{"1", "2c"} {
		for column, name := range map[string]string{"ifName": "port24", "ifDescr": "description of port24", "ifAlias": "node port24"} {
			d := openPort(t, a, name, map[string]string{"version": version, "column": column})
			if state, err := d.Status(within(t, 20*time.Second)); state != fencemethods.Off || err != nil {
				t.Errorf("version %s, %s: Status = %v, %v", version, column, state, err)
			}
		}
	}
}

func TestDownByOrderAloneIsNotOff(t *testing.T) {
	const testing, unknown, dormant = 3, 4, 5
	for _, c := range []struct {
		admin, oper int
		want        fencemethods.State
	}{
		{up, up, fencemethods.On},
		{up, down, fencemethods.On},
		{up, notPresent, fencemethods.On},
		{down, down, fencemethods.Off},
		{down, notPresent, fencemethods.Off},
		{down, lowerLayerDown, fencemethods.Off},
		{down, up, fencemethods.Unknown},
		{down, testing, fencemethods.Unknown},
		{down, unknown, fencemethods.Unknown},
		{down, dormant, fencemethods.Unknown},
		{testing, down, fencemethods.Unknown},
		{0, 0, fencemethods.Unknown},
	} {
		a := startSwitch(t, snmpd.Config{Objects: ports(map[int]*row{1: fixed("port1", c.admin, c.oper)}), Without: own()})
		d := openPort(t, a, "port1", nil)
		if state, err := d.Status(within(t, 20*time.Second)); state != c.want || err != nil {
			t.Errorf("ordered %d, is %d: Status = %v, %v; want %v", c.admin, c.oper, state, err, c.want)
		}
		d.Close()
		a.Close()
	}
}

// The link stays up though the order was taken: that is no success.
func TestAPortThatStaysUpIsNotOff(t *testing.T) {
	var admin atomic.Int32
	admin.Store(up)
	r := &row{
		called("port1"), func() any { return int(admin.Load()) }, func() any { return up },
		func(value int) error { admin.Store(int32(value)); return nil },
	}
	a := startSwitch(t, snmpd.Config{Objects: ports(map[int]*row{1: r}), Without: own()})
	if err := openPort(t, a, "port1", nil).Off(within(t, time.Second)); !errors.Is(err, fencemethods.ErrTimeout) {
		t.Errorf("%v, want %v", err, fencemethods.ErrTimeout)
	}
}

// A switch that restarts may give its ports other numbers. The one that has ours by then is not cut.
func TestAPortIsFollowedToAnotherNumber(t *testing.T) {
	mine, other := new(fencetest.Machine), new(fencetest.Machine)
	if err := errors.Join(mine.SetOn(true), other.SetOn(true)); err != nil {
		t.Fatal(err)
	}
	var renumbered atomic.Bool
	either := func(before, after *row) *row {
		is := func() *row {
			if renumbered.Load() {
				return after
			}
			return before
		}
		return &row{
			func() string { return is().name() }, func() any { return is().admin() },
			func() any { return is().oper() }, func(value int) error { return is().set(value) },
		}
	}
	first, second := wired("port1", mine), wired("port2", other)
	rows := map[int]*row{1: either(first, second), 2: either(second, first)}
	a := startSwitch(t, snmpd.Config{Objects: ports(rows), Without: own()})
	d := openPort(t, a, "port1", nil)
	if err := d.Check(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	renumbered.Store(true)
	if err := d.Off(within(t, 20*time.Second)); err != nil {
		t.Fatal(err)
	}
	if on, _ := mine.On(); on {
		t.Error("FALSE SUCCESS: the port is up")
	}
	if on, _ := other.On(); !on {
		t.Error("another port was taken down")
	}
}

func TestAnotherSwitchIsNotFenced(t *testing.T) {
	m := new(fencetest.Machine)
	if err := m.SetOn(true); err != nil {
		t.Fatal(err)
	}
	a := startSwitch(t, snmpd.Config{Objects: ports(map[int]*row{1: wired("port1", m)}), Without: own()})
	err := openPort(t, a, "port1", map[string]string{"sysname": "switch2"}).Off(within(t, 20*time.Second))
	if on, _ := m.On(); !errors.Is(err, fencemethods.ErrRefused) || !on {
		t.Errorf("%v, want %v; the port is up: %v", err, fencemethods.ErrRefused, on)
	}
	if err := openPort(t, a, "port1", map[string]string{"sysname": "switch1"}).Off(within(t, 20*time.Second)); err != nil {
		t.Error(err)
	}
}

func TestBadParametersAreRefused(t *testing.T) {
	for _, c := range []struct{ key, value, text string }{
		{"interface", "", "empty"},
		{"column", "ifIndex", "expected one of"},
		{"column", "ifname", `did you mean "ifName"?`},
		{"user", "fence", "remove it, or check version"},
		{"outlets", "3", "unknown parameter"},
	} {
		params := where(161, "port1")
		params["version"], params["community_file"], params[c.key] = "2c", "/etc/community", c.value
		_, err := Method().Parse(params)
		if e, ok := errors.AsType[*fencemethods.ParamError](err); !ok || e.Key != c.key || !strings.Contains(e.Error(), c.text) {
			t.Errorf("%s = %s: %v; want %q", c.key, c.value, err, c.text)
		}
	}
}
