// SPDX-License-Identifier: GPL-2.0-only

package kdump

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// A crash stands before a device whose machine crashes just when it is to be fenced: the method
// itself commands nothing, and the suite knows commands only.
type crash struct {
	fencemethods.Device
	machine *fencetest.Machine
}

func (c crash) Off(ctx context.Context) error {
	if on, err := c.machine.On(); on || err != nil {
		_ = c.machine.SetOn(false)
	}
	return c.Device.Off(silence(ctx))
}

// The suite's words about commands, wires and power are not for a listener.
func skip() map[string]string {
	const (
		noPower = "a listener neither switches nor reads power"
		noWire  = "what comes over the wire is in the tests of their own: forged, old, cut, of another node"
	)
	return map[string]string{
		"off and on again":                 noPower,
		"commands refused":                 noPower,
		"half-dead, commands ignored":      noPower + "; a machine that does not crash is in \"deadline is kept\"",
		"half-dead, state stale":           noPower,
		"comes back on before it was read": noPower,
		"power state unknown":              noPower,
		"wrong outlet":                     "there is nothing to choose from; another node's message is in TestASealIsOfOneNodeAndKey",
		"answers lost after the command":   noWire,
		"silent after the command":         noWire,
	}
}

func TestOffIsProvenBySealedMessages(t *testing.T) {
	c, port := new(crashes), freePort(t)
	fencetest.Run(t, fencetest.Harness{
		Method: c.method(Method()), Peer: "an own sender, sealed messages", Crowd: crowd, Skip: skip(),
		Start: c.start(port, false, func(t *testing.T) map[string]string { return sealedParams(t, port) }),
	})
}

func TestOffIsProvenByPlainMessages(t *testing.T) {
	c, port, skip := new(crashes), freePort(t), skip()
	skip["a stranger says off"] = "anybody can say so: who lives meanwhile has the kernel call the fence off, see TestANodeThatSpeaksAndLivesIsNotFenced"
	fencetest.Run(t, fencetest.Harness{
		Method: c.method(Method()), Peer: "an own sender, fence_kdump's messages", Crowd: crowd, Skip: skip,
		Start: c.start(port, true, func(*testing.T) map[string]string { return plainParams(port) }),
	})
}

const crowd = "addresses that one listener hears"

// crashes are the machines of a suite. Most of them are node1, so each has an address of its own.
type crashes struct {
	count    atomic.Uint32
	machines sync.Map // by address
}

// method makes the machine crash that a device is to fence.
func (c *crashes) method(m fencemethods.Method) fencemethods.Method {
	own := m.New
	m.New = func(target fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
		d, err := own(target, v)
		m, _ := c.machines.Load(v["addrs"])
		return crash{d, m.(*fencetest.Machine)}, err
	}
	return m
}

// start makes a harness of a sender that runs in the kdump kernel of a machine.
func (c *crashes) start(port int, plain bool, params func(*testing.T) map[string]string) func(*testing.T, *fencetest.Machine) fencetest.Peer {
	return func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
		n := c.count.Add(1)
		addr := netip.AddrFrom4([4]byte{127, 0, byte(2 + n>>8), byte(n)}).String()
		c.machines.Store(addr, m)
		k := newKernel(t, addr, port, testKey, m.Node())
		k.machine, k.plain = m, plain
		k.speak(t)
		p := params(t)
		p["addrs"] = addr
		return fencetest.Peer{Params: p, Secret: testKey, Forge: func() { forge(t, addr, port) }}
	}
}

// forge says what anybody can say who can send from the node's address, but has not its key.
func forge(t *testing.T, addr string, port int) {
	repeat(t, speaker(t, addr, port), plainMessage)
	newKernel(t, addr, port, "another key of no use", 1).speak(t)
}

func TestMemoryStaysWithinTheBudget(t *testing.T) {
	for _, p := range []map[string]string{plainParams(freePort(t)), sealedParams(t, freePort(t))} {
		fencetest.WithinBudget(t, Method(), 0, 2*time.Second, open(t, 1, p, nil).Off)
	}
}
