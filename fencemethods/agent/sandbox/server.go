// SPDX-License-Identifier: GPL-2.0-only

package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Server keeps the jails.
type Server struct {
	listener *net.UnixListener
	lock     *os.File
	tree     *tree
	self     string // this program, which is also the one inside

	// Log gets what nobody asked for. It may be nil.
	Log func(format string, args ...any)
}

// insideArg makes this program the process inside a jail.
const insideArg = "inside"

// Listen makes the control group and the socket, which root alone can use. self is a program that
// calls Inside with its second argument when its first one is "inside". The error is ErrNoCGroup
// when programs could not be confined here: then none is run.
func Listen(socket, cgroup, self string) (*Server, error) {
	if err := unflagged(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(socket+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("another server has %s: %w", socket, err)
	}
	tree, err := newTree(cgroup)
	if err != nil {
		lock.Close()
		return nil, err
	}
	listener, err := listen(socket)
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &Server{listener: listener, lock: lock, tree: tree, self: self}, nil
}

func listen(socket string) (*net.UnixListener, error) {
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	mask := unix.Umask(0o177)
	defer unix.Umask(mask)
	return net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
}

// pfMemalloc is PF_MEMALLOC in field 9 of /proc/PID/stat.
const pfMemalloc = 0x800

// unflagged refuses to serve from a process in PF_MEMALLOC mode: its children would be in it too, and
// the kernel charges such a process beyond every limit.
func unflagged() error {
	stat, err := os.ReadFile("/proc/thread-self/stat")
	if err != nil {
		return err
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 7 {
		return errors.New("/proc/thread-self/stat: too few fields")
	}
	flags, err := strconv.ParseUint(string(fields[6]), 10, 64)
	if err == nil && flags&pfMemalloc != 0 {
		err = errors.New("this process is in PF_MEMALLOC mode, and no limit would hold for its children: start it as a service of its own")
	}
	return err
}

// Serve makes a jail for every connection, until ctx ends. Then all jails have ended.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.listener.Close() })
	defer stop()
	defer s.lock.Close()
	var jails sync.WaitGroup
	defer jails.Wait()
	for {
		conn, err := s.listener.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		jails.Go(func() {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			defer conn.Close()
			s.jail(conn)
		})
	}
}

// jail serves one connection.
func (s *Server) jail(conn *net.UnixConn) {
	in := make(chan message)
	gone := make(chan struct{})
	defer close(gone)
	go receive(conn, in, gone)
	c := cell{server: s, conn: conn, in: in}
	defer c.close()
	for m := range in {
		switch {
		case m.verb == verbOpen && !c.opened:
			c.open(m)
		case m.verb == verbRun && c.opened:
			c.run(m)
		case m.verb == verbStop: // what has ended already
		default:
			c.refuse(m.seq, fmt.Errorf("%s: %w", m.verb, ErrMalformed))
		}
		clear(m.body)
	}
}

// receive passes on what comes, until nothing does any more.
func receive(conn *net.UnixConn, in chan<- message, gone <-chan struct{}) {
	defer close(in)
	b := make([]byte, packetMax)
	for {
		n, err := conn.Read(b)
		if err != nil || n == 0 {
			return
		}
		m, err := parse(bytes.Clone(b[:n]))
		m.came = time.Now()
		clear(b[:n])
		if err != nil {
			return
		}
		select {
		case in <- m:
		case <-gone:
			return
		}
	}
}

// A cell is one jail, as its server has it.
type cell struct {
	server  *Server
	conn    *net.UnixConn
	in      <-chan message
	program string
	limits  Limits
	opened  bool
	group   *group  // nil: the last one could not be emptied
	inmate  *inmate // waits for the program's standard input; nil: there is none
}

func (c *cell) open(m message) {
	c.program = string(m.body)
	c.limits = Limits{MinKiB: m.args[0], MaxKiB: m.args[1], Processes: m.args[2]}
	if err := fit(c.program); err != nil {
		c.refuse(m.seq, err)
		return
	}
	if err := c.fill(); err != nil {
		c.refuse(m.seq, err)
		return
	}
	c.opened = true
	c.send(message{verb: verbOpened, seq: m.seq})
}

// fit looks at a program: it will run as root, so nobody else may be able to change it.
func fit(program string) error {
	info, err := os.Stat(program)
	if err != nil {
		return err
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	mode := info.Mode()
	switch {
	case !filepath.IsAbs(program):
		return fmt.Errorf("%s: expected an absolute path", program)
	case !mode.IsRegular() || mode&0o111 == 0:
		return fmt.Errorf("%s: expected an executable file", program)
	case !ok || owner.Uid != 0 || mode&0o022 != 0:
		return fmt.Errorf("%s: others than root can change it", program)
	}
	return nil
}

// fill makes the group and the process that waits in it. One that could not be emptied is left.
func (c *cell) fill() error {
	if c.group == nil {
		g, err := c.server.tree.add(c.limits)
		if err != nil {
			return err
		}
		c.group = g
	}
	i, err := c.server.imprison(c.group, c.program)
	if err != nil {
		c.empty()
		return err
	}
	c.inmate = i
	return nil
}

// empty kills all in the group. If that does not help, another group will be made.
func (c *cell) empty() {
	err := c.group.kill()
	if c.inmate != nil && err == nil {
		c.inmate.bury()
	}
	c.inmate = nil
	if err != nil {
		c.server.log("%v", err)
		c.group = nil
	}
}

func (c *cell) close() {
	if c.group == nil {
		return
	}
	c.empty()
	if c.group != nil {
		if err := c.group.remove(); err != nil {
			c.server.log("%v", err)
		}
	}
}

func (c *cell) refuse(seq uint64, err error) {
	c.send(message{verb: verbRefused, seq: seq, body: []byte(err.Error())})
}

func (c *cell) send(m message) { _, _ = c.conn.Write(m.append(nil)) }

func (s *Server) log(format string, args ...any) {
	if s.Log != nil {
		s.Log(format, args...)
	}
}

// tail keeps the last OutputMax bytes.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if extra := len(t.b) - OutputMax; extra > 0 {
		t.b = append(t.b[:0], t.b[extra:]...)
	}
	return len(p), nil
}

// word cuts what the process inside has said.
func word(packet string) (what, arg string) {
	what, arg, _ = strings.Cut(packet, " ")
	return what, arg
}
