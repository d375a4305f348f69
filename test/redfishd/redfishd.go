// SPDX-License-Identifier: GPL-2.0-only

// Package redfishd is a BMC for tests: a Redfish service over TLS that switches a Power. It speaks
// Redfish (DSP0266, and the schemas of DSP0268) well enough for Debian's redfishtool and
// python3-sushy, and has bad habits that real BMCs have too.
package redfishd

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/o2fence/o2fence/test/bmc"
)

// System is the path of the one ComputerSystem.
const System = "/redfish/v1/Systems/node1"

// A Config is what a BMC shall be like.
type Config struct {
	User     string
	Password string
	Power    bmc.Power
	Habits   Habits
}

// Habits are how a BMC differs from a plain one, which the zero value is.
type Habits struct {
	Delay       time.Duration // before each answer
	Acknowledge int           // HTTP status of a reset that is carried out; 0 is 204
	Decline     int           // HTTP status of any reset, none of which is carried out; 0 is none
	Pending     bool          // says PoweringOff or PoweringOn from a reset until it has taken effect
	State       string        // says this PowerState, JSON as it is, whatever the power
	Foreign     bool          // answers with another system than the one asked for
	Values      []string      // the ResetTypes that it says it takes; nil is all
	Info        bool          // says so in an ActionInfo only
	Mum         bool          // does not say so at all
	Role        string        // of the user; "" is Operator
	NoBasic     bool          // takes sessions only
	Sessions    int           // how many sessions it can have; 0 is many, -1 none
	OldSessions bool          // has them opened where only its root says
	Slash       bool          // has its paths end in a slash
	Length      int           // of a system's document at least, in bytes
	Whole       bool          // writes whole URLs, not paths
	Target      *string       // says that this is where to reset the system
	Twice       bool          // gives each answer twice
}

// A Server is a running BMC.
type Server struct {
	config Config
	keys   *keys
	addr   netip.AddrPort

	mu       sync.Mutex
	habits   Habits
	http     *http.Server
	sessions map[string]string // token to the session's number
	count    int               // of sessions ever
	goal     *bool             // of the last reset
	seen     Seen
}

// Seen is what a Server has been asked.
type Seen struct {
	Requests    int // all of them
	Logins      int // requests for a session
	Credentials int // requests that held credentials, good or bad
	Resets      []string
	Connections int
}

// Start starts a BMC at a free port of 127.0.0.1.
func Start(c Config) (*Server, error) {
	k, err := newKeys()
	if err != nil {
		return nil, err
	}
	s := &Server{config: c, keys: k, habits: c.Habits, addr: netip.MustParseAddrPort("127.0.0.1:0")}
	return s, s.start()
}

// Addr is where it listens.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Fingerprint is the SHA-256 of its certificate, in hexadecimal digits.
func (s *Server) Fingerprint() string { return s.keys.fingerprint() }

// CA is the certificate of the CA that issued its own, as PEM.
func (s *Server) CA() []byte { return s.keys.caPEM }

// SetHabits makes it another BMC from the next request on.
func (s *Server) SetHabits(h Habits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.habits = h
}

// Seen returns what it has been asked.
func (s *Server) Seen() Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// OpenSessions is how many sessions are open.
func (s *Server) OpenSessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// Restart restarts it: connections and sessions are gone.
func (s *Server) Restart() error {
	if err := s.Close(); err != nil {
		return err
	}
	return s.start()
}

// Close stops it.
func (s *Server) Close() error {
	s.mu.Lock()
	h := s.http
	s.mu.Unlock()
	return h.Close()
}

func (s *Server) start() error {
	l, err := net.Listen("tcp4", s.addr.String())
	if err != nil {
		return err
	}
	s.addr = l.Addr().(*net.TCPAddr).AddrPort()
	h := &http.Server{
		Handler:  s.handler(),
		ErrorLog: log.New(quiet{}, "", 0),
		ConnState: func(_ net.Conn, state http.ConnState) {
			if state == http.StateNew {
				s.note(func(seen *Seen) { seen.Connections++ })
			}
		},
	}
	s.mu.Lock()
	s.http, s.sessions = h, make(map[string]string)
	s.mu.Unlock()
	go func() { _ = h.Serve(tls.NewListener(l, s.keys.config())) }()
	return nil
}

// quiet takes the complaints about connections that tests break.
type quiet struct{}

func (quiet) Write(b []byte) (int, error) { return len(b), nil }

func (s *Server) note(f func(*Seen)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.seen)
}

func (s *Server) now() Habits {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.habits
}

// powerState is what the system says of its power.
func (s *Server) powerState(h Habits) string {
	if h.State != "" {
		return h.State
	}
	on, err := s.config.Power.On()
	if err != nil {
		return "null"
	}
	s.mu.Lock()
	goal := s.goal
	s.mu.Unlock()
	if h.Pending && goal != nil && *goal != on {
		return map[bool]string{true: `"PoweringOn"`, false: `"PoweringOff"`}[*goal]
	}
	return map[bool]string{true: `"On"`, false: `"Off"`}[on]
}

var errResetType = errors.New("no such ResetType")

func (s *Server) reset(kind string) error {
	s.note(func(seen *Seen) { seen.Resets = append(seen.Resets, kind) })
	switch kind {
	case "On", "ForceOn":
		return s.set(true)
	case "ForceOff":
		return s.set(false)
	case "GracefulShutdown", "GracefulRestart":
		return nil // which a node that hangs does not heed
	case "ForceRestart":
		return s.config.Power.Reset()
	}
	return fmt.Errorf("%w: %q", errResetType, kind)
}

func (s *Server) set(on bool) error {
	s.mu.Lock()
	s.goal = &on
	s.mu.Unlock()
	return s.config.Power.SetOn(on)
}
