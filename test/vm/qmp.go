// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
)

// A monitor is a client of QEMU's machine protocol, on a connection of its own. Safe for concurrent
// use.
type monitor struct {
	conn net.Conn
	gone chan struct{} // closed at the end of the connection

	mu       sync.Mutex
	lastID   int
	pending  map[int]chan qmpMessage // one answer each
	paused   bool                    // by anybody
	shutdown string                  // QEMU's reason for its end, "" until it names one
}

// A qmpMessage is whatever QEMU sends: a greeting, an answer (which has our ID) or an event.
type qmpMessage struct {
	ID    int `json:"id"`
	Error *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event string `json:"event"`
	Data  struct {
		Reason string `json:"reason"`
	} `json:"data"`
}

// newMonitor speaks QMP on conn, which it closes in the end. The first command must be
// "qmp_capabilities"; the greeting need not be awaited.
func newMonitor(conn net.Conn) *monitor {
	m := &monitor{conn: conn, gone: make(chan struct{}), pending: make(map[int]chan qmpMessage)}
	go m.read()
	return m
}

func (m *monitor) read() {
	defer close(m.gone)
	defer m.conn.Close()
	for messages := json.NewDecoder(m.conn); ; {
		var msg qmpMessage
		if err := messages.Decode(&msg); err != nil {
			return
		}
		m.take(msg)
	}
}

func (m *monitor) take(msg qmpMessage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch msg.Event {
	case "STOP":
		m.paused = true
	case "RESUME":
		m.paused = false
	case "SHUTDOWN":
		m.shutdown = msg.Data.Reason
	}
	// An answer that nobody waits for any more goes into its channel's buffer, and with it.
	if answer, ok := m.pending[msg.ID]; ok {
		delete(m.pending, msg.ID)
		answer <- msg
	}
}

// isPaused follows QEMU's events, so it is right whoever paused the machine.
func (m *monitor) isPaused() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.paused
}

func (m *monitor) shutdownReason() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shutdown
}

// execute carries out one command without arguments.
func (m *monitor) execute(ctx context.Context, command string) error {
	answer, err := m.send(command)
	if err == nil {
		select {
		case msg := <-answer:
			err = msg.err()
		case <-m.gone:
			err = ErrOff
		case <-ctx.Done():
			err = ctx.Err()
		}
	}
	if err != nil {
		return fmt.Errorf("qmp %s: %w", command, err)
	}
	return nil
}

// send returns where the answer to command will come.
func (m *monitor) send(command string) (<-chan qmpMessage, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lastID++
	answer := make(chan qmpMessage, 1)
	m.pending[m.lastID] = answer
	if _, err := fmt.Fprintf(m.conn, `{"execute":%q,"id":%d}`+"\n", command, m.lastID); err != nil {
		return nil, ErrOff
	}
	return answer, nil
}

func (msg qmpMessage) err() error {
	if msg.Error == nil {
		return nil
	}
	return fmt.Errorf("%s: %s", msg.Error.Class, msg.Error.Desc)
}
