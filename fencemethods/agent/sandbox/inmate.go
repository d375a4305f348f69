// SPDX-License-Identifier: GPL-2.0-only

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// An inmate is a process that waits in a jail, Inside.
type inmate struct {
	cmd            *exec.Cmd
	control        *os.File
	said           chan string // what it says; closed when it is gone
	why            string      // nothing could be run
	stdout, stderr tail        // for who has buried it
	outputs        sync.WaitGroup
}

// readyTime bounds the furnishing of a jail.
const readyTime = 10 * time.Second

// imprison starts a process in the group and returns when it waits there.
func (s *Server) imprison(g *group, program string) (*inmate, error) {
	ours, theirs, err := controlPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	i := &inmate{control: ours, said: make(chan string, 2)}
	i.cmd = exec.Command(s.self, insideArg, program)
	i.cmd.Dir, i.cmd.Env = "/", []string{}
	i.cmd.ExtraFiles = []*os.File{theirs}
	i.cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC,
		UseCgroupFD: true, CgroupFD: int(g.dir.Fd()),
		Setsid: true,
	}
	if err := i.start(); err != nil {
		ours.Close()
		return nil, err
	}
	select {
	case packet := <-i.said:
		what, arg := word(packet)
		if what == saidReady {
			return i, nil
		}
		err = fmt.Errorf("the jail could not be furnished: %s", arg)
	case <-time.After(readyTime):
		err = errors.New("the jail could not be furnished in time")
	}
	if killed := g.kill(); killed != nil {
		return nil, errors.Join(err, killed)
	}
	return nil, errors.Join(err, i.bury())
}

// controlPair are the two ends of the line between the server and the process inside.
func controlPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	// The process inside has a blocking one.
	if err := unix.SetNonblock(fds[1], false); err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control"), nil
}

// start starts the process and what listens to it.
func (i *inmate) start() error {
	i.cmd.Stdout, i.cmd.Stderr = &i.stdout, &i.stderr // copied by goroutines of package exec
	if err := i.cmd.Start(); err != nil {
		return err
	}
	i.outputs.Go(func() {
		defer close(i.said)
		b := make([]byte, 4096)
		for {
			n, err := i.control.Read(b)
			if err != nil || n == 0 {
				return
			}
			i.said <- string(b[:n])
		}
	})
	return nil
}

// bury waits for an inmate that was killed, and so for the end of its outputs.
func (i *inmate) bury() error {
	err := i.cmd.Wait()
	i.control.Close()
	i.outputs.Wait()
	if _, ok := errors.AsType[*exec.ExitError](err); ok {
		return nil
	}
	return err
}

// run runs the program in the jail, for as long as it may and is wanted.
func (c *cell) run(m message) {
	// The client's clock runs since it has asked, and the last jail may only now have been furnished.
	timer := time.NewTimer(time.Until(m.came.Add(time.Duration(m.args[0]) * time.Millisecond)))
	defer timer.Stop()
	if err := c.begin(m.body); err != nil {
		c.refuse(m.seq, err)
		return
	}
	i, g := c.inmate, c.group
	before := g.kills()
	answer := message{verb: verbEnded, seq: m.seq}
	answer.end, answer.args[0] = c.await(i, m.seq, timer.C)
	if g.kills() > before {
		answer.end, answer.args[0] = Memory, 0
	}
	// Whatever it has left behind goes with it.
	c.empty()
	if c.group != nil { // all outputs have ended
		answer.body = append(answer.body, i.stdout.b...)
		answer.args[1] = len(answer.body)
		answer.body = append(append(answer.body, i.stderr.b...), i.why...)
	}
	c.send(answer)
	clear(answer.body)
	if err := c.fill(); err != nil {
		c.server.log("%s: %v", c.program, err) // and is tried again when it is needed
	}
}

// begin gives the process that waits its standard input. One that has died while it waited has begun
// nothing, so that another one may.
func (c *cell) begin(stdin []byte) error {
	packet := append(stdin, 0)
	defer clear(packet)
	if c.inmate != nil {
		if _, err := c.inmate.control.Write(packet); err == nil {
			return nil
		}
		c.empty()
	}
	if err := c.fill(); err != nil {
		return err
	}
	_, err := c.inmate.control.Write(packet)
	return err
}

// await waits for the program's end, its deadline, or the loss of interest.
func (c *cell) await(i *inmate, seq uint64, deadline <-chan time.Time) (End, int) {
	for {
		select {
		case packet, ok := <-i.said:
			if !ok {
				return Signaled, int(unix.SIGKILL)
			}
			return ending(i, packet)
		case <-deadline:
			return Deadline, 0
		case m, ok := <-c.in:
			if !ok || m.verb == verbStop && m.seq == seq {
				return Stopped, 0
			}
			if m.verb == verbRun {
				c.refuse(m.seq, errors.New("one program at a time"))
			}
		}
	}
}

func ending(i *inmate, packet string) (End, int) {
	what, arg := word(packet)
	code, err := strconv.Atoi(arg)
	switch {
	case what == saidExit && err == nil:
		return Exited, code
	case what == saidSignal && err == nil:
		return Signaled, code
	}
	i.why = arg
	return Broken, 0
}
