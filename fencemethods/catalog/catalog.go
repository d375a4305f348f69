// SPDX-License-Identifier: GPL-2.0-only

// Package catalog is the one table of all fence methods that run in user space. (R18)
package catalog

import (
	"fmt"
	"strings"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/agent"
	"github.com/o2fence/o2fence/fencemethods/ask"
	"github.com/o2fence/o2fence/fencemethods/ifmib"
	"github.com/o2fence/o2fence/fencemethods/ipban"
	"github.com/o2fence/o2fence/fencemethods/ipmi"
	"github.com/o2fence/o2fence/fencemethods/kdump"
	"github.com/o2fence/o2fence/fencemethods/nearest"
	"github.com/o2fence/o2fence/fencemethods/nvme"
	"github.com/o2fence/o2fence/fencemethods/qmp"
	"github.com/o2fence/o2fence/fencemethods/redfish"
	"github.com/o2fence/o2fence/fencemethods/relay"
	"github.com/o2fence/o2fence/fencemethods/sbd"
	"github.com/o2fence/o2fence/fencemethods/scsi"
	"github.com/o2fence/o2fence/fencemethods/snmp"
	"github.com/o2fence/o2fence/fencemethods/testmethod"
)

// A Table has the methods. A Method may have what all devices that it opens share (kdump: a port), so a
// process opens all its devices by one Table.
type Table []fencemethods.Method

// Methods returns all methods. Whoever adds one adds its line here.
func Methods() Table {
	return Table{
		ipmi.Method(),
		snmp.Method(),
		ifmib.Method(),
		qmp.Method(),
		redfish.Method(),
		kdump.Method(),
		sbd.Method(),
		relay.Method(),
		ipban.Method(),
		scsi.Method(),
		nvme.Method(),
		ask.Method(),
		agent.Method(),
		testmethod.Method(),
	}
}

// Find returns the method of that name. The error for an unknown one names what was probably meant.
func (t Table) Find(name string) (fencemethods.Method, error) {
	var names []string
	for _, m := range t {
		if m.Name == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	if near := nearest.Nearest(name, names); near != "" {
		return fencemethods.Method{}, fmt.Errorf("unknown method %q, did you mean %q?", name, near)
	}
	return fencemethods.Method{}, fmt.Errorf("unknown method %q, expected one of %s", name, strings.Join(names, ", "))
}
