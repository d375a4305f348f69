// SPDX-License-Identifier: GPL-2.0-only

// Package kdump waits for a crashed node to say that it writes its dump: the kernel that held the
// locks is gone then, and to cut the power would lose the dump. It commands nothing.
//
// One listener is there from the configuration on, for all nodes whose devices one Method has opened.
// There are two kinds of proof:
//
// With key_file, the kdump kernel answers a challenge that is made anew for each fence, so that
// neither a forged answer nor one of an earlier crash counts. What is assumed: the key is in the
// node's kdump image, and the sender in it runs nowhere but there (it finds /proc/vmcore).
//
// With plain=yes, it is fence_kdump's message, eight bytes that anybody can send in the node's name.
// It has to come from an address of the node's and after the order to fence, or not longer before it
// than silence_ms, for which the node has been silent by then; and then the order has to stand for
// confirm_ms more. A node whose heartbeat goes on makes the kernel call the order off. That holds
// only for orders that the kernel gave for silence, which name the life that is to end. An
// administrator's order stands whether or not the heartbeat goes on, and so does one of unknown
// origin: there, a plain message is no proof, and is refused.
package kdump

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

const (
	nap    = 10 * time.Millisecond  // how late something heard may be noticed
	again  = 500 * time.Millisecond // after what time a challenge is sent again
	keyMin = 16                     // bytes; a word could be guessed from one message
)

// Name is the method's.
const Name = "kdump"

// Method describes this method, and has the listeners of all devices that it opens. A port can be bound
// once, so a process opens all its devices of kdump by one Method.
func Method() fencemethods.Method {
	ls := &listeners{open: map[netip.AddrPort]*listener{}}
	return fencemethods.Method{
		Name:      Name,
		Summary:   "wait until the crashed node says that it writes its dump",
		Blind:     true,
		MemoryKiB: 32,
		New:       ls.newDevice,
		Params: []fencemethods.Param{
			{
				Name: "addrs", Required: true, Identity: true, List: true, Validate: validAddrs,
				Help: "IP addresses of the node in its kdump kernel, separated by commas",
			},
			{Name: "listen", Validate: validAddr, Help: "IP address to listen on; all when not set"},
			{Name: "port", Default: "7410", Validate: fencemethods.Between(1, 65535), Help: "UDP port to listen on"},
			{Name: "key_file", Secret: true, Help: "file that holds the key of the node's sealed messages, at least 16 bytes"},
			{
				Name: "plain", Default: "no", Validate: fencemethods.OneOf("yes", "no"),
				Help: "yes: take fence_kdump's messages, which anybody on the network can forge; not with key_file",
			},
			{
				Name: "confirm_ms", Default: "5000", Validate: fencemethods.Between(100, 600000),
				Help: "milliseconds for which the node has to stay silent after a plain message: at least two heartbeats",
			},
			{
				Name: "silence_ms", Default: "0", Validate: fencemethods.Between(0, 600000),
				Help: "milliseconds before the fence in which a plain message counts: no more than missed times period",
			},
		},
	}
}

func validAddr(s string) error {
	addr, err := netip.ParseAddr(s)
	switch {
	case err != nil:
		return fmt.Errorf("%q is not an IP address; names are not looked up", s)
	case addr.Zone() != "":
		return fmt.Errorf("%q has a zone; give an address that is valid without one", s)
	}
	return nil
}

func validAddrs(s string) error {
	for _, addr := range strings.Split(s, ",") {
		if err := validAddr(addr); err != nil {
			return err
		}
		if a := netip.MustParseAddr(addr); a.IsUnspecified() || a.IsMulticast() {
			return fmt.Errorf("%q is no address of a node's", addr)
		}
	}
	return nil
}

// A device listens for one node.
type device struct {
	addrs    []netip.Addr // the node's
	tag      nonce        // names cluster and node for Check
	probe    netip.AddrPort
	listener *listener // nil: another process has the port
	key      fencemethods.Secret
	confirm  time.Duration
	silence  time.Duration

	mu    sync.Mutex // guards what follows: the listener's goroutine writes it
	seal  *seal      // nil: plain
	plain time.Time  // when a plain message last came; zero: never, or not since the last fence
	since time.Time  // when the first one came that counts for the fence under way
	order time.Time  // when that began; zero: none
	hello netip.AddrPort
	his   nonce // of that hello
	ours  nonce // that a proof has to repeat; zero: none is awaited

	proven, odd bool // a proof has come; something with another seal has
	out         [sealedLen]byte
}

// newDevice joins the listener for its port, and opens it if it is the first. A port that another
// process has is no error here: o2fencectl runs beside o2fenced. Check tells.
func (ls *listeners) newDevice(target fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
	if (v["key_file"] == "") == (v["plain"] == "no") {
		return nil, &fencemethods.ParamError{
			Method: Name, Key: "key_file",
			Text: "expected either key_file, or plain = yes for messages that anybody can forge",
		}
	}
	node := fmt.Appendf(nil, "%s\x00%c", target.Cluster, 0)
	node[len(node)-1] = target.Node
	d := &device{
		confirm: time.Duration(v.Int("confirm_ms")) * time.Millisecond,
		silence: time.Duration(v.Int("silence_ms")) * time.Millisecond,
	}
	sum := sha256.Sum256(node)
	copy(d.tag[:], sum[:])
	for _, s := range strings.Split(v["addrs"], ",") {
		d.addrs = append(d.addrs, netip.MustParseAddr(s).Unmap())
	}
	if err := d.readKey(v["key_file"], node); err != nil {
		return nil, err
	}
	local := netip.AddrPortFrom(netip.Addr{}, uint16(v.Int("port")))
	d.probe = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), local.Port())
	if v["listen"] != "" {
		local = netip.AddrPortFrom(netip.MustParseAddr(v["listen"]).Unmap(), local.Port())
		d.probe = local
	}
	l, err := ls.join(local, d)
	if err != nil && !errors.Is(err, syscall.EADDRINUSE) {
		d.key.Wipe()
		return nil, err
	}
	d.listener = l
	return d, nil
}

func (d *device) readKey(name string, node []byte) error {
	if name == "" {
		return nil
	}
	key, err := fencemethods.ReadSecret(name)
	if err != nil {
		return err
	}
	if len(key) < keyMin {
		key.Wipe()
		return fmt.Errorf("%s: shorter than %d bytes: make one with openssl rand -hex 32", name, keyMin)
	}
	d.key = key
	d.seal = &seal{mac: hmac.New(sha256.New, key), node: node}
	d.seal.of(make([]byte, sealedLen)) // what it allocates the first time
	return nil
}

// heardPlain and heardSealed are called for what comes from an address of the node's. now is when a plain
// message came: it may be read much later.
func (d *device) heardPlain(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plain = now
	if d.since.IsZero() && !d.order.IsZero() && d.order.Sub(now) <= d.silence {
		d.since = now
	}
}

func (d *device) heardSealed(m message, p []byte, from netip.AddrPort) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.seal == nil:
	case !d.seal.genuine(p):
		d.odd = true
	case m.kind == kindHello:
		d.hello, d.his = from, m.sender
	case m.kind == kindProof && m.listener == d.ours:
		d.proven = d.ours != (nonce{})
	}
}

// Off waits for the node's kdump kernel.
func (d *device) Off(ctx context.Context) error {
	if d.listener == nil {
		return failTaken
	}
	if d.seal == nil && !isForSilence(ctx) {
		return failByHand
	}
	deadline, _ := ctx.Deadline()
	d.begin()
	defer d.end()
	var asked time.Time
	for {
		now := time.Now()
		done, ask, err := d.verdict(now, deadline)
		switch {
		case done:
			return err
		case errors.Is(ctx.Err(), context.Canceled):
			return ctx.Err()
		case !now.Before(deadline):
			return d.why()
		case ask && now.Sub(asked) >= again:
			asked = now
			d.challenge()
		}
		time.Sleep(min(nap, deadline.Sub(now)))
	}
}

// isForSilence tells whether the kernel gave the order because the node fell silent, and so would
// call it off should the node be heard again.
func isForSilence(ctx context.Context) bool {
	r, ok := fencemethods.RequestOf(ctx)
	return ok && r.Incarnation != 0
}

func (d *device) begin() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.order = time.Now()
	d.since, d.proven, d.odd = time.Time{}, false, false
	if d.silence > 0 && d.order.Sub(d.plain) <= d.silence {
		d.since = d.plain
	}
	if d.seal != nil {
		_, _ = rand.Read(d.ours[:]) // which cannot fail
	}
}

// end makes what has come count no longer where it has served its purpose: each message proves one
// death at most.
func (d *device) end() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.proven {
		d.plain, d.hello = time.Time{}, netip.AddrPort{}
	}
	d.order, d.ours, d.proven = time.Time{}, nonce{}, false
}

// verdict is the one place that says that a node is fenced.
func (d *device) verdict(now, deadline time.Time) (done, ask bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seal != nil {
		return d.proven, d.hello.IsValid(), nil
	}
	if d.since.IsZero() {
		return false, false, nil
	}
	confirmed := d.since.Add(d.confirm)
	if confirmed.After(deadline) {
		return true, false, failUnconfirmed
	}
	d.proven = !now.Before(confirmed)
	return d.proven, false, nil
}

// challenge asks who has said hello. What is lost on the way is asked again.
func (d *device) challenge() {
	d.mu.Lock()
	defer d.mu.Unlock()
	message{kind: kindChallenge, sender: d.his, listener: d.ours}.encode(&d.out)
	copy(d.out[macAt:], d.seal.of(d.out[:]))
	_, _ = d.listener.conn.WriteToUDPAddrPort(d.out[:], d.hello)
}

func (d *device) why() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.since.IsZero() && d.seal == nil:
		return failUnconfirmed
	case d.hello.IsValid():
		return failUnproven
	case d.odd:
		return failKey
	case d.seal != nil && !d.since.IsZero():
		return failPlain
	}
	return failSilent
}

// On is nothing that a listener could do.
func (d *device) On(context.Context) error { return failNoWay }

// Status is Unknown: a node that does not write a dump may be on or off.
func (d *device) Status(context.Context) (fencemethods.State, error) {
	return fencemethods.Unknown, nil
}

// Check asks the listener on this machine, which may be o2fenced's, whether it listens for the
// node. Whether the node would speak, only a crash can show.
func (d *device) Check(ctx context.Context) error {
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(d.probe))
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	ask := message{kind: kindProbe, listener: d.tag}
	_, _ = rand.Read(ask.sender[:])
	var out, in [sealedLen]byte
	ask.encode(&out)
	ask.kind = kindServed
	for ctx.Err() == nil && time.Now().Before(deadline) {
		if _, err := conn.Write(out[:]); errors.Is(err, syscall.ECONNREFUSED) {
			return failNotServed
		}
		until := time.Now().Add(again)
		if deadline.Before(until) {
			until = deadline
		}
		if err := conn.SetReadDeadline(until); err != nil {
			return err
		}
		n, err := conn.Read(in[:])
		if errors.Is(err, syscall.ECONNREFUSED) {
			return failNotServed
		}
		if m, ok := decode(in[:n]); err == nil && ok && m == ask {
			return nil
		}
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	if d.listener == nil {
		return failTaken
	}
	return failNotServed
}

// Close leaves the listener, and wipes the key. What the hash made of it goes with the garbage.
func (d *device) Close() error {
	d.key.Wipe()
	if d.listener == nil {
		return nil
	}
	return d.listener.leave(d)
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrClosed) }
