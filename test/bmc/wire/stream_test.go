// SPDX-License-Identifier: GPL-2.0-only

package wire

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"
	"time"
)

// startStreamEcho starts a device that answers with what it hears, and a wire of lines to it.
func startStreamEcho(t *testing.T) *Stream {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				_, _ = io.Copy(c, c)
				c.Close()
			}()
		}
	}()
	s, err := NewLines("tcp4", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func dial(t *testing.T, s *Stream) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp4", fmt.Sprint("127.0.0.1:", s.Port()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestFaultsOfAStreamAreWhatTheySay(t *testing.T) {
	for _, c := range []struct {
		name    string
		fault   Fault
		answers []string
	}{
		{"none", nil, []string{"one", "two"}},
		{"cut", Cut, nil},
		{"mute", Mute, nil},
		{"double", Double, []string{"one", "one", "two", "two"}},
		{"shuffle", Shuffle, []string{"two", "one"}},
		{"truncate", Truncate, []string{"o", "t"}},
		{"corrupt", Corrupt(), []string{"ond", "two"}},
		{"noise", Noise, []string{"", "\x06\x00\xff\x07garbage", "", "o", "on", "one", "", "\x06\x00\xff\x07garbage", "", "t", "tw", "two"}},
		{"forgery", Forgery, []string{"one", "two"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := startStreamEcho(t)
			s.SetFault(c.fault)
			conn := dial(t, s)
			fmt.Fprint(conn, "one\ntwo\n")
			_ = conn.SetReadDeadline(time.Now().Add(quiet))
			var answers []string
			for lines := bufio.NewScanner(conn); lines.Scan(); {
				answers = append(answers, lines.Text())
			}
			if !slices.Equal(answers, c.answers) {
				t.Errorf("%q, want %q", answers, c.answers)
			}
		})
	}
}

// One end's going away has to reach the other, or a client waits for a device that is gone.
func TestAStreamEndsWithEitherEnd(t *testing.T) {
	s := startStreamEcho(t)
	c := dial(t, s)
	fmt.Fprintln(c, "hello")
	if _, err := bufio.NewReader(c).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the connection stands: %v", err)
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}
