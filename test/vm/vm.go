// SPDX-License-Identifier: GPL-2.0-only

// Package vm runs test machines: QEMUs that boot Debian's kernel into the host's own root file
// system, read-only below an overlay, each with an agent that runs commands, a serial log, power
// control, and as clusters with a shared disk and a private network. Nothing in it needs root.
//
// A machine keeps its identity, its disk and its place on the network over any number of boots; it
// loses what it wrote to its root file system. No QEMU outlives the process that started it.
//
// Test machines are emulated (TCG). $O2FENCE_KVM=1 chooses KVM, $O2FENCE_KERNEL the kernel release.
package vm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// ErrOff is for what a machine cannot do because it is, or went, off.
var ErrOff = errors.New("the machine is off")

// HostAddress is where every machine reaches the servers that listen on the host's loopback, UDP
// and TCP.
const HostAddress = "10.0.2.2"

// DefaultMemory is a machine's memory in MiB.
const DefaultMemory = 512

// A Config describes a machine. Kernel, Name and Dir must be set.
type Config struct {
	Kernel *Kernel
	Name   string // host name in the guest, and the log's name
	Dir    string // for the log; made when missing

	// Counted has the machine's clock count instructions, 1 ns each, while it has something to do: so
	// nothing that it measures depends on what else the host does. CPUs take turns then.
	Counted bool

	Memory int // MiB; default DefaultMemory
	CPUs   int // default 1

	// Root is the host directory that becomes the guest's root; default "/". What QEMU's user may
	// not read, the guest cannot.
	Root string
	// Init is the program in Root that becomes process 1, such as /sbin/init; default: none, the
	// machine is up as soon as its kernel is. The agent serves either way, from before Init runs: how
	// far Init has come, ask Init.
	Init string
	// Append is added to the kernel's command line.
	Append string

	// Disks are raw images that become /dev/vda, /dev/vdb and so on. Machines may share them.
	Disks []string
	// Switch and Address put eth0 on a network. The last device is always the way to HostAddress.
	Switch  *Switch
	Address netip.Prefix

	// Devices are further arguments for QEMU, such as "-device", "i6300esb".
	Devices []string
	// Epoch is the zero of the log's times; default: now.
	Epoch time.Time
}

// A VM is one machine, off to begin with. Safe for concurrent use.
type VM struct {
	cfg     Config
	console *Console
	log     *os.File
	sockets string // directory
	port    *port  // nil without a switch

	power  sync.Mutex // held while the power is switched
	closed bool       // guarded by power

	mu  sync.Mutex
	run *process // the current or else the last; nil before the first
}

// New makes a machine. The end of ctx is that of Close.
func New(ctx context.Context, cfg Config) (*VM, error) {
	cfg.Memory = cmp.Or(cfg.Memory, DefaultMemory)
	cfg.CPUs = cmp.Or(cfg.CPUs, 1)
	cfg.Root = cmp.Or(cfg.Root, "/")
	if cfg.Epoch.IsZero() {
		cfg.Epoch = time.Now()
	}
	if err := os.MkdirAll(cfg.Dir, 0o755); err != nil {
		return nil, err
	}
	m := &VM{cfg: cfg}
	var err error
	if m.log, err = os.Create(m.LogPath()); err != nil {
		return nil, err
	}
	// Not in Dir: the path of a unix socket is short.
	if m.sockets, err = os.MkdirTemp("", "o2vm"); err != nil {
		m.log.Close()
		return nil, err
	}
	m.console = newConsole(m.log, cfg.Epoch)
	if cfg.Switch != nil {
		m.port = &port{sw: cfg.Switch}
	}
	context.AfterFunc(ctx, m.Close)
	return m, nil
}

// Close powers the machine off for good and gives back what it holds. The log stays.
func (m *VM) Close() {
	m.power.Lock()
	defer m.power.Unlock()
	m.closed = true
	m.powerOff()
	m.log.Close()
	os.RemoveAll(m.sockets)
}

// Name is the machine's host name.
func (m *VM) Name() string { return m.cfg.Name }

// Address is the machine's address on its switch.
func (m *VM) Address() netip.Addr { return m.cfg.Address.Addr() }

// Console is the machine's serial console.
func (m *VM) Console() *Console { return m.console }

// LogPath is the file with the serial console's lines.
func (m *VM) LogPath() string { return filepath.Join(m.cfg.Dir, m.cfg.Name+".log") }

// MonitorPath is a QMP socket for another program, one client at a time, there while the machine is
// on. Its "quit" is a power-off; so is its "system_reset", for a reset ends QEMU too.
func (m *VM) MonitorPath() string { return filepath.Join(m.sockets, "monitor") }

// KernelFaults returns every line of the console that tells of a kernel WARN, BUG, oops, panic,
// stall, hung task or lockdep report, over all boots.
func (m *VM) KernelFaults() []string { return m.console.kernelFaults() }

// ClearKernelFaults forgets the faults so far. It is for tests whose machine is meant to panic, after
// they have seen that it did.
func (m *VM) ClearKernelFaults() { m.console.clearFaults() }

// SetNetwork cuts the machine off from its switch or connects it again. The way to HostAddress is
// not touched, and the guest's link stays up.
func (m *VM) SetNetwork(connected bool) {
	if m.port != nil {
		m.port.cut.Store(!connected)
	}
}

func (m *VM) errorf(format string, args ...any) error {
	return fmt.Errorf("%s: %w", m.cfg.Name, fmt.Errorf(format, args...))
}
