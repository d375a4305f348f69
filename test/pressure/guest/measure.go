// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/memsafe"
	"github.com/o2fence/o2fence/bridge/service"
	"github.com/o2fence/o2fence/test/pressure/wire"
)

// What measures must not wait for memory itself: it keeps the bridge's rules.
var measureBudget = memsafe.Budget{KernelKiB: 4096, HeapKiB: 16 << 10, Threads: 10}

const (
	sampleEvery = 500 * time.Millisecond
	resendAfter = 200 * time.Millisecond
	// Nobody answers for so long when the host has given up.
	hostTime = time.Minute
)

// A meter is the measuring process.
type meter struct {
	host     string
	rounds   map[string]int // of fences, by phase
	patience time.Duration  // with each of them
	names    []string       // of the fencers

	conn    net.Conn
	client  *kernel.Client
	sampler *sampler
	sweeper *service.Sweeper
	fencers []fencer
	seq     int
	number  int  // of the last fence
	told    bool // where one is stuck
	buf     []byte
}

func measure(args []string) error {
	m := &meter{buf: make([]byte, 2048), rounds: map[string]int{}}
	fs := flag.NewFlagSet("measure", flag.ExitOnError)
	fs.StringVar(&m.host, "host", "", "address of the host's end")
	calm := fs.Int("calm", 0, "fences without pressure by each fencer")
	pressed := fs.Int("pressure", 0, "fences with pressure by each fencer")
	fs.DurationVar(&m.patience, "patience", 20*time.Second, "for each fence")
	names := fs.String("fencers", "", "which, separated by commas")
	_ = fs.Parse(args)
	m.rounds[wire.Calm], m.rounds[wire.Pressure] = *calm, *pressed
	if *names != "" {
		m.names = strings.Split(*names, ",")
	}
	ctx := context.Background()
	reserve := memsafe.SystemReserve()
	err := memsafe.Prepare(ctx, memsafe.Plan{
		Name: "pressure", Budget: measureBudget, Reserve: reserve, Flag: service.FlagThread, Open: m.open,
	})
	if err != nil {
		return err
	}
	if err := memsafe.MarkSockets(ctx, m.client); err != nil {
		return err
	}
	m.sweeper = service.NewSweeper(measureBudget.HeapKiB/2, memsafe.Collect)
	err = m.serve()
	if err != nil {
		_, _ = m.tell(wire.Report{Error: err.Error()})
	}
	return errors.Join(err, reserve.Release(ctx))
}

func (m *meter) open() (err error) {
	if m.conn, err = net.Dial("udp4", m.host); err != nil {
		return err
	}
	if m.client, err = kernel.Dial(); err != nil {
		return err
	}
	if m.sampler, err = newSampler(); err != nil {
		return err
	}
	for _, name := range m.names {
		f, err := openFencer(name, m.client)
		if err != nil {
			return err
		}
		m.fencers = append(m.fencers, f)
	}
	return nil
}

// serve samples, and fences in the phases that are for it.
func (m *meter) serve() error {
	done := map[string]bool{}
	for {
		phase, err := m.sample()
		switch {
		case err != nil:
			return err
		case phase == wire.End:
			return nil
		case m.rounds[phase] > 0 && !done[phase]:
			if err := m.fenceAll(phase); err != nil {
				return err
			}
			done[phase] = true
			if err := endEater(); err != nil {
				return err
			}
			if _, err := m.tell(wire.Report{Done: phase}); err != nil {
				return err
			}
		}
		time.Sleep(sampleEvery)
	}
}

func (m *meter) sample() (phase string, err error) {
	m.sweeper.Sweep()
	s, err := m.sampler.sample()
	if err != nil {
		return "", err
	}
	if !m.told && m.sampler.stack != "" {
		m.told = true
		if _, err := m.tell(wire.Report{Stack: m.sampler.stack[:min(len(m.sampler.stack), 1000)]}); err != nil {
			return "", err
		}
	}
	reply, err := m.tell(wire.Report{Sample: &s})
	return reply.Phase, err
}

// fenceAll has all fencers fence again and again: the first by itself, then the others at once. So the
// pressure is the same for all, and who hangs does not make the rest wait.
func (m *meter) fenceAll(phase string) error {
	for range m.rounds[phase] {
		for _, name := range m.names {
			if _, err := m.tell(wire.Report{Power: name}); err != nil {
				return err
			}
		}
		m.number++
		results := make([]wire.Fence, len(m.fencers))
		fence := func(i int) { results[i] = m.fence(i, phase) }
		fence(0)
		var wg sync.WaitGroup
		for i := 1; i < len(m.fencers); i++ {
			wg.Go(func() { fence(i) })
		}
		wg.Wait()
		for i := range results {
			if _, err := m.tell(wire.Report{Fence: &results[i]}); err != nil {
				return err
			}
		}
		if _, err := m.sample(); err != nil {
			return err
		}
	}
	return nil
}

func (m *meter) fence(i int, phase string) wire.Fence {
	took, err := m.fencers[i].fence(m.number, m.patience)
	result := wire.Fence{Fencer: m.names[i], Phase: phase, Took: took, OK: err == nil}
	if err != nil {
		result.Why = fmt.Sprintf("%.200v", err)
	}
	return result
}

// tell sends a report until it is answered.
func (m *meter) tell(r wire.Report) (wire.Reply, error) {
	m.seq++
	r.Seq = m.seq
	text, err := json.Marshal(r)
	if err != nil {
		return wire.Reply{}, err
	}
	for end := time.Now().Add(hostTime); time.Now().Before(end); {
		if _, err := m.conn.Write(text); err != nil {
			time.Sleep(resendAfter) // such as: no memory for it
			continue
		}
		if reply, ok := m.reply(); ok {
			return reply, nil
		}
	}
	return wire.Reply{}, errors.New("the host does not answer")
}

func (m *meter) reply() (wire.Reply, bool) {
	_ = m.conn.SetReadDeadline(time.Now().Add(resendAfter))
	for {
		n, err := m.conn.Read(m.buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return wire.Reply{}, false
		}
		var reply wire.Reply
		if err == nil && json.Unmarshal(m.buf[:n], &reply) == nil && reply.Seq == m.seq {
			return reply, true
		}
	}
}
