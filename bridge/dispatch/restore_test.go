// SPDX-License-Identifier: GPL-2.0-only

package dispatch

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o2fence/o2fence/bridge/uapi"
	"github.com/o2fence/o2fence/fencemethods"
)

const delay = 10 * time.Second

func thenOn(number uint32, device fencemethods.Device) []Node {
	n := node(number, device)
	n.ThenOn, n.ThenDelay = true, delay
	return []Node{n}
}

// after lets so much time pass, and all that is due happen.
func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (f *fixture) settle(settled bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.settled = settled
}

func (s *stub) want(t *testing.T, state fencemethods.State, ons int) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != state || s.ons != ons {
		t.Errorf("the node is %v and was powered on %d times; want %v and %d", s.state, s.ons, state, ons)
	}
}

func TestAFencedNodeIsPoweredOnAfterTheDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := &stub{}
		f := serve(t, thenOn(1, device))
		f.initiate(1, 7)
		<-f.answers
		after(delay - 1)
		device.want(t, fencemethods.Off, 0)
		after(1)
		device.want(t, fencemethods.On, 1)
		after(10 * delay)
		device.want(t, fencemethods.On, 1)
		if f.idle != 2 {
			t.Errorf("idle %d times, want after the fence and after the power came back", f.idle)
		}
	})
}

func TestThenOffLeavesTheNodeOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := &stub{}
		f := serve(t, []Node{node(1, device)})
		f.initiate(1, 7)
		<-f.answers
		after(10 * delay)
		device.want(t, fencemethods.Off, 0)
	})
}

func TestANodeIsNotPoweredOnBeforeItsNotice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := &stub{}
		f := serve(t, thenOn(1, device))
		f.settle(false)
		f.initiate(1, 7)
		<-f.answers
		after(10 * delay)
		device.want(t, fencemethods.Off, 0)
		f.settle(true)
		after(delay)
		device.want(t, fencemethods.On, 1)
	})
}

func TestANodeThatSomebodyElsePoweredOnIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := &stub{}
		f := serve(t, thenOn(1, device))
		f.initiate(1, 7)
		<-f.answers
		device.set(fencemethods.On)
		after(10 * delay)
		device.want(t, fencemethods.On, 0)
	})
}

// Of two power strips one has obeyed before that failed: the node is not off, and the strip is. Then
// the next method has fenced the node.
func TestWhatIsOffOfSeveralDevicesIsPoweredOnToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		strips, bmc := &stub{off: hang}, &stub{}
		nodes := thenOn(1, strips)
		nodes[0].Jobs[0].Several = true
		nodes[0].Jobs = append(nodes[0].Jobs, Job{Method: "stub", Params: []byte("bmc"), Device: bmc})
		f := serve(t, nodes)
		f.initiate(1, 7)
		<-f.answers
		strips.set(fencemethods.On) // as it says when one of them is
		f.asked <- order(t, uapi.CmdInitiate, 1, 7, "bmc")
		<-f.answers
		after(delay)
		bmc.want(t, fencemethods.On, 1)
		strips.want(t, fencemethods.On, 1)
		f.asked <- order(t, uapi.CmdInitiate, 1, 8, "bmc") // for which the strips were not needed
		<-f.answers
		after(delay)
		bmc.want(t, fencemethods.On, 2)
		strips.want(t, fencemethods.On, 1)
	})
}

// The device was told to power off, did so too late, and the next method has fenced the node.
func TestANodeThatWentOffAfterAllIsPoweredOnToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := &stub{off: hang}
		f := serve(t, thenOn(1, device))
		f.initiate(1, 7)
		<-f.answers
		device.set(fencemethods.Off)
		after(delay)
		device.want(t, fencemethods.On, 1)
	})
}

func TestAnOrderGoesBeforeThePowerComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := &slowStatus{asked: make(chan bool)}
		f := serve(t, thenOn(1, device))
		f.initiate(1, 7)
		<-f.answers
		<-device.asked
		start := time.Now()
		f.initiate(1, 8)
		if a := <-f.answers; a.Request != 8 || a.Errno != 0 || time.Since(start) != 0 {
			t.Errorf("answered %+v after %v", a, time.Since(start))
		}
		<-device.asked // again, for the order that came
		if f.logged() != "" {
			t.Errorf("logged %q", f.logged())
		}
	})
}

// A slowStatus never says whether its node is on.
type slowStatus struct {
	stub
	asked chan bool
}

func (s *slowStatus) Status(ctx context.Context) (fencemethods.State, error) {
	s.asked <- true
	return fencemethods.Unknown, hang(ctx)
}

// resumed serves a node that was fenced that long before.
func resumed(t *testing.T, n Node, method string, ago time.Duration, want bool) {
	t.Helper()
	f := newFixture(t, []Node{n})
	if got := f.Resume(cluster, n.Number, method, time.Now().Add(-ago)); got != want {
		t.Errorf("fenced %v ago by %s: %v", ago, method, got)
	}
	f.start()
}

func TestANodeThatTheLastBridgeFencedIsPoweredOnInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := &stub{state: fencemethods.Off}
		resumed(t, thenOn(1, device)[0], "stub", delay/4, true)
		after(delay*3/4 - 1)
		device.want(t, fencemethods.Off, 0)
		after(1)
		device.want(t, fencemethods.On, 1)
	})
}

// It may be off by somebody's wish.
func TestANodeThatTheLastBridgeMayHavePoweredOnIsLeftAlone(t *testing.T) {
	for what, c := range map[string]struct {
		method string
		then   bool
		ago    time.Duration
	}{
		"long ago":         {"stub", true, delay},
		"in the future":    {"stub", true, -1},
		"by another":       {"watchdog", true, 0},
		"with then = off":  {"stub", false, 0},
		"by one of two":    {"twin", true, 0},
		"by none, in time": {"", true, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			device := &stub{state: fencemethods.Off}
			n := thenOn(1, device)[0]
			n.ThenOn = c.then
			n.Jobs = append(n.Jobs, Job{Method: "twin", Device: device}, Job{Method: "twin", Device: device})
			resumed(t, n, c.method, c.ago, false)
			after(10 * delay)
			if t.Failed() {
				t.Log(what)
			}
			device.want(t, fencemethods.Off, 0)
		})
	}
}

func TestAPowerThatDoesNotComeBackIsLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		device := &slowStatus{asked: make(chan bool, 1)}
		f := serve(t, thenOn(1, device))
		f.initiate(1, 7)
		<-f.answers
		after(delay + restoreTime)
		if !strings.Contains(f.logged(), "node 1 is not powered on again") {
			t.Errorf("logged %q", f.logged())
		}
	})
}
