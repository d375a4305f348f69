// SPDX-License-Identifier: GPL-2.0-only

package o2cb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// The waits between looks at what inotify cannot tell or what could not be done yet.
const (
	firstWait = 10 * time.Millisecond
	lastWait  = time.Second
)

// rings are the events that make a watcher look again.
const rings = unix.IN_CREATE | unix.IN_DELETE | unix.IN_DELETE_SELF | unix.IN_MODIFY |
	unix.IN_MOVED_FROM | unix.IN_MOVED_TO | unix.IN_ONLYDIR

// An Event is a region that came into use or, when Gone, went out of it.
type Event struct {
	Region Region
	Gone   bool
}

// A watcher compares what there is with what was told. Inotify only rings the bell: what an event
// says is never read, so events that merge, come late or get lost in an overflow do no harm.
type watcher struct {
	fs      FS
	cluster string
	inotify *os.File
	told    map[string]told // by UUID
}

// A told region is one that handle knows. Its directory is known by its watch: the kernel does not
// use a watch's number again, so a region that went and came back in between has another.
type told struct {
	region Region
	watch  int
}

// Watch tells handle of every region of the cluster that is in use, and then of every change, until
// ctx ends; it returns ctx's error then. The cluster, and configfs, need not be there yet.
//
// A region is told as soon as it has its device, seconds before the mount that wants it goes on, and
// this node's slot may not be on disk yet. So handle may find that it is too early: when it returns
// an error, it is told the same again, at the latest after a second and as long as it is true.
// Whoever logs that error will want to do so once. Handle is called by the caller's goroutine only.
func (f FS) Watch(ctx context.Context, cluster string, handle func(Event) error) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("inotify: %w", err)
	}
	w := watcher{f, cluster, os.NewFile(uintptr(fd), "inotify"), map[string]told{}}
	defer w.inotify.Close()
	// To close it ends a read that waits.
	defer context.AfterFunc(ctx, func() { w.inotify.Close() })()

	wait := firstWait
	for ctx.Err() == nil {
		settled := w.look(handle)
		rang, err := w.listen(settled, wait)
		switch {
		case ctx.Err() != nil:
		case err != nil:
			return fmt.Errorf("inotify: %w", err)
		case rang:
			wait = firstWait
		default:
			wait = min(2*wait, lastWait)
		}
	}
	return ctx.Err()
}

// listen waits for the bell, and for no longer than wait unless all is settled.
func (w *watcher) listen(settled bool, wait time.Duration) (rang bool, err error) {
	var until time.Time
	if !settled {
		until = time.Now().Add(wait)
	}
	if err := w.inotify.SetReadDeadline(until); err != nil {
		return false, err
	}
	var events [4096]byte
	_, err = w.inotify.Read(events[:])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return false, nil
	}
	return err == nil, err
}

// look tells handle what has changed. It returns false when there is reason to look again unasked.
func (w *watcher) look(handle func(Event) error) (settled bool) {
	present, err := w.present()
	if err != nil {
		return false
	}
	settled = present.root != 0
	for uuid, t := range w.told {
		if t.watch == present.regions[uuid] && w.holds(t.region) {
			continue
		}
		if handle(Event{t.region, true}) != nil {
			settled = false
			continue
		}
		delete(w.told, uuid)
	}
	for _, uuid := range slices.Sorted(maps.Keys(present.regions)) {
		if _, ok := w.told[uuid]; ok {
			continue
		}
		// When it gets its device there will be an event, but to look again is cheap.
		r, err := w.fs.region(w.cluster, uuid)
		if err != nil || handle(Event{r, false}) != nil {
			settled = false
			continue
		}
		w.told[uuid] = told{r, present.regions[uuid]}
	}
	return settled
}

// holds says whether a region is still as it was told. When mount.ocfs2 fails it takes the device
// away again. That nothing can be read means nothing.
func (w *watcher) holds(told Region) bool {
	r, err := w.fs.region(w.cluster, told.UUID)
	if errors.Is(err, errNotReady) {
		return false
	}
	return err != nil || r == told
}

// watches are the watches of the directories that are there.
type watches struct {
	root    int // 0 without configfs or the module; neither comes with an event
	regions map[string]int
}

// present watches everything on the way to the regions. Each directory is watched before it is read:
// what comes later rings. An error means that nothing is known, not that nothing is there.
func (w *watcher) present() (watches, error) {
	all := watches{regions: map[string]int{}}
	var err error
	if all.root, err = w.watch(); err != nil || all.root == 0 {
		return all, err
	}
	for _, dir := range [][]string{{w.cluster}, {w.cluster, "heartbeat"}} {
		if watch, err := w.watch(dir...); err != nil || watch == 0 {
			return all, err
		}
	}
	uuids, err := dirs(w.fs.configfs(w.cluster, "heartbeat"))
	if err != nil && !errors.Is(err, ErrOffline) {
		return all, err
	}
	for _, uuid := range uuids {
		watch, err := w.watch(w.cluster, "heartbeat", uuid)
		if err != nil {
			return all, err
		}
		if watch != 0 {
			all.regions[uuid] = watch
		}
	}
	return all, nil
}

// watch watches a directory and returns the number of the watch, which is the same as long as the
// directory is, or 0 when there is none.
func (w *watcher) watch(below ...string) (watch int, err error) {
	conn, err := w.inotify.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = conn.Control(func(fd uintptr) {
		watch, failed = unix.InotifyAddWatch(int(fd), w.fs.configfs(below...), rings)
	})
	if errors.Is(failed, unix.ENOENT) || errors.Is(failed, unix.ENOTDIR) {
		return 0, err
	}
	return watch, errors.Join(err, failed)
}
