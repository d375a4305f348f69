// SPDX-License-Identifier: GPL-2.0-only

// Package ipmi fences through a node's BMC: IPMI 2.0 over LAN (RMCP+), the commonest power device.
//
// It powers the chassis down and reads the power state back until that says off. Sessions are
// authenticated and encrypted, with cipher suite 17 or 3 and nothing less; each operation sets up
// its own, since a BMC drops those that idle. After New it allocates one AES key schedule per
// session, and the kernel's word that time is up per unanswered packet; MemoryKiB bounds both.
//
// Section and table numbers are those of the IPMI specification, second generation, v2.0 r1.1.
package ipmi

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/link"
)

// maxUser and maxPassword are the longest names and passwords of IPMI 2.0 (22.28, 22.30).
const (
	maxUser     = 16
	maxPassword = 20
)

// sameFailures is how many set-ups running have to fail in the same way before that counts as the
// device's answer. Fewer might be damaged packets, and the other cipher suite has to have its turn.
const sameFailures = 3

// Method describes this method.
func Method() fencemethods.Method {
	return fencemethods.Method{
		Name:      "ipmi",
		Summary:   "power off through the BMC, by IPMI 2.0 over LAN",
		MemoryKiB: 128,
		KernelKiB: link.KernelKiB,
		New:       New,
		Params: []fencemethods.Param{
			{Name: "addr", Required: true, Identity: true, Validate: fencemethods.IPAddr, Help: "IP address of the BMC"},
			{Name: "port", Default: "623", Identity: true, Validate: fencemethods.Between(1, 65535), Help: "UDP port of the BMC"},
			{Name: "user", Required: true, Validate: validUser, Help: "user name on the BMC"},
			{Name: "password_file", Required: true, Secret: true, Help: "file that holds the user's password"},
			{
				Name: "cipher", Default: "auto", Validate: fencemethods.OneOf("17", "3", "auto"),
				Help: "cipher suite: 17, 3, or auto for 17 and then 3",
			},
			{
				Name: "privilege", Default: "operator", Validate: fencemethods.OneOf("operator", "admin"),
				Help: "privilege level to ask for; operator is all that power control needs",
			},
			{
				Name: "retry_ms", Default: "500", Validate: fencemethods.Between(50, 10000),
				Help: "milliseconds after which an unanswered packet is sent again",
			},
		},
	}
}

func validUser(s string) error {
	if len(s) > maxUser {
		return fmt.Errorf("longer than the %d bytes that IPMI allows", maxUser)
	}
	return nil
}

// A device is the BMC of one node.
type device struct {
	session
	suites []*suite // the one in use comes first
}

// New makes the device and its socket; it sends nothing.
func New(_ fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
	addr, err := netip.ParseAddr(v["addr"])
	if err != nil {
		return nil, err
	}
	password, err := fencemethods.ReadSecret(v["password_file"])
	if err != nil {
		return nil, err
	}
	if len(password) > maxPassword {
		password.Wipe()
		return nil, fmt.Errorf("%s: longer than the %d bytes that IPMI allows", v["password_file"], maxPassword)
	}
	l, err := link.New(netip.AddrPortFrom(addr.Unmap(), uint16(v.Int("port"))), maxPacket)
	if err != nil {
		return nil, err
	}
	d := &device{suites: suites(v["cipher"])}
	d.link, d.password, d.who = l, password, who(v["privilege"], v["user"])
	d.retry = time.Duration(v.Int("retry_ms")) * time.Millisecond
	return d, nil
}

func suites(cipher string) []*suite {
	switch cipher {
	case strconv.Itoa(17):
		return []*suite{suite17()}
	case strconv.Itoa(3):
		return []*suite{suite3()}
	default:
		return []*suite{suite17(), suite3()}
	}
}

// who is the part of all RAKP messages that says who asks for which privilege (table 13-11).
func who(privilege, user string) []byte {
	level := byte(3)
	if privilege == "admin" {
		level = 4
	}
	return append([]byte{level | nameOnly, byte(len(user))}, user...)
}

// Off powers the node down.
func (d *device) Off(ctx context.Context) error {
	_, err := d.operate(ctx, fencemethods.Off)
	return err
}

// On powers the node up.
func (d *device) On(ctx context.Context) error {
	_, err := d.operate(ctx, fencemethods.On)
	return err
}

// Status reads the power state.
func (d *device) Status(ctx context.Context) (fencemethods.State, error) {
	return d.operate(ctx, fencemethods.Unknown)
}

// Check does what Status does: the session has the privilege that Off needs.
func (d *device) Check(ctx context.Context) error {
	_, err := d.operate(ctx, fencemethods.Unknown)
	return err
}

// Close closes the socket and wipes the password.
func (d *device) Close() error {
	d.password.Wipe()
	return d.link.Close()
}

// operate brings the power to want and returns how it was last read; with Unknown it only reads.
// It sets up sessions until one lasts to the end, the BMC has made clear that none will, or time is
// up.
func (d *device) operate(ctx context.Context, want fencemethods.State) (fencemethods.State, error) {
	d.deadline, _ = ctx.Deadline()
	d.wait, d.heard, d.ignored, d.link.Err = d.retry, false, 0, nil
	var last failure
	same, pause := 0, time.Duration(0)
	for {
		f := d.attempt(ctx, want)
		if f == nil {
			return d.state, nil
		}
		if d.over(ctx) {
			return fencemethods.Unknown, d.giveUp(ctx, want, f)
		}
		if *f != last {
			last, same = *f, 0
		}
		if same++; same == sameFailures && final(f) {
			return fencemethods.Unknown, f
		}
		switch f {
		case failSilent, failNoName, failLost: // which took their time
			d.wait = d.longer(d.wait)
			continue
		case failSuite, failOtherSuite:
			slices.Reverse(d.suites)
		}
		d.sleep(pause)
		pause = min(pause+firstPoll, lastPoll)
	}
}

// attempt does it all in one session.
func (d *device) attempt(ctx context.Context, want fencemethods.State) *failure {
	d.state, d.suite = fencemethods.Unknown, d.suites[0]
	defer d.close()
	d.link.Open(d.deadline)
	if f := d.open(ctx); f != nil {
		return f
	}
	if want == fencemethods.Unknown {
		return d.read(ctx)
	}
	return d.drive(ctx, want)
}

// giveUp says what is known when time is up; f is what ended the last attempt.
func (d *device) giveUp(ctx context.Context, want fencemethods.State, f *failure) error {
	switch {
	case errors.Is(ctx.Err(), context.Canceled):
		return ctx.Err()
	case d.state == fencemethods.On && want == fencemethods.Off:
		return failStillOn
	case d.state == fencemethods.Off && want == fencemethods.On:
		return failStillOff
	case f != failSilent:
		return f
	case d.heard:
		return failLost
	case errors.Is(d.link.Err, syscall.ECONNREFUSED):
		return failPortClosed
	case d.link.Err != nil:
		return failNoRoute
	case d.ignored > 0:
		return failGarbage
	}
	return f
}
