// SPDX-License-Identifier: GPL-2.0-only

// Package relay has a dedicated fencing node act on the node to be fenced: a machine that mounts none
// of the cluster's file systems, runs o2fence-relay, and reaches the devices that this one cannot, or
// should not, reach itself. (R22, R26)
//
// What the relay does is its own configuration's affair: here is only how it is reached. Off is a
// success when a device of the relay's was read as off during this very order.
package relay

import (
	"context"
	"net/netip"
	"strings"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/remote"
	"github.com/o2fence/o2fence/fencemethods/remote/message"
)

// Name is the method's, and Port the UDP port of relays unless the configuration says otherwise.
const (
	Name = "relay"
	Port = "7411"
)

// most is how many relays a node may name: each costs a socket.
const most = 2

// Method describes this method.
func Method() fencemethods.Method {
	return fencemethods.Method{
		Name:      Name,
		Summary:   "have a fencing node that runs o2fence-relay fence it by its own method",
		MemoryKiB: remote.MemoryKiB,
		KernelKiB: most * remote.KernelKiB,
		New:       New,
		Params: []fencemethods.Param{
			{
				Name: "addrs", Required: true, Validate: fencemethods.IPAddrs(most),
				Help: "IP address of the relay, or of two that do the same, separated by a comma",
			},
			{Name: "port", Default: Port, Validate: fencemethods.Between(1, 65535), Help: "UDP port of the relay"},
			{
				Name: "key_file", Required: true, Secret: true,
				Help: "file that holds the key that the relay has for this cluster, at least 16 bytes",
			},
		},
	}
}

// A device is the relay of one node.
type device struct{ client *remote.Client }

// New makes the sockets and reads the key; it sends nothing.
func New(target fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
	key, err := remote.ReadKey(v["key_file"])
	if err != nil {
		return nil, err
	}
	c := remote.Config{Peer: Name, Key: key, Target: target}
	for _, addr := range strings.Split(v["addrs"], ",") {
		c.Servers = append(c.Servers, netip.AddrPortFrom(netip.MustParseAddr(addr).Unmap(), uint16(v.Int("port"))))
	}
	client, err := remote.New(c)
	if err != nil {
		return nil, err
	}
	return &device{client}, nil
}

// Off orders the relay to fence the node. Where that rests on somebody's word there, it is passed on.
func (d *device) Off(ctx context.Context) error {
	r, err := d.client.Do(ctx, message.Off)
	if err == nil && r.Text != "" {
		fencemethods.Vouch(ctx, r.Text)
	}
	return err
}

// On orders the relay to undo it.
func (d *device) On(ctx context.Context) error {
	_, err := d.client.Do(ctx, message.On)
	return err
}

// Status asks the relay for what its device says now.
func (d *device) Status(ctx context.Context) (fencemethods.State, error) {
	r, err := d.client.Do(ctx, message.Status)
	return r.State, err
}

// Check has the relay check all of its devices for the node.
func (d *device) Check(ctx context.Context) error {
	_, err := d.client.Do(ctx, message.Check)
	return err
}

// Close closes the sockets and wipes the key.
func (d *device) Close() error { return d.client.Close() }
