// SPDX-License-Identifier: GPL-2.0-only

package agentapi

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/o2fence/o2fence/bridge/kernel"
	"github.com/o2fence/o2fence/bridge/uapi"
)

const offWeb2 = "action=off\nplug=web2\n"

func TestANodeIsFencedWhenTheKernelHasSaidSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall()
		proven := false
		c.kernel.started = func(k *fakeKernel, node uint32) {
			k.end(node, uapi.EventInitiated, uapi.EventAttemptFailed, uapi.EventInitiated)
			time.Sleep(time.Minute)
			proven = true
			k.end(node, uapi.EventFenced)
		}
		c.want(t, offWeb2, ExitOK, "Success: node web2 is fenced by switch")
		if !proven {
			t.Error("FALSE SUCCESS: the kernel had not said so")
		}
	})
}

func TestAFenceThatFailsFails(t *testing.T) {
	for _, steps := range [][]uapi.Event{
		{uapi.EventInitiated, uapi.EventAttemptFailed, uapi.EventFailed},
		{uapi.EventInitiated, uapi.EventObsolete},
	} {
		synctest.Test(t, func(t *testing.T) {
			c := newCall()
			c.kernel.started = func(k *fakeKernel, node uint32) { k.end(node, steps...) }
			c.want(t, offWeb2, ExitFailed, "node web2: not fenced")
		})
	}
}

func TestEventsMayBeLost(t *testing.T) {
	for _, end := range []uapi.Event{uapi.EventNotice, uapi.EventFailed} {
		synctest.Test(t, func(t *testing.T) {
			c := newCall()
			c.kernel.deaf = true
			code := ExitFailed
			if end == uapi.EventNotice {
				code = ExitOK
			}
			c.kernel.started = func(k *fakeKernel, node uint32) {
				time.Sleep(time.Minute)
				k.end(node, end)
			}
			began := time.Now()
			c.want(t, offWeb2, code)
			if took := time.Since(began); took > time.Minute+2*lookAgain {
				t.Errorf("noticed after %v", took)
			}
		})
	}
}

func TestTheKernelsRefusalIsAFailure(t *testing.T) {
	for _, c := range []struct {
		err  error
		text string
	}{
		{&kernel.Refusal{Command: uapi.CmdFence, Errno: syscall.EPERM}, "not permitted"},
		{fmt.Errorf("fence: %w", kernel.ErrNotLoaded), "not loaded"},
	} {
		synctest.Test(t, func(t *testing.T) {
			call := newCall()
			call.kernel.refusals = []error{c.err}
			call.want(t, offWeb2, ExitFailed, c.text)
		})
	}
}

func TestThisVeryNodeCannotBeFenced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		newCall().want(t, "action=off\nplug=web0\n", ExitFailed, "can only be fenced by another")
	})
}

// A proof that is older than the call may be about a life that has ended since.
func TestAnEarlierFenceIsNoProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall()
		c.kernel.other(2, uapi.EventFenced, uapi.EventNotice)
		c.kernel.started = func(k *fakeKernel, node uint32) { k.end(node, uapi.EventFailed) }
		c.want(t, offWeb2, ExitFailed)
	})
}

func TestAFenceUnderWayIsFollowed(t *testing.T) {
	for end, code := range map[uapi.Event]int{uapi.EventFenced: ExitOK, uapi.EventFailed: ExitFailed} {
		synctest.Test(t, func(t *testing.T) {
			c := newCall()
			c.kernel.other(2, uapi.EventInitiated)
			go func() {
				time.Sleep(time.Minute)
				c.kernel.end(2, end)
			}()
			c.want(t, offWeb2, code)
			if c.kernel.lastID != 1 {
				t.Error("another request was made")
			}
		})
	}
}

func TestAFenceUnderWayThatWasProvenBeforeIsFollowedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall()
		c.kernel.other(2, uapi.EventFenced)
		go func() {
			time.Sleep(time.Minute)
			c.kernel.end(2, uapi.EventNotice)
		}()
		c.want(t, offWeb2, ExitOK)
		if c.kernel.lastID != 2 {
			t.Errorf("%d requests were made", c.kernel.lastID)
		}
	})
}

func TestAFenceUnderWayThatIsGivenUpIsFollowedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall()
		c.kernel.other(2, uapi.EventInitiated)
		go func() {
			time.Sleep(time.Minute)
			c.kernel.end(2, uapi.EventObsolete)
		}()
		c.want(t, offWeb2, ExitOK)
		if c.kernel.lastID != 2 {
			t.Errorf("%d requests were made", c.kernel.lastID)
		}
	})
}

// The history of the kernel outlives the node's last request: silence wipes that.
func TestAProofIsFoundInTheHistory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall()
		c.kernel.deaf = true
		c.kernel.started = func(k *fakeKernel, node uint32) {
			k.end(node, uapi.EventFenced, uapi.EventNotice)
			k.mu.Lock()
			defer k.mu.Unlock()
			k.last[node] = &kernel.Request{Cluster: "web", Node: node, At: map[uapi.Event]time.Time{uapi.EventSilent: time.Now()}}
		}
		c.want(t, offWeb2, ExitOK)
	})
}

func TestWhoWaitsTooLongIsToldThatItGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall()
		c.kernel.started = nil
		began := time.Now()
		c.want(t, offWeb2+"power_timeout=30\n", ExitFailed, "timed out", "the fence goes on")
		if took := time.Since(began); took != 30*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestACallThatIsEndedFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall()
		c.kernel.started = nil
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		if code := c.agent(offWeb2).Run(ctx); code != ExitFailed {
			t.Errorf("exit code %d", code)
		}
	})
}

func TestTheDelayComesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCall()
		began := time.Now()
		c.want(t, offWeb2+"delay=5s\n", ExitOK)
		if asked := c.kernel.history[0].At[uapi.EventStarted].Sub(began); asked != 5*time.Second {
			t.Errorf("asked after %v", asked)
		}
	})
}

// What dlm_controld sends: fence.c of dlm.
func TestDLMControldsFailTimeTakesALaterFenceForProof(t *testing.T) {
	for _, c := range []struct {
		text   string
		before time.Duration // that the fail time lies before the fence
		fences uint64
	}{
		{"fenced since then", 2 * time.Second, 1},
		{"fenced in the same second", 500 * time.Millisecond, 2},
		{"fenced before", -time.Second, 2},
		{"the clock was put back since", 2 * time.Hour, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			call := newCall()
			time.Sleep(500 * time.Millisecond)
			fenced := time.Now()
			call.kernel.other(2, uapi.EventFenced, uapi.EventNotice)
			if c.before > time.Hour { // it was fenced later than it is now
				call.kernel.history[0].At[uapi.EventFenced] = fenced.Add(time.Hour)
				call.kernel.last[2].At[uapi.EventFenced] = fenced.Add(time.Hour)
			}
			time.Sleep(time.Minute)
			call.want(t, fmt.Sprintf("plug=web2\nnode=3\nfail_time=%d\n", fenced.Add(-c.before).Unix()), ExitOK)
			if call.kernel.lastID != c.fences {
				t.Errorf("%s: %d fences", c.text, call.kernel.lastID)
			}
		})
	}
}
