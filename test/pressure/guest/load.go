// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// files makes so many files in a new directory. The node that makes them is the master of their locks.
func files(args []string) error {
	dir, n, err := dirAndCount(args)
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for i := range n {
		f, err := os.Create(filepath.Join(dir, strconv.Itoa(i)))
		if err != nil {
			return err
		}
		f.Close()
	}
	return nil
}

// lookers look at the same time: each look is several messages to the master of a lock.
const lookers = 8

// look has all of them in this node's caches, each with a lock that the other node is master of. With a
// directory of control groups it does so in many of them, as a machine with many services would: who
// reclaims memory takes from one group after another.
func look(args []string) error {
	fs := flag.NewFlagSet("look", flag.ExitOnError)
	groups := fs.Int("groups", 0, "control groups below /sys/fs/cgroup")
	_ = fs.Parse(args)
	dir, n, err := dirAndCount(fs.Args())
	if err != nil {
		return err
	}
	if *groups == 0 {
		return lookAt(dir, 0, n)
	}
	for g := range *groups {
		if err := enterGroup(fmt.Sprintf("/sys/fs/cgroup/look%d", g)); err != nil {
			return err
		}
		if err := lookAt(dir, g*n / *groups, (g+1)*n / *groups); err != nil {
			return err
		}
	}
	return enterGroup("/sys/fs/cgroup")
}

func enterGroup(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

func lookAt(dir string, from, to int) error {
	errs := make([]error, lookers)
	var wg sync.WaitGroup
	for l := range lookers {
		wg.Go(func() {
			for i := from + l; i < to && errs[l] == nil; i += lookers {
				_, errs[l] = os.Stat(filepath.Join(dir, strconv.Itoa(i)))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func dirAndCount(args []string) (string, int, error) {
	if len(args) != 2 {
		return "", 0, errors.New("want a directory and a number of files")
	}
	n, err := strconv.Atoi(args[1])
	return args[0], n, err
}

// write makes pages of one file dirty for ever, all over it, as fast as it is let.
func write(args []string) error {
	if len(args) != 2 {
		return errors.New("want a file and its size in MiB")
	}
	mib, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	f, err := os.OpenFile(args[0], os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	page := make([]byte, os.Getpagesize())
	for {
		at := rand.Int64N(int64(mib) << 20 / int64(len(page)))
		if _, err := f.WriteAt(page, at*int64(len(page))); err != nil {
			return err
		}
	}
}

// hog takes memory until it is killed for it, and begins again. Who is killed is always the part of it
// that takes.
func hog(args []string) error {
	fs := flag.NewFlagSet("hog", flag.ExitOnError)
	take := fs.Bool("take", false, "be the part that takes")
	_ = fs.Parse(args)
	if *take {
		return takeAll()
	}
	// This process must not be killed itself, nor wait for memory that it does not need to have.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		return err
	}
	for {
		cmd := exec.Command("/proc/self/exe", "hog", "-take")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			time.Sleep(100 * time.Millisecond)
			continue
		}
		_ = cmd.Wait()
	}
}

// eaterPID is where the measuring process finds who is to end with the phase.
const eaterPID = "/run/pressure/eater.pid"

// eat takes what is left as soon as somebody leaves it, so that memory does not become free while those who
// want it are stuck. It does not get stuck itself: a task that must not start I/O (PR_SET_IO_FLUSHER) does
// not call the shrinkers of file systems.
func eat([]string) error {
	if err := unix.Prctl(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0); err != nil {
		return err
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-1000"), 0); err != nil {
		return err
	}
	if err := os.WriteFile(eaterPID, []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
		return err
	}
	for {
		m, err := unix.Mmap(-1, 0, step, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		touch(m)
	}
}

// endEater ends it, if there is one.
func endEater() error {
	text, err := os.ReadFile(eaterPID)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	pid, err := strconv.Atoi(string(text))
	if err != nil {
		return err
	}
	return unix.Kill(pid, unix.SIGKILL)
}

const step = 1 << 20

// takeAll takes memory a step at a time.
func takeAll() error {
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0); err != nil {
		return err
	}
	for {
		m, err := unix.Mmap(-1, 0, step, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
		if err != nil {
			return err
		}
		touch(m)
	}
}

func touch(m []byte) {
	for i := 0; i < len(m); i += 4096 {
		m[i]++
	}
}
