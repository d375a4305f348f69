// SPDX-License-Identifier: GPL-2.0-only

// Package ipban has the storage servers of a node, or the routers or switches before them, drop all that
// comes from its addresses and goes there: the node runs on, and is cut off from the disks. (R15)
//
// It gives orders by package remote to the program o2fence-ipban on these machines, whose own
// configuration says which addresses a node has. All of them have to confirm. Package gate has what is
// proven there before one does.
//
// After New it allocates no more than package remote does, starts nothing and opens nothing. (R19)
package ipban

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"strings"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/remote"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

// most is how many machines can be needed to ban one node.
const most = 4

// Method describes this method.
func Method() fencemethods.Method {
	return fencemethods.Method{
		Name:      "ipban",
		Summary:   "have the storage servers drop the node's addresses",
		MemoryKiB: remote.MemoryKiB, // one machine is asked at a time
		KernelKiB: most * remote.KernelKiB,
		New:       New,
		Params: []fencemethods.Param{
			{
				Name: "addrs", Required: true, Validate: fencemethods.IPAddrs(most),
				Help: "IP addresses of the machines that run o2fence-ipban, separated by commas; all have to ban the node, at most 4",
			},
			{Name: "port", Default: "7412", Validate: fencemethods.Between(1, 65535), Help: "UDP port of all of them"},
			{Name: "key_file", Required: true, Secret: true, Help: "file that holds the key they share, at least 16 bytes"},
		},
	}
}

type device struct{ machines []*machine }

// A machine is one that bans.
type machine struct {
	*remote.Client
	addr    string
	process uint64 // of its program, as last heard
}

// New makes the sockets; it sends nothing.
func New(target fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
	key, err := remote.ReadKey(v["key_file"])
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	d := &device{}
	for addr := range strings.SplitSeq(v["addrs"], ",") {
		c, err := remote.New(remote.Config{
			Peer:    "o2fence-ipban",
			Servers: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr(addr).Unmap(), uint16(v.Int("port")))},
			Key:     bytes.Clone(key),
			Target:  target,
		})
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		d.machines = append(d.machines, &machine{Client: c, addr: addr})
	}
	return d, nil
}

// Off has the node banned by all machines, one after the other: it is cut off when the last one has
// confirmed, and a ban that comes to nothing for want of another stays.
func (d *device) Off(ctx context.Context) error { return d.all(ctx, message.Off) }

// On lets the node back in, everywhere.
func (d *device) On(ctx context.Context) error { return d.all(ctx, message.On) }

// Check asks whether all machines could ban the node.
func (d *device) Check(ctx context.Context) error { return d.all(ctx, message.Check) }

func (d *device) all(ctx context.Context, op message.Op) error {
	for i := range d.machines {
		if _, err := d.do(ctx, i, op); err != nil {
			return err
		}
	}
	return nil
}

// do has one machine do something. One that was another of them as well is none of its own: by wrong
// addresses, or by somebody who leads ours astray.
func (d *device) do(ctx context.Context, i int, op message.Op) (fencemethods.State, error) {
	m := d.machines[i]
	r, err := m.Do(ctx, op)
	if err != nil {
		return fencemethods.Unknown, d.name(m, err)
	}
	m.process = r.Process
	for _, other := range d.machines[:i] {
		if m.process != 0 && other.process == m.process {
			return fencemethods.Unknown, d.name(m, failSame)
		}
	}
	return r.State, nil
}

var failSame = &fencemethods.Error{
	Kind: fencemethods.ErrRefused, Detail: "the same machine as at an address before it",
	Advice: "check addrs, and address translation on the way",
}

// Status is Unknown where the machines do not all say the same.
func (d *device) Status(ctx context.Context) (fencemethods.State, error) {
	var state fencemethods.State
	for i := range d.machines {
		its, err := d.do(ctx, i, message.Status)
		switch {
		case err != nil:
			return fencemethods.Unknown, err
		case i > 0 && its != state:
			return fencemethods.Unknown, nil
		}
		state = its
	}
	return state, nil
}

// name says which of several machines it was.
func (d *device) name(m *machine, err error) error {
	e, ok := errors.AsType[*fencemethods.Error](err)
	if !ok || len(d.machines) == 1 {
		return err
	}
	named := *e
	named.Detail = m.addr + ": " + e.Detail
	return &named
}

// Close closes the sockets and wipes the keys.
func (d *device) Close() error {
	var errs []error
	for _, m := range d.machines {
		errs = append(errs, m.Client.Close())
	}
	return errors.Join(errs...)
}
