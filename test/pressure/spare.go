// SPDX-License-Identifier: GPL-2.0-only

package pressure

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/o2fence/o2fence/test/bmc"
	line "github.com/o2fence/o2fence/test/bmc/wire"
)

// A spare is a machine that is only there to be switched off: the spare node of a fencer, with a BMC of
// its own. It obeys at once, and so does its BMC as far as it can: one that starts a process for each
// question would be as slow as the host is busy, and what is measured is who asks.
type spare struct {
	bmc  *bmc.BMC
	line *line.Wire // fencers reach the BMC through it

	mu    sync.Mutex
	on    bool
	asked time.Time     // when the question came that has no answer yet; zero for none
	took  time.Duration // for all answers since it was last made ready
}

func startSpare(ctx context.Context, dir, program string) (*spare, error) {
	m := &spare{on: true}
	var err error
	m.bmc, err = bmc.StartGoIPMI(ctx, dir, program, bmc.Config{User: user, Password: password, Power: m})
	if err != nil {
		return nil, err
	}
	if m.line, err = line.New(m.bmc.Addr()); err != nil {
		return nil, errors.Join(err, m.bmc.Close())
	}
	m.line.SetFault(m.clock)
	return m, nil
}

func (m *spare) close() error { return errors.Join(m.line.Close(), m.bmc.Close()) }

// clock passes everything on and measures how long the BMC takes to answer. A question that is sent
// again is the same question.
func (m *spare) clock(p line.Packet) {
	m.mu.Lock()
	switch now := time.Now(); {
	case !p.Answer && m.asked.IsZero():
		m.asked = now
	case p.Answer && !m.asked.IsZero():
		m.took += now.Sub(m.asked)
		m.asked = time.Time{}
	}
	m.mu.Unlock()
	p.Pass()
}

// ready switches it on again, for the next fence.
func (m *spare) ready() error {
	m.mu.Lock()
	m.asked, m.took = time.Time{}, 0
	m.mu.Unlock()
	return m.SetOn(true)
}

// taken is how long its BMC has taken to answer since it was made ready.
func (m *spare) taken() time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.took
}

// On says whether it is on.
func (m *spare) On() (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.on, nil
}

// SetOn switches it.
func (m *spare) SetOn(on bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.on = on
	return nil
}

// Reset restarts it.
func (m *spare) Reset() error { return m.SetOn(true) }
