// SPDX-License-Identifier: GPL-2.0-only

package kdump

import (
	"context"
	"runtime"
	"strconv"
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
	return c.Device.Off(ctx)
}

// Of the suite, what is about commands, wires and power is not for a listener.
func TestOffIsProven(t *testing.T) {
	const (
		noPower = "a listener neither switches nor reads power"
		noWire  = "what comes over the wire is in the tests of their own: forged, old, cut, of another node"
	)
	skip := map[string]string{
		"off and on again":                 noPower,
		"half-dead, commands ignored":      noPower + "; a machine that does not crash is in \"deadline is kept\"",
		"comes back on before it was read": noPower,
		"power state unknown":              noPower,
		"answers lost after the command":   noWire,
		"silent after the command":         noWire,
	}
	for name, params := range map[string]func(*testing.T, int) map[string]string{
		"sealed": func(t *testing.T, port int) map[string]string { return sealedParams(t, port) },
		"plain":  func(_ *testing.T, port int) map[string]string { return plainParams(port) },
	} {
		t.Run(name, func(t *testing.T) {
			port := freePort(t)
			var next atomic.Uint32
			// The suite opens all devices for node1, so each machine has an address of its own.
			var machines sync.Map
			method := Method()
			method.New = func(target fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
				d, err := New(target, v)
				m, _ := machines.Load(v["addrs"])
				return crash{d, m.(*fencetest.Machine)}, err
			}
			fencetest.Run(t, fencetest.Harness{
				Method: method, Many: 20, Skip: skip,
				Start: func(t *testing.T, m *fencetest.Machine) fencetest.Peer {
					addr := "127.0.2." + strconv.Itoa(int(next.Add(1)))
					machines.Store(addr, m)
					k := newKernel(t, addr, port, testKey, 1)
					k.machine, k.plain = m, name == "plain"
					k.speak(t)
					p := params(t, port)
					p["addrs"] = addr
					return fencetest.Peer{Params: p, Secret: testKey}
				},
			})
		})
	}
}

func TestMemoryStaysWithinTheBudget(t *testing.T) {
	for _, p := range []map[string]string{plainParams(freePort(t)), sealedParams(t, freePort(t))} {
		d := open(t, 1, p, nil)
		const seconds = 2
		ctx := within(t, seconds*time.Second)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := d.Off(ctx); err == nil {
			t.Error("nobody speaks, yet there is no error")
		}
		runtime.ReadMemStats(&after)
		perMinute := (after.TotalAlloc - before.TotalAlloc) * 60 / seconds
		if budget := uint64(Method().MemoryKiB) << 10; perMinute > budget {
			t.Errorf("%d bytes a minute, more than the %d of MemoryKiB", perMinute, budget)
		}
	}
}
