// SPDX-License-Identifier: GPL-2.0-only

package sandbox

import (
	"errors"
	"net"
	"path/filepath"
	"reflect"
	"runtime"
	"testing"
	"time"
)

func TestMessagesAreReadAsTheyAreWritten(t *testing.T) {
	for _, m := range []message{
		{verb: verbOpen, seq: 1, args: [3]int{1, 2, 3}, body: []byte("/usr/sbin/fence_a b")},
		{verb: verbRun, seq: 2, args: [3]int{5000}, body: []byte("action=off\npassword=\x01 x\n")},
		{verb: verbStop, seq: 1<<64 - 1, body: []byte{}},
		{verb: verbOpened, seq: 1, body: []byte{}},
		{verb: verbRefused, seq: 1, body: []byte("no")},
		{verb: verbEnded, seq: 9, end: Signaled, args: [3]int{9, 3}, body: []byte("outerr")},
	} {
		if got, err := parse(m.append(nil)); err != nil || !reflect.DeepEqual(got, m) {
			t.Errorf("%+v, %v; want %+v", got, err, m)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"open 1 2 3 4\n/p", "run 1 5\naction=off\n", "stop 1\n", "opened 1\n", "refused 1\nwhy",
		"ended 1 exited 0 3\nouterr", "ended 1 exited 0 -1\n", "ended 1 exited 0 9\nout", "run 1", "",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parse(b)
		if err != nil && !errors.Is(err, ErrMalformed) {
			t.Error(err)
		}
		if err == nil && m.verb == verbEnded {
			_ = m.body[:m.args[1]]
		}
	})
}

// Listen is what the daemon calls: no cgroup v2, no daemon, no unconfined program.
func TestWithoutCGroupV2ThereIsNoServer(t *testing.T) {
	dir := t.TempDir()
	_, err := Listen(filepath.Join(dir, "socket"), filepath.Join(dir, "cgroup"), "/bin/true")
	if !errors.Is(err, ErrNoCGroup) {
		t.Errorf("%v", err)
	}
}

func TestWithoutAServerThereIsNoJail(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "socket"), "/bin/true", Limits{}); !errors.Is(err, ErrNoServer) {
		t.Errorf("%v", err)
	}
}

// The bridge sets aside 384 KiB for the method agent, whose own buffer takes 16 of them. What is
// measured here has the buffers of the pretended server in it.
func TestAMinuteOfWaitingStaysWithinTheBudget(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "socket")
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Name: socket, Net: "unixpacket"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // opens, and never answers again
		conn, err := l.AcceptUnix()
		if err != nil {
			return
		}
		b := make([]byte, packetMax)
		n, _ := conn.Read(b)
		m, _ := parse(b[:n])
		_, _ = conn.Write(message{verb: verbOpened, seq: m.seq}.append(nil))
		_, _ = conn.Read(b)
		_, _ = conn.Read(b)
	}()
	var before, after runtime.MemStats
	ctx := within(t, 500*time.Millisecond)
	runtime.ReadMemStats(&before)
	j, err := Open(socket, "/bin/true", Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	opened := func() uint64 { runtime.ReadMemStats(&after); return after.TotalAlloc - before.TotalAlloc }()
	if _, err := j.Run(ctx, []byte("action=status\n")); err == nil {
		t.Error("no error")
	}
	runtime.ReadMemStats(&after)
	total := opened + 120*(after.TotalAlloc-before.TotalAlloc-opened)
	t.Logf("%d bytes, and %d in a minute", opened, total)
	if total > (384-16)<<10 {
		t.Errorf("%d bytes in a minute", total)
	}
}
