// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/test/pressure/wire"
)

// A sampler looks at the machine. What it reads it has open.
type sampler struct {
	meminfo, vmstat, pressure, reserve *os.File
	buf                                []byte
	stack                              string // of one that is stuck, the first that was seen
}

func newSampler() (*sampler, error) {
	s := &sampler{buf: make([]byte, 64<<10)}
	for name, f := range map[string]**os.File{
		"meminfo": &s.meminfo, "vmstat": &s.vmstat, "pressure/memory": &s.pressure, "sys/vm/min_free_kbytes": &s.reserve,
	} {
		var err error
		if *f, err = os.Open("/proc/" + name); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s *sampler) sample() (wire.Sample, error) {
	var m wire.Sample
	if err := s.counters(&m); err != nil {
		return m, err
	}
	return m, s.tasks(&m)
}

func (s *sampler) counters(m *wire.Sample) error {
	mem, err := s.fields(s.meminfo)
	if err != nil {
		return err
	}
	m.Free, m.Available = mem["MemFree:"], mem["MemAvailable:"]
	m.Dirty, m.Writeback, m.SwapFree = mem["Dirty:"], mem["Writeback:"], mem["SwapFree:"]
	vm, err := s.fields(s.vmstat)
	if err != nil {
		return err
	}
	m.DirtyLimit = vm["nr_dirty_threshold"] * os.Getpagesize() >> 10
	m.OOMKills = vm["oom_kill"]
	for name, n := range vm {
		if strings.HasPrefix(name, "allocstall_") {
			m.Stalls += n
		}
	}
	text, err := s.read(s.reserve)
	if err != nil {
		return err
	}
	if _, err = fmt.Sscan(string(text), &m.Reserve); err != nil {
		return err
	}
	text, err = s.read(s.pressure)
	if err != nil {
		return err
	}
	if _, full, ok := strings.Cut(string(text), "full avg10="); ok {
		_, err = fmt.Sscan(full, &m.Full)
	}
	return err
}

func (s *sampler) read(f *os.File) ([]byte, error) {
	n, err := unix.Pread(int(f.Fd()), s.buf, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return s.buf[:n], nil
}

// fields are the numbers of a file of lines that begin with a name and a number.
func (s *sampler) fields(f *os.File) (map[string]int, error) {
	text, err := s.read(f)
	if err != nil {
		return nil, err
	}
	all := make(map[string]int, 200)
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		if n, err := strconv.Atoi(words[1]); err == nil {
			all[words[0]] = n
		}
	}
	return all, nil
}

// tasks counts the blocked ones, by where they wait. A task that ends meanwhile is nobody's loss.
func (s *sampler) tasks(m *wire.Sample) error {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, p := range processes {
		if _, err := strconv.Atoi(p.Name()); err != nil {
			continue
		}
		tasks, err := os.ReadDir("/proc/" + p.Name() + "/task")
		if err != nil {
			continue
		}
		for _, t := range tasks {
			s.task("/proc/"+p.Name()+"/task/"+t.Name(), m)
		}
	}
	return nil
}

func (s *sampler) task(dir string, m *wire.Sample) {
	stat, err := os.ReadFile(dir + "/stat")
	end := bytes.LastIndexByte(stat, ')')
	if err != nil || end < 0 || len(stat) < end+3 || stat[end+2] != 'D' {
		return
	}
	name := string(stat[bytes.IndexByte(stat, '(')+1 : end])
	text, err := os.ReadFile(dir + "/stack")
	if err != nil {
		return
	}
	m.Blocked++
	stack := string(text)
	if !strings.Contains(stack, "[ocfs2") {
		return
	}
	what := "lock"
	if strings.Contains(stack, "shrink_") {
		what = "reclaim"
		m.Stuck++
		m.Kswapd = m.Kswapd || strings.HasPrefix(name, "kswapd")
		if s.stack == "" {
			s.stack = name + ":\n" + stack
		}
	} else if strings.Contains(stack, "dlm") {
		m.Locks++
	}
	if len(m.Who) < 400 {
		m.Who += name + "(" + what + ") "
	}
}
