// SPDX-License-Identifier: GPL-2.0-only

package agent

import (
	"context"

	"github.com/gosnmp/gosnmp"

	"github.com/o2fence/o2fence/fencemethods"
)

// Objects of SNMPv2-MIB (RFC 3418, section 2).
const (
	sysObjectID = ".1.3.6.1.2.1.1.2.0"
	sysName     = ".1.3.6.1.2.1.1.5.0"
)

// An Identity is what a device has to say of itself before it is believed or commanded.
type Identity struct {
	Model   string               // as configured, for the error
	Made    func(id string) bool // looks at the sysObjectID; nil takes any
	SysName string               // "" takes any
}

// Objects are those that Verify wants the values of.
func (id Identity) Objects() []string {
	var names []string
	if id.Made != nil {
		names = append(names, sysObjectID)
	}
	if id.SysName != "" {
		names = append(names, sysName)
	}
	return names
}

// Verify looks whether it is the device. The values are those of its objects, others may follow.
func (id Identity) Verify(ctx context.Context, a *Agent, values []gosnmp.SnmpPDU) *Failure {
	names := id.Objects()
	if len(names) == 0 {
		return nil
	}
	if values[0].Type == gosnmp.Null { // version 1 tells of nothing when one object is missing
		var f *Failure
		if values, f = a.Get(ctx, names...); f != nil {
			return f
		}
	}
	if id.Made != nil {
		if made, ok := values[0].Value.(string); !ok || !id.Made(made) {
			return &Failure{
				Kind: fencemethods.ErrUnsupported, Detail: "the device is no " + id.Model + " by its sysObjectID",
				Advice: "check addr and model",
			}
		}
		values = values[1:]
	}
	if id.SysName != "" {
		if name, ok := values[0].Value.([]byte); !ok || string(name) != id.SysName {
			return &Failure{
				Kind: fencemethods.ErrRefused, Detail: "the device has another sysName",
				Advice: "check addr and sysname",
			}
		}
	}
	return nil
}

// Missing reports whether the value says that there is no such object.
func Missing(value gosnmp.SnmpPDU) bool {
	switch value.Type {
	case gosnmp.NoSuchObject, gosnmp.NoSuchInstance, gosnmp.EndOfMibView:
		return true
	default:
		return false
	}
}

// Number returns the value of an object that holds a whole number; ok is false for all else.
func Number(value gosnmp.SnmpPDU) (n int, ok bool) {
	if value.Type != gosnmp.Integer {
		return 0, false
	}
	n, ok = value.Value.(int)
	return n, ok
}
