// SPDX-License-Identifier: GPL-2.0-only

package snmpd

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// An Object is one that the agent serves for its caller. Its functions may be called at any time.
type Object struct {
	Name string          // absolute, from ".1"
	Root string          // the subtree that it is registered with; snmpd starts one hook for each
	Get  func() any      // an int or a string; nil means that there is no such object now
	Set  func(int) error // takes a command, an error is a wrong value; nil is a read-only object
}

// An objectServer serves the objects to snmpd by its pass_persist protocol (snmpd.conf(5)). What
// snmpd runs as its hook is two cats to a loopback port.
type objectServer struct {
	objects  []Object
	token    string // keeps other users of this machine out
	listener net.Listener
	wg       sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
}

func newObjectServer(objects []Object) (*objectServer, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &objectServer{objects: slices.Clone(objects), token: rand.Text(), listener: l}
	slices.SortFunc(s.objects, func(a, b Object) int { return slices.Compare(numbers(a.Name), numbers(b.Name)) })
	s.wg.Go(s.serve)
	return s, nil
}

// numbers are those of an object's name, which are in order where the names are not.
func numbers(name string) []int {
	var numbers []int
	for word := range strings.SplitSeq(strings.TrimPrefix(name, "."), ".") {
		n, _ := strconv.Atoi(word)
		numbers = append(numbers, n)
	}
	return numbers
}

func (s *objectServer) roots() []string {
	var roots []string
	for _, o := range s.objects {
		if !slices.Contains(roots, o.Root) {
			roots = append(roots, o.Root)
		}
	}
	return roots
}

func (s *objectServer) hook() string {
	return fmt.Sprintf(`#!/bin/bash
exec 3<>/dev/tcp/127.0.0.1/%d || exit 1
echo %s >&3
cat <&3 &
exec cat >&3
`, s.listener.Addr().(*net.TCPAddr).Port, s.token)
}

func (s *objectServer) close() {
	s.listener.Close()
	s.mu.Lock()
	for _, c := range s.conns {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *objectServer) serve() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.mu.Lock()
		s.conns = append(s.conns, c)
		s.mu.Unlock()
		s.wg.Go(func() {
			defer c.Close()
			s.talk(c)
		})
	}
}

func (s *objectServer) talk(c io.ReadWriter) {
	lines := bufio.NewScanner(c)
	if !lines.Scan() || lines.Text() != s.token {
		return
	}
	next := func() string { lines.Scan(); return lines.Text() }
	for lines.Scan() {
		var answer string
		switch lines.Text() {
		case "PING":
			answer = "PONG"
		case "get":
			answer = s.get(next())
		case "getnext":
			answer = s.next(next())
		case "set":
			answer = s.set(next(), next())
		default: // an empty line ends a set, from some versions on
			continue
		}
		fmt.Fprintln(c, answer)
	}
}

const none = "NONE"

func (s *objectServer) get(name string) string {
	i := slices.IndexFunc(s.objects, func(o Object) bool { return o.Name == name })
	if i < 0 {
		return none
	}
	return s.objects[i].line()
}

func (s *objectServer) next(name string) string {
	asked := numbers(name)
	for _, o := range s.objects {
		within := strings.HasPrefix(name+".", o.Root+".")
		if within && slices.Compare(numbers(o.Name), asked) > 0 {
			if line := o.line(); line != none {
				return line
			}
		}
	}
	return none
}

func (o Object) line() string {
	switch value := o.Get().(type) {
	case int:
		return fmt.Sprintf("%s\ninteger\n%d", o.Name, value)
	case string:
		return fmt.Sprintf("%s\nstring\n%s", o.Name, value)
	default:
		return none
	}
}

// set takes "integer 2", or another type and value, for an object.
func (s *objectServer) set(name, value string) string {
	i := slices.IndexFunc(s.objects, func(o Object) bool { return o.Name == name })
	if i < 0 || s.objects[i].Set == nil {
		return "not-writable"
	}
	n, isNumber := strings.CutPrefix(value, "integer ")
	number, err := strconv.Atoi(n)
	if !isNumber || err != nil {
		return "wrong-type"
	}
	if err := s.objects[i].Set(number); err != nil {
		return "wrong-value"
	}
	return "DONE"
}
