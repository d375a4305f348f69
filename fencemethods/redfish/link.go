// SPDX-License-Identifier: GPL-2.0-only

package redfish

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// sessions is where a session is opened, unless the root says otherwise (DSP0266, "Redfish session
// login authentication"; DSP0268, SessionCollection).
const sessions = "/redfish/v1/SessionService/Sessions"

// exchange asks once and leaves the answer in d.body. It connects and logs in where needed.
func (d *device) exchange(ctx context.Context, method, path string, body []byte) (status int, f *failure) {
	if d.login != nil && d.token == "" {
		if f := d.logIn(ctx); f != nil {
			return 0, f
		}
	}
	status, _, f = d.ask(ctx, method, path, body)
	if status == http.StatusUnauthorized {
		d.token = "" // the BMC has forgotten it: it restarted, or somebody closed the session
	}
	return status, f
}

// logIn opens a session.
func (d *device) logIn(ctx context.Context) *failure {
	status, header, f := d.ask(ctx, http.MethodPost, d.sessions, d.login)
	if f == nil && status == http.StatusNotFound && d.findSessions(ctx) {
		status, header, f = d.ask(ctx, http.MethodPost, d.sessions, d.login)
	}
	if f != nil {
		return f
	}
	if f := statusFailure(status); f == failNoPath || f == failRights {
		return failPassword // what some say of a wrong password
	} else if f != nil {
		return f
	}
	d.token, d.session = header.Get("X-Auth-Token"), pathOf(header.Get("Location"))
	if d.token == "" || len(d.token) > 1024 {
		d.token = ""
		return failGarbage
	}
	return nil
}

// findSessions learns where to open a session. Older BMCs have another place for it.
func (d *device) findSessions(ctx context.Context) bool {
	status, _, f := d.ask(ctx, http.MethodGet, "/redfish/v1/", nil)
	if f != nil || statusFailure(status) != nil {
		return false
	}
	path, ok := decodeSessions(d.body)
	if ok {
		d.sessions = path
	}
	return ok
}

// pathOf returns the path of a URI that a BMC gave, "" for one that has none. BMCs write whole URLs
// too, with whatever they take for their host; we stay with the one that we have recognized.
func pathOf(uri string) string {
	u, err := url.Parse(uri)
	if err != nil || !isPath(u.EscapedPath()) {
		return ""
	}
	return u.EscapedPath()
}

// logOutTime is what a session's end may take. Nobody waits for it but the fence: BMCs close
// forgotten sessions by themselves, after half an hour.
const logOutTime = 500 * time.Millisecond

// logOut closes the session, if the connection still stands.
func (d *device) logOut(ctx context.Context) {
	if d.token != "" && d.session != "" && d.conn != nil && !d.Over(ctx) {
		if until := time.Now().Add(logOutTime); until.Before(d.Deadline) {
			d.Deadline = until
		}
		_, _, _ = d.ask(ctx, http.MethodDelete, d.session, nil)
	}
	d.token, d.session = "", ""
}

// ask asks once, logged in or not. An answer is the answer to this question because one question is
// under way at a time, and the connection is given up as soon as anything goes amiss on it.
func (d *device) ask(ctx context.Context, method, path string, body []byte) (int, http.Header, *failure) {
	until, cut := d.Until(d.patience)
	if d.conn == nil {
		if err := d.connect(ctx, until); err != nil {
			d.hangUp()
			return 0, nil, linkFailure(err, cut)
		}
		until, cut = d.Until(d.patience)
	}
	d.conn.Limit(until)
	d.out = d.appendRequest(d.out[:0], method, path, body)
	d.asked.Method = method
	status, header, err := d.talk()
	if err != nil {
		d.hangUp()
		return 0, nil, linkFailure(err, cut)
	}
	d.Heard = true
	return status, header, nil
}

// connect connects and recognizes the BMC. Before that nothing is sent that is secret.
func (d *device) connect(ctx context.Context, until time.Time) error {
	conn, err := d.socket.Connect(ctx, until)
	if err != nil {
		return err
	}
	d.conn = conn
	secure := tls.Client(conn, d.config)
	if err := secure.Handshake(); err != nil {
		return err
	}
	d.secure = secure
	d.in.Reset(secure)
	return nil
}

func (d *device) hangUp() {
	if d.conn != nil {
		// Without TLS's good-bye, which might have to wait.
		d.conn.Close()
		d.conn, d.secure = nil, nil
		d.in.Reset(nil)
	}
}

func (d *device) appendRequest(b []byte, method, path string, body []byte) []byte {
	b = append(append(append(b, method...), ' '), path...)
	b = append(append(b, " HTTP/1.1\r\nHost: "...), d.host...)
	b = append(b, "\r\nUser-Agent: o2fence\r\nAccept: application/json\r\nOData-Version: 4.0\r\nCache-Control: no-cache\r\n"...)
	b = append(b, d.auth...)
	if d.token != "" {
		b = append(append(append(b, "X-Auth-Token: "...), d.token...), "\r\n"...)
	}
	if body != nil {
		b = append(b, "Content-Type: application/json\r\nContent-Length: "...)
		b = append(strconv.AppendInt(b, int64(len(body)), 10), "\r\n"...)
	}
	return append(append(b, "\r\n"...), body...)
}

var errTooLong = errors.New("answer too long")

// talk sends what is in d.out and reads the answer to it.
func (d *device) talk() (int, http.Header, error) {
	if _, err := d.secure.Write(d.out); err != nil {
		return 0, nil, err
	}
	d.body = d.body[:0]
	answer, err := http.ReadResponse(d.in, &d.asked)
	if err != nil {
		return 0, nil, err
	}
	if answer.StatusCode < 200 {
		return 0, nil, errors.New("an answer that is none")
	}
	for err == nil && len(d.body) < cap(d.body) {
		var n int
		n, err = answer.Body.Read(d.body[len(d.body):cap(d.body)])
		d.body = d.body[:len(d.body)+n]
	}
	switch {
	case err == nil:
		return 0, nil, errTooLong
	case err != io.EOF:
		return 0, nil, err
	}
	if answer.Close || d.in.Buffered() > 0 {
		// Who answers more than was asked would be out of step from here on.
		d.hangUp()
	}
	return answer.StatusCode, answer.Header, nil
}

// linkFailure tells what an error of the connection means; cut says that time was up.
func linkFailure(err error, cut bool) *failure {
	if other, ok := errors.AsType[otherCertificate](err); ok {
		return failOther(other)
	}
	if untrusted(err) {
		return failUntrusted
	}
	if f := failures.Link(err, cut); f != nil {
		return f
	}
	if errors.Is(err, errTooLong) {
		return failTooLong
	}
	if call, ok := errors.AsType[*os.SyscallError](err); ok {
		return &failure{
			Kind: fencemethods.ErrUnreachable, Detail: call.Error(),
			Advice: "check addr, and this node's routes and packet filter",
		}
	}
	// Package tls calls the other end's alerts by no exported type.
	alert, ok := errors.AsType[*net.OpError](err)
	if _, plain := errors.AsType[tls.RecordHeaderError](err); plain || ok && alert.Op == "remote error" {
		return failTLS
	}
	return failGarbage
}

func untrusted(err error) bool {
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok {
		_, ok = errors.AsType[x509.CertificateInvalidError](err)
	}
	return ok
}
