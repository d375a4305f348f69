// SPDX-License-Identifier: GPL-2.0-only

// Package redfish fences through a node's BMC: DMTF's Redfish, JSON over HTTPS.
//
// It posts the reset "ForceOff", never "GracefulShutdown", to the node's ComputerSystem. A BMC
// acknowledges that at once and acts later, so that the answer proves nothing: PowerState is read
// until it says Off. "PoweringOff" is not off.
//
// Each operation has a TLS connection of its own and ends with the first Off that it reads there, so
// an Off that somebody read earlier cannot be taken for it. The BMC's certificate is pinned, or
// verified by a CA; there is no third way. HTTP is parsed by net/http and TLS spoken by crypto/tls,
// over package stream's socket: no goroutine and no timer, and all that allocates is in MemoryKiB.
//
// DSP0266 is the Redfish Specification, of which clauses are cited by their titles, DSP0268 its schemas.
package redfish

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/operation"
	"github.com/o2fence/o2fence/fencemethods/stream"
)

// maxBody is the longest answer in bytes that is read. A ComputerSystem has 3,000 to 30,000.
const maxBody = 64 << 10

// Method describes this method.
func Method() fencemethods.Method {
	return fencemethods.Method{
		Name:      "redfish",
		Summary:   "power off through the BMC, by Redfish over HTTPS",
		MemoryKiB: 4096,
		KernelKiB: stream.KernelKiB,
		New:       New,
		Verify:    verify,
		Params: []fencemethods.Param{
			{Name: "addr", Required: true, Identity: true, Validate: fencemethods.IPAddr, Help: "IP address of the BMC"},
			{Name: "port", Default: "443", Identity: true, Validate: fencemethods.Between(1, 65535), Help: "TCP port of the BMC"},
			{
				Name: "system", Required: true, Identity: true, Validate: validSystem,
				Help: "path of the node's ComputerSystem on the BMC, such as /redfish/v1/Systems/1",
			},
			{
				Name: "certificate", Required: true, Validate: validCertificate,
				Help: "the SHA-256 fingerprint of the BMC's certificate, or the absolute path of a PEM file with the CA that issued it",
			},
			{
				Name: "certificate_name", Validate: validName,
				Help: "the name in a certificate that a CA issued, where it does not hold addr",
			},
			{Name: "user", Required: true, Validate: validUser, Help: "user name on the BMC"},
			{Name: "password_file", Required: true, Secret: true, Help: "file that holds the user's password"},
			{
				Name: "auth", Default: "basic", Validate: fencemethods.OneOf("basic", "session"),
				Help: "how to log in: basic with each request, or session once for each operation",
			},
			{
				Name: "retry_ms", Default: "5000", Validate: fencemethods.Between(100, 60000),
				Help: "milliseconds after which an unanswered request is asked again, on a new connection",
			},
		},
	}
}

// verify keeps a name away from a fingerprint, which takes any.
func verify(v fencemethods.Values) *fencemethods.ParamError {
	if v["certificate_name"] != "" && !filepath.IsAbs(v["certificate"]) {
		return &fencemethods.ParamError{
			Key:  "certificate_name",
			Text: "is for a certificate that a CA issued; certificate is a fingerprint, which needs no name: remove one of them",
		}
	}
	return nil
}

func validSystem(s string) error {
	if !strings.HasPrefix(s, "/redfish/v1/") || !isPath(s) {
		return fmt.Errorf("%q is not a path below /redfish/v1/, such as /redfish/v1/Systems/1", s)
	}
	return nil
}

// maxPath is the longest path in bytes that a request has room for.
const maxPath = 256

// isPath reports whether s can stand in a request line as it is, whoever it comes from.
func isPath(s string) bool {
	if len(s) > maxPath || !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '?' || c == '#' || c == '\\' {
			return false
		}
	}
	return true
}

// validUser keeps out what HTTP's basic authentication cannot carry (RFC 7617, 2).
func validUser(s string) error {
	if len(s) > 128 {
		return errors.New("longer than 128 bytes")
	}
	for _, c := range []byte(s) {
		if c < ' ' || c == 0x7f || c == ':' {
			return errors.New("holds a colon or a control character, which a user name must not")
		}
	}
	return nil
}

// A device is the BMC of one node.
type device struct {
	socket   *stream.Socket
	config   *tls.Config
	host     string // for the Host header
	system   string
	user     string
	patience time.Duration
	auth     fencemethods.Secret // the header of basic authentication, or nil
	login    fencemethods.Secret // the body that opens a session, or nil

	operation.Operation
	reset reset // as last read

	conn     *stream.Conn // nil when there is none
	secure   *tls.Conn    // over conn
	in       *bufio.Reader
	asked    http.Request
	sessions string // where they are opened
	token    string // of the session
	session  string // its path
	out      []byte
	body     []byte
}

// New makes the device; it sends nothing.
func New(_ fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
	addr, err := netip.ParseAddr(v["addr"])
	if err != nil {
		return nil, err
	}
	to := netip.AddrPortFrom(addr.Unmap(), uint16(v.Int("port")))
	config, err := tlsConfig(v["certificate"], v["certificate_name"], to.Addr())
	if err != nil {
		return nil, err
	}
	password, err := fencemethods.ReadSecret(v["password_file"])
	if err != nil {
		return nil, err
	}
	defer password.Wipe()
	d := &device{
		config: config, host: to.String(), system: v["system"], sessions: sessions, user: v["user"],
		patience: time.Duration(v.Int("retry_ms")) * time.Millisecond,
		in:       bufio.NewReaderSize(nil, 4096),
		out:      make([]byte, 0, 8<<10), body: make([]byte, maxBody),
	}
	d.Operation = operation.Operation{Failures: &failures, HangUp: d.hangUp, Pause: firstPause, Poll: firstPoll}
	if v["auth"] == "session" {
		d.login = loginBody(v["user"], password)
	} else {
		d.auth = basic(v["user"], password)
	}
	d.socket, err = stream.New(stream.TCP(to))
	return d, err
}

// basic returns the header of basic authentication (RFC 7617). It makes no copy of the
// password but the one that it wipes.
func basic(user string, password fencemethods.Secret) fencemethods.Secret {
	both := append(append(make([]byte, 0, len(user)+1+len(password)), user...), ':')
	both = append(both, password...)
	defer clear(both)
	header := append(make([]byte, 0, 32+base64.StdEncoding.EncodedLen(len(both))), "Authorization: Basic "...)
	return append(base64.StdEncoding.AppendEncode(header, both), "\r\n"...)
}

// loginBody returns what opens a session (DSP0266, "Redfish session login authentication").
func loginBody(user string, password fencemethods.Secret) fencemethods.Secret {
	b := append(make([]byte, 0, 64+6*(len(user)+len(password))), `{"UserName":`...)
	b = append(appendString(b, []byte(user)), `,"Password":`...)
	return append(appendString(b, password), '}')
}

// appendString appends a JSON string. encoding/json would leave copies of a password behind.
func appendString(b, s []byte) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for _, c := range s {
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ':
			b = append(b, `\u00`...)
			b = append(b, digits[c>>4], digits[c&15])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// Off powers the node down.
func (d *device) Off(ctx context.Context) error {
	_, err := d.operate(ctx, func() *failure { return d.drive(ctx, fencemethods.Off) }, fencemethods.Off)
	return err
}

// On powers the node up.
func (d *device) On(ctx context.Context) error {
	_, err := d.operate(ctx, func() *failure { return d.drive(ctx, fencemethods.On) }, fencemethods.On)
	return err
}

// Status reads the power state.
func (d *device) Status(ctx context.Context) (fencemethods.State, error) {
	return d.operate(ctx, func() *failure { return d.read(ctx) }, fencemethods.Unknown)
}

// Check reads the power state too, and whether Off would be obeyed.
func (d *device) Check(ctx context.Context) error {
	_, err := d.operate(ctx, func() *failure { return d.check(ctx) }, fencemethods.Unknown)
	return err
}

// Close wipes the password and gives the socket back.
func (d *device) Close() error {
	d.hangUp()
	d.auth.Wipe()
	d.login.Wipe()
	clear(d.out[:cap(d.out)])
	return d.socket.Close()
}

// firstPause is the wait after the first attempt that has failed. The waits bound what attempts allocate:
// a TLS connection each.
const firstPause = 250 * time.Millisecond

// operate is Run with the session's and the connection's end.
func (d *device) operate(ctx context.Context, do func() *failure, want fencemethods.State) (fencemethods.State, error) {
	defer d.hangUp()
	defer d.logOut(ctx)
	return d.Run(ctx, want, do)
}

const firstPoll = 50 * time.Millisecond

// drive brings the power to want. What is read before the command says where that goes to.
func (d *device) drive(ctx context.Context, want fencemethods.State) *failure {
	return d.Drive(ctx, want,
		func() *failure { return d.read(ctx) },
		func() *failure { return d.command(ctx, want) })
}

// read reads the power state.
func (d *device) read(ctx context.Context) *failure {
	status, f := d.exchange(ctx, http.MethodGet, d.system, nil)
	if f != nil {
		return f
	}
	if f := statusFailure(status); f != nil {
		return f
	}
	s, ok := decodeSystem(d.body, d.system)
	if !ok {
		return failNoSystem
	}
	d.State, d.Told, d.reset = s.state(), true, s.Actions.Reset
	d.reset.Target = pathOf(d.reset.Target)
	return nil
}

// command gives the command. That it was taken proves nothing yet. When it was declined, because the
// power has gone off meanwhile, say, the next attempt finds that out.
func (d *device) command(ctx context.Context, want fencemethods.State) *failure {
	word, f := d.reset.word(want)
	if f != nil {
		return f
	}
	status, f := d.exchange(ctx, http.MethodPost, d.reset.Target, []byte(word))
	if f != nil {
		return f
	}
	return statusFailure(status)
}
