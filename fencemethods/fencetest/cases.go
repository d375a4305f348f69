// SPDX-License-Identifier: GPL-2.0-only

package fencetest

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/test/bmc/wire"
)

type testCase struct {
	name  string
	run   func(*trial)
	place place
}

// A place is where a case is run.
type place int

const (
	beside place = iota // others
	alone               // since it measures time
	crowd               // alone, with machines of its own
)

func cases() []testCase {
	return []testCase{
		{"deadline is kept", deadlineIsKept, alone},
		{"a hundred nodes at once", aHundredNodesAtOnce, crowd},
		{"off and on again", offAndOnAgain, beside},
		{"check changes nothing", checkChangesNothing, beside},
		{"already off", alreadyOff, beside},
		{"slow to go off", slowToGoOff, beside},
		{"slow to answer", survives(wire.Late), beside},
		{"wrong outlet", wrongOutlet, beside},
		{"device of another make", anotherMake, beside},
		{"wrong credentials", wrongCredentials, beside},
		{"nothing listens", nothingListens, beside},
		{"no answer at all", noAnswerAtAll, beside},
		{"commands refused", commandsRefused, beside},
		{"half-dead, commands ignored", commandsIgnored, beside},
		{"half-dead, state stale", stateStale, beside},
		{"comes back on before it was read", comesBackOn, beside},
		{"power state unknown", stateUnknown, beside},
		{"answers lost after the command", answersLost, beside},
		{"silent after the command", silentAfterCommand, beside},
		{"old answers played again", oldAnswers, beside},
		{"every fifth packet lost", survives(wire.Lossy()), beside},
		{"every answer twice", withstands(wire.Double), beside},
		{"answers out of order", survives(wire.Shuffle), beside},
		{"garbage and cut packets between", withstands(wire.Noise), beside},
		{"damaged answers between", survives(wire.Corrupt()), beside},
		{"answers from a stranger", strangerAnswers, beside},
		{"a stranger says off", strangerSaysOff, beside},
		{"all answers cut short", allCutShort, beside},
		{"device restarted in the middle", restarted, beside},
		{"fence called off", calledOff, beside},
		{"two fences of one node at once", twoFencesAtOnce, beside},
	}
}

func deadlineIsKept(x *trial) {
	trials := []*trial{x}
	x.machine.behave(Manners{Deaf: true})
	if x.peer.SetFault != nil {
		silent := newTrial(x.T, x.harness)
		silent.peer.SetFault(wire.Cut)
		trials = append(trials, silent)
	}
	var wg sync.WaitGroup
	for _, each := range trials {
		wg.Go(each.endsInTime)
	}
	wg.Wait()
}

func (x *trial) endsInTime() {
	InTime(x.T, x.short(), func() {
		if err := x.off(x.device, x.short()); err == nil {
			x.Error("no error")
		}
	})
}

// The plain case, twice over, so that a second session works as well as a first.
func offAndOnAgain(x *trial) {
	x.mustStatus(fencemethods.On)
	x.mustOff()
	x.mustStatus(fencemethods.Off)
	ctx, cancel := context.WithTimeout(x.Context(), x.patience())
	defer cancel()
	if err := x.device.On(ctx); err != nil {
		x.Fatal(err)
	}
	x.mustStatus(fencemethods.On)
	x.mustOff()
}

func checkChangesNothing(x *trial) {
	ctx, cancel := context.WithTimeout(x.Context(), x.patience())
	defer cancel()
	if err := x.device.Check(ctx); err != nil {
		x.Fatal(err)
	}
	if r := x.machine.record(); r.commands != 0 || !r.on {
		x.Errorf("the machine took %d commands", r.commands)
	}
}

// A second fencer comes too late, and must not shoot a node that is starting again.
func alreadyOff(x *trial) {
	x.machine.turn(false, false)
	x.mustOff()
	if n := x.machine.record().commands; n != 0 {
		x.Errorf("a machine that is off got %d commands", n)
	}
}

// The command's acknowledgement comes long before the power is off, as with real machines.
func slowToGoOff(x *trial) {
	x.machine.behave(Manners{Slow: 300 * time.Millisecond})
	x.mustOff() // which looks whether it was off
}

// What is not there does not get any current, either: that is not what was asked.
func wrongOutlet(x *trial) {
	if x.peer.Nowhere == nil {
		x.Skip("there is no outlet, port or slot to name")
	}
	x.leadAstray(x.peer.Nowhere(x.T))
}

// Something answers at the address, or hangs up, that is not what was configured.
func anotherMake(x *trial) {
	if x.peer.Foreign == nil {
		x.Skip("this method asks no device at an address")
	}
	x.leadAstray(x.peer.Foreign(x.T))
}

// leadAstray tries parameters that do not lead to the machine.
func (x *trial) leadAstray(ways map[string]map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(ways)) {
		x.Log(name)
		x.machine.turn(true, false) // whoever led it astray before
		d := x.open(ways[name])
		x.mustNotFence(d, nil)
		if x.harness.Theirs {
			continue
		}
		ctx, cancel := context.WithTimeout(x.Context(), x.short())
		if state, err := d.Status(ctx); state != fencemethods.Unknown || err == nil {
			x.Errorf("%s: Status = %v, %v", name, state, err)
		}
		cancel()
	}
	if r := x.machine.record(); r.commands != 0 || !r.on {
		x.Errorf("the machine took %d commands that were for another", r.commands)
	}
}

func wrongCredentials(x *trial) {
	if len(x.peer.Wrong) == 0 {
		x.Skip("this method has no credentials")
	}
	limit := 5 * time.Second // which takes all of it, where anybody could say that they are wrong
	if x.harness.Slow {
		limit = x.patience()
	}
	for name, params := range x.peer.Wrong {
		d := x.open(params)
		x.Log(name)
		ctx, cancel := context.WithTimeout(x.Context(), limit)
		x.mustFail(d.Check(ctx), fencemethods.ErrAuth)
		cancel()
		x.mustFail(x.off(d, limit), fencemethods.ErrAuth)
	}
}

// The address answers that the port is closed.
func nothingListens(x *trial) {
	if len(x.peer.Absent) == 0 {
		x.Skip("this method has no address")
	}
	x.mustNotFence(x.open(x.peer.Absent), fencemethods.ErrUnreachable)
}

// As when a BMC has died with its host: unreachable is not off.
func noAnswerAtAll(x *trial) {
	x.breakWire(wire.Cut)
	x.mustNotFence(x.device, fencemethods.ErrUnreachable)
}

// A device that declines, as one whose disk is write-protected.
func commandsRefused(x *trial) {
	x.machine.behave(Manners{Refuse: true})
	d := x.device
	if x.peer.Refuse != nil {
		d = x.open(x.peer.Refuse(x.T))
	}
	x.mustNotFence(d, nil)
}

// The machine obeys, and its device goes on telling what was true before: nobody has read it off.
func stateStale(x *trial) {
	x.machine.behave(Manners{Stale: true})
	x.mustNotFence(x.device, fencemethods.ErrNotOff)
}

// The BMC is half-dead: it answers, acknowledges, and does nothing.
func commandsIgnored(x *trial) {
	x.machine.behave(Manners{Deaf: true})
	x.mustNotFence(x.device, fencemethods.ErrNotOff)
}

// A node that went off, but was never seen off, may have come back with its disks: it does not
// count. One that comes back after it was read off does, see Device.Off.
func comesBackOn(x *trial) {
	x.machine.behave(Manners{Restless: true})
	x.mustNotFence(x.device, fencemethods.ErrNotOff)
}

func stateUnknown(x *trial) {
	x.machine.behave(Manners{Unknown: true})
	x.mustNotFence(x.device, nil)
	ctx, cancel := context.WithTimeout(x.Context(), x.short())
	defer cancel()
	if state, _ := x.device.Status(ctx); state != fencemethods.Unknown {
		x.Errorf("Status = %v of a machine that cannot tell", state)
	}
}

// The machine went off, and who fenced it has to find out without doing harm.
func answersLost(x *trial) {
	var once sync.Once
	x.breakWire(nil) // skips here what it could not skip in the server's goroutine
	x.machine.behave(Manners{Commanded: func() {
		once.Do(func() {
			x.breakWire(func(p wire.Packet) {
				if !p.Answer || p.N >= 3 {
					p.Pass()
				}
			})
		})
	}})
	x.mustOff()
}

// The machine is off, but nobody could read it: that is no success.
func silentAfterCommand(x *trial) {
	x.breakWire(nil)
	x.machine.behave(Manners{Commanded: func() { x.breakWire(wire.Mute) }})
	x.mustNotFence(x.device, fencemethods.ErrTimeout)
}

// What was true of the node once, and signed, is offered as today's state.
func oldAnswers(x *trial) {
	var tape wire.Tape
	x.breakWire(tape.Record)
	x.mustOff()
	x.mustStatus(fencemethods.Off)
	x.machine.turn(true, false)
	x.machine.behave(Manners{Deaf: true})
	x.breakWire(tape.Play)
	if x.peer.Sealed {
		x.mustNotFence(x.device, nil)
		return
	}
	x.mustNotFence(x.device, fencemethods.ErrNotOff)
}

func survives(f wire.Fault) func(*trial) {
	return func(x *trial) {
		x.breakWire(f)
		x.mustOff()
	}
}

// withstands is survives for what breaks each and every connection that is sealed: there, success is
// due when the wire is mended, and until then at least nothing is believed.
func withstands(f wire.Fault) func(*trial) {
	return func(x *trial) {
		x.breakWire(f)
		if x.peer.Sealed {
			if err := x.off(x.device, x.short()); err != nil {
				x.mustFail(err, nil)
			}
			x.breakWire(nil)
		}
		x.mustOff()
	}
}

func strangerAnswers(x *trial) {
	if x.peer.Stream {
		x.Skip("a stranger is not heard on a connection")
	}
	survives(wire.Forgery)(x)
}

// The machine runs on, and somebody who is not the device says, in the device's own words of
// yesterday or in his own, that it is off.
func strangerSaysOff(x *trial) {
	if x.peer.Stream {
		x.Skip("a stranger is not heard on a connection")
	}
	if x.peer.Forge != nil {
		x.machine.behave(Manners{Deaf: true})
		x.peer.Forge()
		x.mustNotFence(x.device, nil)
		return
	}
	var tape wire.Tape
	x.breakWire(tape.Record)
	x.mustOff()
	x.machine.turn(true, false)
	x.machine.behave(Manners{Deaf: true})
	x.breakWire(tape.Forge)
	x.mustNotFence(x.device, fencemethods.ErrNotOff)
}

func allCutShort(x *trial) {
	x.breakWire(wire.Truncate)
	if x.peer.Sealed { // which may look like silence
		x.mustNotFence(x.device, nil)
		return
	}
	x.mustNotFence(x.device, fencemethods.ErrProtocol)
}

// The session dies with the device's memory; another one has to be set up within the deadline.
func restarted(x *trial) {
	if x.peer.Restart == nil {
		x.Skip("this method has no device that restarts")
	}
	commanded := make(chan struct{}, 1)
	x.machine.behave(Manners{Deaf: true, Commanded: func() {
		select {
		case commanded <- struct{}{}:
		default:
		}
	}})
	done := make(chan error, 1)
	go func() { done <- x.off(x.device, x.patience()) }()
	select {
	case <-commanded:
	case err := <-done:
		x.Fatalf("%v, before there was a command", err)
	}
	if err := x.peer.Restart(); err != nil {
		x.Fatal(err)
	}
	x.machine.behave(Manners{})
	if err := <-done; err != nil {
		x.Fatal(err)
	}
}

// The kernel no longer wants the answer.
func calledOff(x *trial) {
	ctx, cancel := context.WithTimeout(x.Context(), x.patience())
	defer cancel()
	x.machine.behave(Manners{Deaf: true, Commanded: cancel})
	if err := x.offContext(ctx, x.device); !errors.Is(err, context.Canceled) {
		x.Errorf("%v: want %v", err, context.Canceled)
	}
}

// Two callers share one device, as a check and a fence do; a third has its own, as another node.
func twoFencesAtOnce(x *trial) {
	var wg sync.WaitGroup
	for _, d := range []fencemethods.Device{x.device, x.device, x.open(nil)} {
		wg.Go(func() {
			if err := x.off(d, x.patience()); err != nil {
				x.Error(err)
			}
		})
	}
	wg.Wait()
}

func (x *trial) breakWire(f wire.Fault) {
	if x.peer.SetFault == nil {
		x.Skip("this method has no wire that could fail")
	}
	x.peer.SetFault(f)
}
