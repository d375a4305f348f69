// SPDX-License-Identifier: GPL-2.0-only

package fencetest

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

// A rack has a switch for each machine, and is wired wrongly in some way.
type rack struct {
	wrong    string
	machines []*Machine
	turn     sync.Mutex
}

// at is the machine that a node's cable leads to.
func (r *rack) at(node uint8) *Machine { return r.machines[(int(node)-1)%len(r.machines)] }

// A cable is the device of a node.
type cable struct {
	fencemethods.Device
	rack *rack
	node uint8
}

func (c cable) Off(ctx context.Context) error {
	commanded, read := c.rack.at(c.node), c.rack.at(c.node)
	switch c.rack.wrong {
	case "its neighbour's":
		commanded, read = c.rack.at(c.node+1), c.rack.at(c.node+1)
	case "its neighbour's state":
		read = c.rack.at(c.node + 1)
	case "both":
		_ = c.rack.at(c.node + 1).SetOn(false)
	case "one at a time":
		c.rack.turn.Lock()
		defer c.rack.turn.Unlock()
	}
	_ = commanded.SetOn(false)
	for ctx.Err() == nil {
		if on, _ := read.On(); !on {
			return nil
		}
		time.Sleep(time.Millisecond)
	}
	return &fencemethods.Error{Kind: fencemethods.ErrTimeout, Detail: "too late"}
}

func (c cable) Status(context.Context) (fencemethods.State, error) {
	if on, _ := c.rack.at(c.node).On(); on {
		return fencemethods.On, nil
	}
	return fencemethods.Off, nil
}

func (cable) Close() error { return nil }

// A suite that fails does so in a process of its own, where one of these is wrong.
const wrongVar = "O2FENCE_WRONG"

func TestWhatIsWrongWithAHundredNodesIsFoundOut(t *testing.T) {
	if wrong := os.Getenv(wrongVar); wrong != "" {
		runRack(t, wrong)
		return
	}
	for wrong, want := range map[string]string{
		"nothing":               "PASS: " + t.Name() + "/a_hundred_nodes_at_once",
		"its neighbour's":       "FALSE SUCCESS: node ",
		"its neighbour's state": "FALSE SUCCESS: node ",
		"both":                  "was switched off, which nobody had ordered",
		"one at a time":         "too late",
	} {
		t.Run(wrong, func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(os.Args[0], "-test.v", "-test.run=^TestWhatIsWrongWithAHundredNodesIsFoundOut$/^a_hundred")
			cmd.Env = append(os.Environ(), wrongVar+"="+wrong)
			out, err := cmd.CombinedOutput()
			if (err == nil) != (wrong == "nothing") || !strings.Contains(string(out), want) {
				t.Errorf("%v, want %q\n%s", err, want, out)
			}
		})
	}
}

func runRack(t *testing.T, wrong string) {
	r := &rack{wrong: wrong}
	Run(t, Harness{
		Crowd: "cables", hurry: 8 * time.Second,
		Method: fencemethods.Method{Name: "cable", New: func(target fencemethods.Target, _ fencemethods.Values) (fencemethods.Device, error) {
			return cable{rack: r, node: target.Node}, nil
		}},
		Start: func(t *testing.T, _ *Machine) Peer { t.Skip("of many only"); return Peer{} },
		Together: func(_ *testing.T, machines []*Machine) []Peer {
			r.machines = machines
			return make([]Peer, len(machines))
		},
	})
}
