// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/o2fence/o2fence/fencemethods/sbd"
)

// msgwait is that of the disk, in seconds: the least that sbd allows with the shortest watchdog.
const msgwait = 3

// startSBD makes a disk, a file behind a loop device, and a node that reads its mailbox. Loop devices
// need root.
func startSBD(ctx context.Context, dir string, m *machine) (*pair, error) {
	n := &mailbox{machine: m, done: make(chan struct{})}
	if err := n.format(ctx, filepath.Join(dir, "disk")); err != nil {
		return nil, err
	}
	m.before = n.clear
	n.ended.Go(n.obey)
	return open(sbd.Method(), dir, n.close, map[string]string{"disks": n.loop, "slot": "node1", "io": "1"},
		agent{program: "sbd", args: []string{"-d", n.loop, "-n", "bench", "message", "node1", "reset"}})
}

// A mailbox is the only one of a disk, and the node that reads it.
type mailbox struct {
	machine *machine
	file    *os.File
	loop    string

	mu    sync.Mutex
	told  bool // what is there was obeyed
	done  chan struct{}
	ended sync.WaitGroup
}

// Where the first slot's mailbox is, in sectors of 512 bytes, and how many sectors a disk has.
const (
	mailAt  = 2 * 512
	sectors = 2*255 + 1
)

func (n *mailbox) format(ctx context.Context, name string) (err error) {
	if n.file, err = os.Create(name); err != nil {
		return err
	}
	if err := n.file.Truncate(sectors * 512); err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, "losetup", "--find", "--show", name).Output()
	if err != nil {
		return fmt.Errorf("losetup: %w: are you root?", err)
	}
	n.loop = strings.TrimSpace(string(out))
	for _, args := range [][]string{{"-1", "1", "-4", fmt.Sprint(msgwait), "-2", "0", "create"}, {"allocate", "node1"}} {
		if out, err := exec.CommandContext(ctx, "sbd", append([]string{"-d", n.loop}, args...)...).CombinedOutput(); err != nil {
			return errors.Join(fmt.Errorf("sbd: %w\n%s", err, out), n.detach())
		}
	}
	return nil
}

// clear empties the mailbox.
func (n *mailbox) clear() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.told = false
	_, err := n.file.WriteAt(make([]byte, 512), mailAt)
	return err
}

// obey switches the machine off when there is a message.
func (n *mailbox) obey() {
	for {
		select {
		case <-n.done:
			return
		case <-time.After(20 * time.Millisecond):
		}
		n.mu.Lock()
		var command [1]byte
		if _, err := n.file.ReadAt(command[:], mailAt); err == nil && command[0] != 0 && !n.told {
			n.told = n.machine.SetOn(false) == nil
		}
		n.mu.Unlock()
	}
}

func (n *mailbox) close() error {
	close(n.done)
	n.ended.Wait()
	return n.detach()
}

func (n *mailbox) detach() error {
	return errors.Join(exec.Command("losetup", "--detach", n.loop).Run(), n.file.Close())
}
