// SPDX-License-Identifier: GPL-2.0-only

package dispatch

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
