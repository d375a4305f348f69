// SPDX-License-Identifier: GPL-2.0-only

package bmc

import (
	"bufio"
	"crypto/rand"
	"fmt"
	"net"
	"strings"
	"sync"
)

// A Power is the machine behind a BMC: a QEMU process in the demo, a pretended one in most tests.
// Its methods may be called at any time, one after another; an error reaches whoever asked the BMC
// as a completion code.
type Power interface {
	On() (bool, error)
	SetOn(on bool) error
	Reset() error
}

// A powerServer lets the BMC, another process, use a Power. It listens on loopback; a question is
// one connection and one line, "TOKEN get power" or "TOKEN set power 0", the answer an exit status
// on a line of its own and then the text for it. That is ipmi_sim's hook contract, so its hook only
// has to pass it on.
type powerServer struct {
	power    Power
	token    string // keeps other users of this machine from switching nodes off
	listener net.Listener
	wg       sync.WaitGroup
}

func newPowerServer(p Power) (*powerServer, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &powerServer{power: p, token: rand.Text(), listener: l}
	s.wg.Go(s.serve)
	return s, nil
}

func (s *powerServer) port() int { return s.listener.Addr().(*net.TCPAddr).Port }

func (s *powerServer) close() {
	s.listener.Close()
	s.wg.Wait()
}

// serve takes one question at a time, as a BMC asks them.
func (s *powerServer) serve() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		line, _ := bufio.NewReader(c).ReadString('\n')
		if text, err := s.answer(strings.Fields(line)); err != nil {
			fmt.Fprintf(c, "1\n%s\n", err)
		} else {
			fmt.Fprintf(c, "0\n%s", text)
		}
		c.Close()
	}
}

func (s *powerServer) answer(words []string) (string, error) {
	if len(words) < 3 || words[0] != s.token {
		return "", fmt.Errorf("question not understood")
	}
	switch question := strings.Join(words[1:], " "); {
	case words[1] == "get":
		return s.get(words[2:])
	case question == "set power 0":
		return "", s.power.SetOn(false)
	case question == "set power 1":
		return "", s.power.SetOn(true)
	case question == "set reset 1":
		return "", s.power.Reset()
	default:
		return "", fmt.Errorf("%s: not supported", question)
	}
}

func (s *powerServer) get(names []string) (string, error) {
	var b strings.Builder
	for _, name := range names {
		switch name {
		case "power":
			on, err := s.power.On()
			if err != nil {
				return "", err
			}
			digit := map[bool]int{false: 0, true: 1}[on]
			fmt.Fprintf(&b, "power:%d\n", digit)
		case "boot":
			b.WriteString("boot:default\n")
		default:
			return "", fmt.Errorf("get %s: not supported", name)
		}
	}
	return b.String(), nil
}
