// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"

	"github.com/o2fence/o2fence/test/bench/upcall/sample"
)

// pacemaker is a pacemaker-fenced on its own, with a client of it that stays connected.
type pacemaker struct {
	daemon, client *exec.Cmd
	in             io.WriteCloser
	out            *bufio.Reader
}

// pacemaker makes a way of a fence agent.
func (b *bench) pacemaker(agent string) func() (fencer, error) {
	return func() (fencer, error) {
		d := exec.Command("/run/upcall/pacemaker-fenced", "--stand-alone", "-l", "/run/upcall/pacemaker.log")
		d.Stderr = os.Stderr
		if err := d.Start(); err != nil {
			return nil, err
		}
		c := exec.Command("/run/upcall/pacemaker_client", agent)
		c.Stderr = os.Stderr
		in, err1 := c.StdinPipe()
		out, err2 := c.StdoutPipe()
		if err := errors.Join(err1, err2, c.Start()); err != nil {
			return nil, errors.Join(err, d.Process.Kill(), d.Wait())
		}
		return &pacemaker{d, c, in, bufio.NewReader(out)}, nil
	}
}

func (p *pacemaker) fence(n int) (sample.Round, error) {
	if _, err := fmt.Fprintln(p.in, n); err != nil {
		return sample.Round{}, err
	}
	var r sample.Round
	for i := range n {
		var f sample.Fence
		var code int
		if _, err := fmt.Fscanln(p.out, &f.Asked, &f.Fenced, &code); err != nil {
			return r, fmt.Errorf("the client of pacemaker-fenced: %w", err)
		}
		if code != 0 {
			return r, fmt.Errorf("node %d: pacemaker-fenced says %d", i+1, code)
		}
		f.Initiated = f.Asked
		r.Fences = append(r.Fences, f)
	}
	return r, nil
}

func (p *pacemaker) close() error {
	err := errors.Join(p.in.Close(), p.client.Wait(), p.daemon.Process.Signal(syscall.SIGTERM))
	_ = p.daemon.Wait() // by that signal
	return err
}
