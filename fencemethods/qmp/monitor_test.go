// SPDX-License-Identifier: GPL-2.0-only

package qmp

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// A monitor speaks QMP for a machine that can be made to misbehave, as QEMU's cannot. What it says
// was learned from QEMU, against which the other tests run; like QEMU's it serves one client at a
// time.
type monitor struct {
	machine *fencetest.Machine
	network string
	addr    string

	mu       sync.Mutex
	listener net.Listener
	client   net.Conn
	paused   bool
}

func startMonitor(t testing.TB, network string, m *fencetest.Machine) *monitor {
	t.Helper()
	q := &monitor{machine: m, network: network, addr: "127.0.0.1:0"}
	if network == "unix" {
		q.addr = filepath.Join(t.TempDir(), "qmp")
	}
	if err := q.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(q.stop)
	return q
}

func (q *monitor) start() error {
	l, err := net.Listen(q.network, q.addr)
	if err != nil {
		return err
	}
	q.mu.Lock()
	q.listener, q.addr = l, l.Addr().String()
	q.mu.Unlock()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			q.mu.Lock()
			q.client = c
			q.mu.Unlock()
			q.serve(c)
		}
	}()
	return nil
}

func (q *monitor) stop() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.listener.Close()
	if q.client != nil {
		q.client.Close()
	}
}

func (q *monitor) restart() error {
	q.stop()
	return q.start()
}

func (q *monitor) serve(c net.Conn) {
	defer c.Close()
	fmt.Fprintln(c, `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 7}, "package": ""}, "capabilities": ["oob"]}}`)
	ready := false
	for lines := bufio.NewScanner(c); lines.Scan(); {
		var question struct {
			Execute string
			ID      json.RawMessage
		}
		if json.Unmarshal(lines.Bytes(), &question) != nil {
			fmt.Fprintln(c, `{"error": {"class": "GenericError", "desc": "JSON parse error"}}`)
			continue
		}
		answer, err := q.obey(question.Execute, &ready)
		if err != nil {
			fmt.Fprintf(c, "{\"id\": %s, \"error\": {\"class\": \"GenericError\", \"desc\": %q}}\n", question.ID, err)
			continue
		}
		fmt.Fprintf(c, "{\"return\": %s, \"id\": %s}\n", answer, question.ID)
	}
}

func (q *monitor) obey(command string, ready *bool) (answer string, err error) {
	if command == "qmp_capabilities" {
		*ready = true
		return "{}", nil
	}
	if !*ready {
		return "", fmt.Errorf("Expecting capabilities negotiation with 'qmp_capabilities'")
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	switch command {
	case "query-status":
		return q.status()
	case "query-migrate", "set-action":
	case "query-uuid":
		return `{"UUID": "00000000-0000-0000-0000-000000000000"}`, nil
	case "stop":
		q.paused = true
	case "cont":
		q.paused = false
		return "{}", q.machine.SetOn(true)
	case "system_reset":
		if q.paused {
			return "{}", q.machine.SetOn(false)
		}
		return "{}", q.machine.Reset()
	default:
		return "", fmt.Errorf("The command %s has not been found", command)
	}
	return "{}", nil
}

func (q *monitor) status() (string, error) {
	on, err := q.machine.On()
	word := "running"
	switch {
	case err != nil:
		return "", err
	case !on:
		word = "prelaunch"
	case q.paused:
		word = "paused"
	}
	return fmt.Sprintf(`{"status": %q, "singlestep": false, "running": %t}`, word, word == "running"), nil
}
