// SPDX-License-Identifier: GPL-2.0-only

// Package ifmib fences by taking down the port of a switch that a node is connected to, by SNMP
// (IF-MIB, RFC 2863): of the network that leads to the disks, so that it cannot write any more.
//
// The port is named, and looked up by its name: the number by which it is switched may change when
// the switch restarts, and each reading looks again at whose number it is. Down is what the switch
// says it shall be (ifAdminStatus) and is (ifOperStatus); either alone proves nothing.
package ifmib

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/gosnmp/gosnmp"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/link"
	"github.com/o2fence/o2fence/fencemethods/snmp/agent"
)

// Columns of ifTable and ifXTable (RFC 2863, section 6); a row's number follows.
const (
	ifDescr       = ".1.3.6.1.2.1.2.2.1.2"
	ifAdminStatus = ".1.3.6.1.2.1.2.2.1.7"
	ifOperStatus  = ".1.3.6.1.2.1.2.2.1.8"
	ifName        = ".1.3.6.1.2.1.31.1.1.1.1"
	ifAlias       = ".1.3.6.1.2.1.31.1.1.1.18"
)

// Values of ifAdminStatus and ifOperStatus. Ports whose module or lower layer is absent are down as
// well; what tests, or is dormant, may pass packets.
const (
	up             = 1
	down           = 2
	notPresent     = 6
	lowerLayerDown = 7
)

// maxRows is how many ports are looked at for the one that is meant.
const maxRows = 1024

// Method describes this method.
func Method() fencemethods.Method {
	return fencemethods.Method{
		Name:      "ifmib",
		Summary:   "take down a node's port on a switch, by SNMP (IF-MIB)",
		MemoryKiB: 5120,
		KernelKiB: link.KernelKiB,
		New:       New,
		Verify:    agent.Verify,
		Params: append(
			agent.Params(),
			fencemethods.Param{Name: "interface", Required: true, Identity: true, Help: "name of the node's port on the switch, as the column says"},
			fencemethods.Param{
				Name: "column", Default: "ifName", Validate: fencemethods.OneOf("ifName", "ifDescr", "ifAlias"),
				Help: "where the switch has that name: ifName, ifDescr, or ifAlias, which its administrator sets",
			},
		),
	}
}

// New makes the device and its socket; it sends nothing.
func New(_ fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
	columns := map[string]string{"ifName": ifName, "ifDescr": ifDescr, "ifAlias": ifAlias}
	p := &port{
		name: v["interface"], column: columns[v["column"]],
		identity: agent.Identity{SysName: v["sysname"]},
	}
	a, err := agent.New(v)
	if err != nil {
		return nil, err
	}
	return agent.NewDevice(a, p), nil
}

// A port is one of a switch. It satisfies agent.Switch.
type port struct {
	name     string
	column   string // that holds the name
	identity agent.Identity

	row     string   // the port's number, "" while it is not known
	objects []string // whose values are read: the identity's, the row's name and both states
}

// Read asks how the port is, and whether its number is still its own.
func (p *port) Read(ctx context.Context, a *agent.Agent, _ fencemethods.State) (fencemethods.State, *agent.Failure) {
	for try := 0; ; try++ {
		if p.row == "" {
			if f := p.find(ctx, a); f != nil {
				return fencemethods.Unknown, f
			}
		}
		values, f := a.Get(ctx, p.objects...)
		if f != nil {
			return fencemethods.Unknown, f
		}
		if f := p.identity.Verify(ctx, a, values); f != nil {
			return fencemethods.Unknown, f
		}
		values = values[len(p.identity.Objects()):]
		if p.named(values[0]) {
			return state(values[1], values[2]), nil
		}
		p.row = ""
		if try > 0 {
			return fencemethods.Unknown, p.gone()
		}
	}
}

func (p *port) named(value gosnmp.SnmpPDU) bool {
	name, ok := value.Value.([]byte)
	return ok && value.Type == gosnmp.OctetString && string(name) == p.name
}

// state tells the port's state from both of its objects. Only who is down by order, and really, is
// off. For who wants it on, the order is what counts: the node at its other end may be off.
func state(admin, oper gosnmp.SnmpPDU) fencemethods.State {
	ordered, ok := agent.Number(admin)
	if !ok {
		return fencemethods.Unknown
	}
	is, ok := agent.Number(oper)
	switch {
	case ordered == up:
		return fencemethods.On
	case ordered == down && ok && (is == down || is == notPresent || is == lowerLayerDown):
		return fencemethods.Off
	default:
		return fencemethods.Unknown
	}
}

// find looks for the row with the port's name, of which there must not be two.
func (p *port) find(ctx context.Context, a *agent.Agent) *agent.Failure {
	row, last := "", p.column
	for n := 0; n < maxRows; {
		values, f := a.After(ctx, last)
		if f != nil {
			return f
		}
		for _, value := range values {
			if agent.Missing(value) || !strings.HasPrefix(value.Name, p.column+".") {
				return p.use(row)
			}
			if number(value.Name) <= number(last) && last != p.column {
				return failCircle
			}
			last = value.Name
			n++
			if !p.named(value) {
				continue
			}
			if row != "" {
				return failTwice
			}
			row = strings.TrimPrefix(last, p.column)
		}
	}
	return failMany
}

// number is the row's in an object's name.
func number(name string) int {
	n, _ := strconv.Atoi(name[strings.LastIndexByte(name, '.')+1:])
	return n
}

// use takes the row that was found.
func (p *port) use(row string) *agent.Failure {
	if row == "" {
		return p.gone()
	}
	p.row = row
	p.objects = append(p.identity.Objects(), p.column+row, ifAdminStatus+row, ifOperStatus+row)
	return nil
}

func (p *port) gone() *agent.Failure {
	return &agent.Failure{
		Kind: fencemethods.ErrRefused, Detail: fmt.Sprintf("the switch has no port %.40q", p.name),
		Advice: "check interface and column",
	}
}

var (
	failCircle = &agent.Failure{
		Kind: fencemethods.ErrProtocol, Detail: "the switch lists its ports in no order",
		Advice: "check its firmware",
	}
	failMany = &agent.Failure{
		Kind: fencemethods.ErrUnsupported, Detail: fmt.Sprintf("the switch has more than %d ports", maxRows),
		Advice: "use another method",
	}
	failTwice = &agent.Failure{
		Kind: fencemethods.ErrRefused, Detail: "the switch has two ports of that name",
		Advice: "check interface and column",
	}
	failNotFound = &agent.Failure{
		Kind: fencemethods.ErrBusy, Detail: "the switch does not list its ports",
		Advice: "check it, and allow more time",
	}
)

// Command orders the port up or down.
func (p *port) Command(ctx context.Context, a *agent.Agent, want fencemethods.State, _ int) *agent.Failure {
	if p.row == "" { // as long as it was not found, nobody can tell which one it is
		return failNotFound
	}
	value := down
	if want == fencemethods.On {
		value = up
	}
	return a.Set(ctx, agent.Assignment{Name: ifAdminStatus + p.row, Value: value})
}

// MayCommand asks whether the port may be ordered up or down.
func (p *port) MayCommand(ctx context.Context, a *agent.Agent) *agent.Failure {
	return a.MayWrite(ctx, ifAdminStatus+p.row)
}
