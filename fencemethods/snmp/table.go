// SPDX-License-Identifier: GPL-2.0-only

package snmp

import (
	"fmt"
	"strings"

	"github.com/gosnmp/gosnmp"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/snmp/agent"
)

// Where the enterprises that make power strips keep their objects (RFC 2578, section 4).
const (
	apc       = ".1.3.6.1.4.1.318"
	tripplite = ".1.3.6.1.4.1.850"
	eaton     = ".1.3.6.1.4.1.534"
	pulizzi   = ".1.3.6.1.4.1.20677"
)

// A table is where a kind of power strip keeps the state of its outlets, and where it takes
// commands for them.
type table struct {
	name string

	// id is the sysObjectID that such a device has; one that ends in a dot is the beginning of it.
	id []string

	// state and command are the objects of an outlet: %d is its number, and before it, in tables of
	// daisy-chained devices, the device's.
	state, command string
	chained        bool

	// Devices count from here when we count from 1.
	firstState, firstCommand int

	on, off       int // as they are read
	setOn, setOff int // as they are commanded: at once, and never a cycle
}

// tables are the kinds of power strips there are. The objects are those of PowerNet-MIB,
// TRIPPLITE-PRODUCTS, EATON-EPDU-MIB and PULIZZI's MIB.
func tables() []table {
	return []table{
		{
			name: "apc-rpdu", id: []string{apc + ".1.3.4.5"},
			state: apc + ".1.1.12.3.5.1.1.4.%d", command: apc + ".1.1.12.3.3.1.1.4.%d",
			firstState: 1, firstCommand: 1, on: 1, off: 2, setOn: 1, setOff: 2,
		},
		{
			name: "apc-rpdu-6", id: []string{apc + ".1.3.4.6"}, // firmware 6
			state: apc + ".1.1.4.4.2.1.3.%d", command: apc + ".1.1.12.3.3.1.1.4.%d",
			firstState: 1, firstCommand: 1, on: 1, off: 2, setOn: 1, setOff: 2,
		},
		{
			name: "apc-masterswitch", id: []string{apc + ".1.3.4."}, // all of them have this old table
			state: apc + ".1.1.4.4.2.1.3.%d", command: apc + ".1.1.4.4.2.1.3.%d",
			firstState: 1, firstCommand: 1, on: 1, off: 2, setOn: 1, setOff: 2,
		},
		{
			name: "apc-masterswitch-plus", id: []string{apc + ".1.3.4.4"},
			state: apc + ".1.1.6.7.1.1.5.%d.1.%d", command: apc + ".1.1.6.5.1.1.5.%d.1.%d", chained: true,
			firstState: 1, firstCommand: 1, on: 1, off: 2, setOn: 1, setOff: 3,
		},
		{
			name: "eaton-managed", id: []string{eaton + ".6.6.6", eaton + ".6.6.6."},
			state: eaton + ".6.6.6.1.2.2.1.3.%d", command: eaton + ".6.6.6.1.2.2.1.3.%d",
			firstState: 0, firstCommand: 0, on: 1, off: 0, setOn: 1, setOff: 0, // and 2 is a cycle
		},
		{
			name: "eaton-switched", id: []string{pulizzi + ".1", pulizzi + ".2"},
			state: pulizzi + ".2.6.3.%d.0", command: pulizzi + ".2.6.2.%d.0",
			firstState: 1, firstCommand: 2, on: 1, off: 2, setOn: 1, setOff: 2, // command 1 is for all outlets
		},
		{
			name: "tripplite", id: []string{tripplite + ".1"},
			state: tripplite + ".10.2.3.5.1.2.1.%d", command: tripplite + ".10.2.3.5.1.4.1.%d",
			firstState: 1, firstCommand: 1, on: 2, off: 1, setOn: 2, setOff: 1,
		},
		{
			name: "tripplite-lx", id: []string{tripplite + ".1.1.1"},
			state: tripplite + ".1.1.3.2.3.3.1.1.4.1.%d", command: tripplite + ".1.1.3.2.3.3.1.1.6.1.%d",
			firstState: 1, firstCommand: 1, on: 2, off: 1, setOn: 2, setOff: 1,
		},
	}
}

func tableNames() []string {
	var names []string
	for _, t := range tables() {
		names = append(names, t.name)
	}
	return names
}

func findTable(name string) (table, bool) {
	for _, t := range tables() {
		if t.name == name {
			return t, true
		}
	}
	return table{}, false
}

// made reports whether a device with this sysObjectID is one with this table.
func (t table) made(id string) bool {
	for _, own := range t.id {
		if id == own || strings.HasSuffix(own, ".") && strings.HasPrefix(id, own) {
			return true
		}
	}
	return false
}

// objects returns where an outlet's state is read and where its commands go.
func (t table) objects(o outlet) (state, command string) {
	if t.chained {
		return fmt.Sprintf(t.state, o.device, o.number-1+t.firstState),
			fmt.Sprintf(t.command, o.device, o.number-1+t.firstCommand)
	}
	return fmt.Sprintf(t.state, o.number-1+t.firstState), fmt.Sprintf(t.command, o.number-1+t.firstCommand)
}

// read tells the state of an outlet from its object's value. What is neither of the two numbers, a
// cycle under way for instance, is unknown.
func (t table) read(value gosnmp.SnmpPDU) fencemethods.State {
	switch n, ok := agent.Number(value); {
	case ok && n == t.on:
		return fencemethods.On
	case ok && n == t.off:
		return fencemethods.Off
	default:
		return fencemethods.Unknown
	}
}
