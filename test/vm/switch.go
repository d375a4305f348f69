// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
)

// maxFrame holds an Ethernet frame; QEMU sends no larger ones, there is no offload on these links.
const maxFrame = 1 << 16

// A Switch is the private Ethernet of some machines: every frame that one sends reaches all others,
// without the host's network stack and so without privileges. Safe for concurrent use.
type Switch struct {
	mu    sync.Mutex
	ports map[*port]net.Conn // the plugged-in ones
}

// NewSwitch returns a switch with nothing plugged in. It needs no closing.
func NewSwitch() *Switch { return &Switch{ports: make(map[*port]net.Conn)} }

// A port is where one machine is plugged in. It outlives the machine's QEMU processes.
type port struct {
	sw  *Switch
	cut atomic.Bool // frames from and to it are dropped
}

// connect replaces the cable. It returns the machine's end, a datagram socket with one frame a datagram, for
// QEMU to inherit.
func (p *port) connect() (*os.File, error) {
	machine, conn, err := socketPair(syscall.SOCK_DGRAM)
	if err != nil {
		return nil, fmt.Errorf("switch: %w", err)
	}
	p.disconnect()
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	p.sw.ports[p] = conn
	go p.forward(conn)
	return machine, nil
}

// disconnect pulls the cable out on the switch's side.
func (p *port) disconnect() {
	p.sw.mu.Lock()
	defer p.sw.mu.Unlock()
	if conn, ok := p.sw.ports[p]; ok {
		conn.Close()
		delete(p.sw.ports, p)
	}
}

func (p *port) forward(conn net.Conn) {
	frame := make([]byte, maxFrame)
	for {
		n, err := conn.Read(frame)
		if err != nil {
			return
		}
		if !p.cut.Load() {
			p.sw.flood(p, frame[:n])
		}
	}
}

// flood sends a frame to everyone else, as a hub does: so few machines need no table of addresses.
func (s *Switch) flood(from *port, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for to, conn := range s.ports {
		if to != from && !to.cut.Load() {
			offer(conn, frame)
		}
	}
}

// offer sends a frame unless the receiver's buffer is full, as that of a frozen machine soon is:
// then the frame is lost, and the others are not held up.
func offer(conn net.Conn, frame []byte) {
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Write(func(fd uintptr) bool {
		_, _ = syscall.Write(int(fd), frame)
		return true
	})
}

// socketPair returns two connected unix sockets: one for a child process, one for us.
func socketPair(kind int) (*os.File, net.Conn, error) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, kind|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	ours := os.NewFile(uintptr(fds[1]), "socketpair")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		syscall.Close(fds[0])
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "socketpair"), conn, nil
}
