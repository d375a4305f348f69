// SPDX-License-Identifier: GPL-2.0-only

package o2cb_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/o2fence/o2fence/bridge/o2cb"
)

// patience only ends a test that has failed already.
const patience = 30 * time.Second

// A watch is a Watch that runs: each event waits until the test has taken it and answered.
type watch struct {
	tree
	events  chan o2cb.Event
	answers chan error
	done    chan error
	cancel  context.CancelFunc
}

func (t tree) watch() watch {
	ctx, cancel := context.WithCancel(t.Context())
	w := watch{t, make(chan o2cb.Event), make(chan error), make(chan error, 1), cancel}
	go func() {
		w.done <- t.fs().Watch(ctx, "eco", func(e o2cb.Event) error {
			select {
			case w.events <- e:
			case <-ctx.Done():
				return ctx.Err()
			}
			select {
			case err := <-w.answers:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		})
	}()
	return w
}

// next takes the next event and leaves the watcher waiting for its answer.
func (w watch) next() o2cb.Event {
	w.Helper()
	select {
	case e := <-w.events:
		return e
	case err := <-w.done:
		w.Fatal("the watch ended: ", err)
	case <-time.After(patience):
		w.Fatal("no event")
	}
	return o2cb.Event{}
}

func (w watch) want(uuid string, gone bool) {
	w.Helper()
	e := w.next()
	if diff := cmp.Diff(o2cb.Event{Region: regionOn(uuid, "vda", "254:0"), Gone: gone}, e); diff != "" {
		w.Fatalf("-want +got:\n%s", diff)
	}
	w.answers <- nil
}

func TestRegionsAreToldAsTheyComeAndGo(t *testing.T) {
	tree := newTree(t)
	tree.online("local")
	tree.use(uuidA, "vda")
	w := tree.watch()
	w.want(uuidA, false)
	w.use(uuidB, "vda")
	w.want(uuidB, false)
	w.remove(region(uuidA))
	w.want(uuidA, true)
}

// TestRegionIsToldOnceItHasItsDevice: the region before it in the alphabet has none, and is not told.
func TestRegionIsToldOnceItHasItsDevice(t *testing.T) {
	tree := newTree(t)
	tree.online("local")
	w := tree.watch()
	w.prepare(uuidA)
	w.use(uuidB, "vda")
	w.want(uuidB, false)
	w.use(uuidA, "vda")
	w.want(uuidA, false)
}

func TestWatchBeginsBeforeThereIsACluster(t *testing.T) {
	for name, exists := range map[string]string{
		"no configfs":   "sys/kernel",
		"no module":     "sys/kernel/config",
		"no cluster":    cluster,
		"another one's": cluster + "/other/heartbeat",
		"no heartbeat":  cluster + "/eco",
	} {
		t.Run(name, func(t *testing.T) {
			tree := newTree(t)
			tree.mkdir(exists)
			w := tree.watch()
			w.use(uuidA, "vda")
			w.want(uuidA, false)
		})
	}
}

func TestClusterThatGoesOfflineAndOnlineAgain(t *testing.T) {
	tree := newTree(t)
	tree.use(uuidA, "vda")
	w := tree.watch()
	w.want(uuidA, false)
	w.remove(cluster)
	w.want(uuidA, true)
	w.use(uuidB, "vda")
	w.want(uuidB, false)
}

// TestRegionThatWentAndCameBackIsToldTwice: its heartbeat is another one. It happens while the
// watcher is kept busy, so that it cannot see the region missing.
func TestRegionThatWentAndCameBackIsToldTwice(t *testing.T) {
	tree := newTree(t)
	tree.use(uuidA, "vda")
	w := tree.watch()
	w.want(uuidA, false)
	w.use(uuidB, "vda")
	w.next()
	w.remove(region(uuidA))
	w.use(uuidA, "vda")
	w.answers <- nil
	w.want(uuidA, true)
	w.want(uuidA, false)
}

func TestWhatCouldNotBeHandledIsToldAgain(t *testing.T) {
	tree := newTree(t)
	tree.use(uuidA, "vda")
	w := tree.watch()
	for range 3 {
		w.next()
		w.answers <- errors.New("its slot is not written yet")
	}
	w.want(uuidA, false)
	w.remove(region(uuidA))
	w.next()
	w.answers <- errors.New("the kernel is busy")
	w.want(uuidA, true)
}

func TestRegionThatLosesItsDeviceIsGone(t *testing.T) {
	tree := newTree(t)
	tree.use(uuidA, "vda")
	w := tree.watch()
	w.want(uuidA, false)
	w.write(region(uuidA)+"/dev", "")
	w.want(uuidA, true)
	w.write(region(uuidA)+"/dev", "vda\n")
	w.want(uuidA, false)
}

// TestRegionThatWasNeverHandledIsNotToldGone: whoever refused it does not have it.
func TestRegionThatWasNeverHandledIsNotToldGone(t *testing.T) {
	tree := newTree(t)
	tree.use(uuidA, "vda")
	w := tree.watch()
	w.next()
	w.remove(region(uuidA))
	w.use(uuidB, "vda")
	w.answers <- errors.New("no such device")
	w.want(uuidB, false)
}

// TestOverflowLosesNothing fills inotify's queue while the watcher is kept busy.
func TestOverflowLosesNothing(t *testing.T) {
	text, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		t.Fatal(err)
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || limit > 1<<16 {
		t.Skip("the queue is too long to fill: ", limit, err)
	}
	tree := newTree(t)
	tree.use(uuidA, "vda")
	w := tree.watch()
	w.next()
	for range limit/2 + 1 {
		w.mkdir(region("x"))
		w.remove(region("x"))
	}
	w.use(uuidB, "vda")
	w.remove(region(uuidA))
	w.answers <- nil
	w.want(uuidA, true)
	w.want(uuidB, false)
}

func TestWatchEndsWithItsContext(t *testing.T) {
	tree := newTree(t)
	tree.use(uuidA, "vda")
	w := tree.watch()
	w.want(uuidA, false)
	w.cancel()
	select {
	case err := <-w.done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("it ended with %v", err)
		}
	case <-time.After(patience):
		t.Error("it did not end")
	}
}
