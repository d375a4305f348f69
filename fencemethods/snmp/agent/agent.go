// SPDX-License-Identifier: GPL-2.0-only

// Package agent talks to the SNMP agent of a device for the methods that switch something through
// one: versions 1 and 2c (RFC 1157, RFC 3416), and 3 with authentication and privacy (RFC 3412,
// 3414, 3826, 7860).
//
// The messages are github.com/gosnmp/gosnmp's, the exchange is not: its own sends again at each
// damaged packet, takes an answer with the request-id 0 for any question, and cannot tell a wrong
// user from a device that is gone. Here an answer counts when it carries the random number of the
// question, names the objects that were asked for, comes from the device's address and, with
// version 3, is signed by the engine that was asked.
//
// gosnmp allocates for each question and its answer, some 3 KiB with version 2c and 7 KiB with
// version 3. The MemoryKiB of the methods covers that.
package agent

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unsafe"

	"github.com/gosnmp/gosnmp"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/link"
)

const (
	// tries is how often a question is sent before the device counts as silent.
	tries = 4
	// slowest is how many times longer than the first the waits for answers get.
	slowest = 4

	// maxPacket is more than any answer to this package's questions.
	maxPacket = 4096

	// bulk is how many objects After asks for: their answer fits any network and buffer.
	bulk = 8
)

// An Agent is the SNMP agent of one device. It serves one goroutine at a time.
type Agent struct {
	link   *link.Link
	snmp   gosnmp.GoSNMP // its encoder and decoder; it is never connected
	secret fencemethods.Secret
	usm    *usm // nil without version 3
	retry  time.Duration

	deadline time.Time
	heard    bool // an answer came since the operation began
	ignored  int  // packets that were none
	scratch  [maxPacket]byte
}

// Params are the parameters that lead to an agent. A method adds its own.
func Params() []fencemethods.Param {
	return []fencemethods.Param{
		{Name: "addr", Required: true, Identity: true, Validate: fencemethods.IPAddr, Help: "IP address of the device"},
		{Name: "port", Default: "161", Identity: true, Validate: fencemethods.Between(1, 65535), Help: "UDP port of the device's SNMP agent"},
		{
			Name: "version", Required: true, Validate: fencemethods.OneOf("1", "2c", "3"),
			Help: "SNMP version: 1, 2c, or 3, the only one that is authenticated and encrypted",
		},
		{Name: "community_file", Secret: true, Help: "versions 1 and 2c: file that holds a community that may write"},
		{Name: "user", Validate: validUser, Help: "version 3: user name, of one that may write"},
		{Name: "auth", Validate: fencemethods.OneOf(names(hashes())...), Help: "version 3: authentication protocol: " + strings.Join(names(hashes()), ", ")},
		{Name: "auth_file", Secret: true, Help: "version 3: file that holds the authentication passphrase"},
		{Name: "priv", Validate: fencemethods.OneOf(names(ciphers())...), Help: "version 3: privacy protocol: " + strings.Join(names(ciphers()), ", ")},
		{Name: "priv_file", Secret: true, Help: "version 3: file that holds the privacy passphrase"},
		{Name: "sysname", Help: "the device's sysName, which it then has to have"},
		{
			Name: "retry_ms", Default: "500", Validate: fencemethods.Between(50, 10000),
			Help: "milliseconds after which an unanswered packet is sent again",
		},
	}
}

// Verify looks at parameters that only fit together: each version has credentials of its own.
func Verify(v fencemethods.Values) *fencemethods.ParamError {
	wanted, other := []string{"community_file"}, []string{"user", "auth", "auth_file", "priv", "priv_file"}
	if v["version"] == "3" {
		wanted, other = other, wanted
	}
	for _, name := range wanted {
		if v[name] == "" {
			return &fencemethods.ParamError{Key: name, Text: "missing: version " + v["version"] + " needs it"}
		}
	}
	for _, name := range other {
		if v[name] != "" {
			return &fencemethods.ParamError{Key: name, Text: "version " + v["version"] + " has no such thing: remove it, or check version"}
		}
	}
	if v["version"] == "3" {
		return verifyKeys(v["auth"], v["priv"])
	}
	return nil
}

// validUser knows the limit of RFC 3414, section 5 (usmUserName).
func validUser(s string) error {
	if len(s) > 32 {
		return fmt.Errorf("longer than the 32 bytes that SNMP allows")
	}
	return nil
}

// New makes the agent's socket and reads its secrets; it sends nothing.
func New(v fencemethods.Values) (*Agent, error) {
	addr, err := netip.ParseAddr(v["addr"])
	if err != nil {
		return nil, err
	}
	a := &Agent{retry: time.Duration(v.Int("retry_ms")) * time.Millisecond}
	if err := a.credentials(v); err != nil {
		a.wipe()
		return nil, err
	}
	a.link, err = link.New(netip.AddrPortFrom(addr.Unmap(), uint16(v.Int("port"))), maxPacket)
	if err != nil {
		a.wipe()
		return nil, err
	}
	return a, nil
}

func (a *Agent) credentials(v fencemethods.Values) error {
	switch v["version"] {
	case "1":
		a.snmp.Version = gosnmp.Version1
	case "2c":
		a.snmp.Version = gosnmp.Version2c
	default:
		a.snmp.Version = gosnmp.Version3
		return a.user(v)
	}
	community, err := fencemethods.ReadSecret(v["community_file"])
	if err != nil {
		return err
	}
	a.secret = community
	// gosnmp writes the length into one byte.
	if len(community) > 127 {
		return fmt.Errorf("%s: longer than 127 bytes", v["community_file"])
	}
	// Not a copy, so that Close wipes it.
	a.snmp.Community = unsafe.String(unsafe.SliceData(community), len(community))
	return nil
}

// Close closes the socket and wipes the secrets.
func (a *Agent) Close() error {
	a.wipe()
	return a.link.Close()
}

func (a *Agent) wipe() {
	a.secret.Wipe()
	if a.usm != nil {
		a.usm.wipe()
	}
}

// Authentic reports whether answers are signed. Where they are not, a damaged one may pass for a
// genuine one, and a single one is not to be believed.
func (a *Agent) Authentic() bool { return a.usm != nil }

// reset forgets what happened in an earlier operation.
func (a *Agent) reset() {
	a.heard, a.ignored, a.link.Err = false, 0, nil
	if a.usm != nil {
		a.usm.understood = false
	}
}

// Begin begins an attempt at an operation, which ends by ctx's deadline: on a new port, so that answers to an
// earlier one do not arrive. With version 3 it asks the engine who it is and what its clock shows
// (RFC 3414, section 4).
func (a *Agent) Begin(ctx context.Context) *Failure {
	a.deadline, _ = ctx.Deadline()
	a.link.Open(a.deadline)
	if a.usm == nil {
		return nil
	}
	return a.discover(ctx)
}

// Get asks for objects and returns their values in the same order. One that the device does not
// have comes as gosnmp.NoSuchObject or gosnmp.NoSuchInstance, also with version 1; that one then
// tells nothing of the others, which come as gosnmp.Null. The names are absolute, from ".1".
func (a *Agent) Get(ctx context.Context, names ...string) ([]gosnmp.SnmpPDU, *Failure) {
	return a.get(ctx, gosnmp.GetRequest, names)
}

// After asks for objects that follow the one of that name, in their order: as many as fit, and at
// least one. Past the last one comes gosnmp.EndOfMibView.
func (a *Agent) After(ctx context.Context, name string) ([]gosnmp.SnmpPDU, *Failure) {
	if a.snmp.Version == gosnmp.Version1 {
		return a.get(ctx, gosnmp.GetNextRequest, []string{name})
	}
	return a.get(ctx, gosnmp.GetBulkRequest, []string{name})
}

func (a *Agent) get(ctx context.Context, kind gosnmp.PDUType, names []string) ([]gosnmp.SnmpPDU, *Failure) {
	vars := make([]gosnmp.SnmpPDU, len(names))
	for i, name := range names {
		vars[i] = gosnmp.SnmpPDU{Name: name, Type: gosnmp.Null}
	}
	answer, f := a.exchange(ctx, kind, vars)
	switch {
	case f != nil:
		return nil, f
	case answer.Error == gosnmp.NoError:
		return answer.Variables, nil
	case answer.Error == gosnmp.NoSuchName && a.snmp.Version == gosnmp.Version1:
		return missing(vars, kind, int(answer.ErrorIndex))
	}
	return nil, getFailure(answer.Error)
}

// missing gives version 1's only word for an object that is not there the form of the others'
// (RFC 2576, section 4.1.2.3).
func missing(vars []gosnmp.SnmpPDU, kind gosnmp.PDUType, index int) ([]gosnmp.SnmpPDU, *Failure) {
	if index < 1 || index > len(vars) {
		return nil, failGarbage
	}
	vars[index-1].Type = gosnmp.NoSuchInstance
	if kind == gosnmp.GetNextRequest {
		vars[index-1].Type = gosnmp.EndOfMibView
	}
	return vars, nil
}

// Set sets objects to whole numbers, all of them or, by RFC 3416, none.
func (a *Agent) Set(ctx context.Context, vars ...Assignment) *Failure {
	pdus := make([]gosnmp.SnmpPDU, len(vars))
	for i, v := range vars {
		pdus[i] = gosnmp.SnmpPDU{Name: v.Name, Type: gosnmp.Integer, Value: v.Value}
	}
	answer, f := a.exchange(ctx, gosnmp.SetRequest, pdus)
	if f != nil || answer.Error == gosnmp.NoError {
		return f
	}
	return setFailure(answer.Error)
}

// An Assignment is an object and the number that it shall have.
type Assignment struct {
	Name  string
	Value int
}

// MayWrite asks whether an object that holds a whole number can be set with these credentials. It does
// so by setting it to a text, which changes nothing: an agent looks at the rights first, and then
// declines a value of the wrong type (RFC 3416, section 4.2.5). Should one fail to, the text is no
// number that a switch understands.
func (a *Agent) MayWrite(ctx context.Context, name string) *Failure {
	answer, f := a.exchange(ctx, gosnmp.SetRequest, []gosnmp.SnmpPDU{
		{Name: name, Type: gosnmp.OctetString, Value: "99"},
	})
	if f != nil {
		return f
	}
	if f := setFailure(answer.Error); f == failWrite || f == failNotWritable {
		return f
	}
	return nil
}
