// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"net"
	"testing"
)

// plugIn connects a machine's end to the switch and returns it as a connection.
func plugIn(t *testing.T, p *port) net.Conn {
	t.Helper()
	end, err := p.connect()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	conn, err := net.FileConn(end)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		p.disconnect()
	})
	return conn
}

// plugInAll returns n ports of one switch and the machines' ends.
func plugInAll(t *testing.T, n int) (ports []*port, ends []net.Conn) {
	t.Helper()
	s := NewSwitch()
	for range n {
		p := &port{sw: s}
		ports, ends = append(ports, p), append(ends, plugIn(t, p))
	}
	return ports, ends
}

func send(t *testing.T, from net.Conn, frame string) {
	t.Helper()
	if _, err := from.Write([]byte(frame)); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, to net.Conn) string {
	t.Helper()
	frame := make([]byte, maxFrame)
	n, err := to.Read(frame)
	if err != nil {
		t.Fatal(err)
	}
	return string(frame[:n])
}

// manyFrames do not fit into a cable: when the last is sent, most have been through the switch.
const manyFrames = 10000

func TestSwitchIsNotHeldUpByAFrozenMachine(t *testing.T) {
	_, ends := plugInAll(t, 3) // 2 is frozen: it takes nothing in
	for range manyFrames {
		send(t, ends[0], "to all")
		if got := receive(t, ends[1]); got != "to all" {
			t.Fatalf("received %q", got)
		}
	}
}

func TestSwitchLetsNothingOutOfACutOffMachine(t *testing.T) {
	ports, ends := plugInAll(t, 3)
	ports[2].cut.Store(true)
	for range manyFrames {
		send(t, ends[2], "cut off")
	}
	send(t, ends[0], "from another")
	if got := receive(t, ends[1]); got != "from another" {
		t.Errorf("received %q", got)
	}
}

func TestSwitchLetsNothingIntoACutOffMachine(t *testing.T) {
	ports, ends := plugInAll(t, 3)
	ports[2].cut.Store(true)
	send(t, ends[0], "missed")
	// The frame after it comes through only when the switch is done with it.
	send(t, ends[0], "next")
	receive(t, ends[1])
	receive(t, ends[1])
	ports[2].cut.Store(false)
	send(t, ends[0], "whole again")
	if got := receive(t, ends[2]); got == "missed" {
		t.Errorf("received %q", got)
	}
}

func TestSwitchTakesAMachineBackOnItsPort(t *testing.T) {
	ports, ends := plugInAll(t, 2)
	ends[1] = plugIn(t, ports[1])
	send(t, ends[0], "after reboot")
	if got := receive(t, ends[1]); got != "after reboot" {
		t.Errorf("received %q", got)
	}
}
