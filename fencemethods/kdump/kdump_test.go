// SPDX-License-Identifier: GPL-2.0-only

package kdump

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/fencetest"
)

// send is fence-agents' sender, as it is in a kdump image.
const send = "/usr/libexec/fence-agents/fence_kdump_send"

const testKey = "0123456789abcdef0123456789abcdef"

var plainMessage = []byte{0x40, 0x2a, 0x30, 0x1b, 1, 0, 0, 0}

// freePort is one that nothing listens on.
func freePort(t testing.TB) int {
	t.Helper()
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).Port
}

func plainParams(port int) map[string]string {
	return map[string]string{"addrs": "127.0.0.1", "port": strconv.Itoa(port), "plain": "yes", "confirm_ms": "100"}
}

func sealedParams(t testing.TB, port int) map[string]string {
	return map[string]string{"addrs": "127.0.0.1", "port": strconv.Itoa(port), "key_file": fencetest.SecretFile(t, testKey)}
}

// open opens the only device of a port, some of whose parameters are others.
func open(t testing.TB, node uint8, params, others map[string]string) fencemethods.Device {
	t.Helper()
	return openBy(t, Method(), node, params, others)
}

// openBy opens one of several, which have m in common.
func openBy(t testing.TB, m fencemethods.Method, node uint8, params, others map[string]string) fencemethods.Device {
	t.Helper()
	params = maps.Clone(params)
	maps.Copy(params, others)
	d, err := m.Open(fencemethods.Target{Cluster: "c", Node: node, Name: fmt.Sprint("node", node)}, params)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// silence is an order that the kernel has given because the node fell silent.
func silence(ctx context.Context) context.Context {
	return fencemethods.WithRequest(ctx, fencemethods.Request{Number: 1, Incarnation: 0xabc, Attempt: 1})
}

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(silence(t.Context()), d)
	t.Cleanup(cancel)
	return ctx
}

const (
	patience = 20 * time.Second
	short    = time.Second
)

// speaker is a socket on the loopback network from which a node sends.
func speaker(t testing.TB, from string, port int) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func mustSend(t testing.TB, c *net.UDPConn, p []byte) {
	t.Helper()
	if _, err := c.Write(p); err != nil {
		t.Error(err)
	}
}

// repeat sends until the test ends, as a sender in a kdump kernel does.
func repeat(t testing.TB, c *net.UDPConn, p []byte) {
	done, ended := make(chan struct{}), make(chan struct{})
	t.Cleanup(func() { close(done); <-ended })
	go func() {
		defer close(ended)
		for {
			_, _ = c.Write(p)
			select {
			case <-done:
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
}

func wantError(t *testing.T, err, kind error, text string) {
	t.Helper()
	if !errors.Is(err, kind) || !strings.Contains(err.Error(), text) {
		t.Errorf("%v; want %v and %q", err, kind, text)
	}
	if e, ok := errors.AsType[*fencemethods.Error](err); !ok || e.Advice == "" || len(err.Error()) > 255 {
		t.Errorf("%v: does not say what to do, or is too long", err)
	}
}

// awaitHeard waits until the listener has heard what is asked for. There is nothing to see of it
// outside before a fence.
func awaitHeard(t *testing.T, d *device, heard func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		d.mu.Lock()
		ok := heard()
		d.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatal("not heard")
		}
	}
}

// bare makes a device without the one that Method.Open puts before it.
func bare(t *testing.T, params, others map[string]string) *device {
	t.Helper()
	params = maps.Clone(params)
	maps.Copy(params, others)
	m := Method()
	v, err := m.Parse(params)
	if err != nil {
		t.Fatal(err)
	}
	d, err := m.New(fencemethods.Target{Cluster: "c", Node: 1, Name: "node1"}, v)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d.(*device)
}

func TestFenceKdumpSendIsHeard(t *testing.T) {
	if _, err := os.Stat(send); err != nil {
		t.Skip("needs Debian's fence-agents:", err)
	}
	port := freePort(t)
	d := open(t, 1, plainParams(port), nil)
	done := make(chan error, 1)
	go func() { done <- d.Off(within(t, patience)) }()
	cmd := exec.CommandContext(t.Context(), send, "-f", "ipv4", "-p", strconv.Itoa(port), "-i", "1", "127.0.0.1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// As when the kdump kernel's network is another one than was configured, or an attacker's.
func TestFenceKdumpSendFromElsewhereIsNoProof(t *testing.T) {
	switch _, err := os.Stat(send); {
	case testing.Short():
		t.Skip("network namespaces are the machine's own")
	case os.Getuid() != 0:
		t.Skip("network namespaces need root")
	case err != nil:
		t.Skip("needs Debian's fence-agents:", err)
	}
	space, port := fmt.Sprint("o2kd", os.Getpid()), freePort(t)
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	run("netns", "add", space)
	t.Cleanup(func() { run("netns", "del", space) }) // and the pair of interfaces with it
	run("link", "add", space, "type", "veth", "peer", "name", "node", "netns", space)
	run("addr", "add", "198.18.77.1/24", "dev", space)
	run("link", "set", space, "up")
	run("-n", space, "addr", "add", "198.18.77.2/24", "dev", "node")
	run("-n", space, "link", "set", "node", "up")
	m := Method()
	stranger := openBy(t, m, 1, plainParams(port), map[string]string{"addrs": "198.18.77.3,127.0.0.1"})
	node := openBy(t, m, 2, plainParams(port), map[string]string{"addrs": "10.0.0.1,198.18.77.2"})
	done := make(chan error, 2)
	go func() { done <- stranger.Off(within(t, 4*time.Second)) }()
	go func() { done <- node.Off(within(t, patience)) }()
	cmd := exec.CommandContext(t.Context(), "ip", "netns", "exec", space, send, "-f", "ipv4", "-p", strconv.Itoa(port), "-i", "1", "198.18.77.1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	if err := <-done; err != nil {
		t.Error("the node itself:", err)
	}
	wantError(t, <-done, fencemethods.ErrTimeout, "no word")
}

func TestWhatCameBeforeTheFenceIsNoProof(t *testing.T) {
	port := freePort(t)
	d, c := bare(t, plainParams(port), nil), speaker(t, "127.0.0.1", port)
	mustSend(t, c, plainMessage)
	awaitHeard(t, d, func() bool { return !d.plain.IsZero() })
	wantError(t, d.Off(within(t, short)), fencemethods.ErrTimeout, "no word")
}

// The listener may have been held up, and reads only during the fence what came long before it.
func TestWhatWasReadLateIsNoProofEither(t *testing.T) {
	for _, silence := range []time.Duration{0, time.Second} {
		d := bare(t, plainParams(freePort(t)), map[string]string{"silence_ms": strconv.FormatInt(silence.Milliseconds(), 10)})
		d.begin()
		d.heardPlain(d.order.Add(-silence - time.Millisecond))
		later := d.order.Add(time.Minute)
		if done, _, err := d.verdict(later, later); done {
			t.Errorf("with %v of silence: fenced, %v", silence, err)
		}
		d.heardPlain(d.order.Add(-silence))
		if done, _, err := d.verdict(later, later); !done || err != nil {
			t.Errorf("with %v of silence: what counts just so is no proof, %v", silence, err)
		}
	}
}

// The node has been silent for longer than that when the order to fence comes.
func TestWhatCameDuringTheSilenceIsRemembered(t *testing.T) {
	port := freePort(t)
	d, c := bare(t, plainParams(port), map[string]string{"silence_ms": "600000"}), speaker(t, "127.0.0.1", port)
	mustSend(t, c, plainMessage)
	awaitHeard(t, d, func() bool { return !d.plain.IsZero() })
	if err := d.Off(within(t, patience)); err != nil {
		t.Fatal(err)
	}
	// One message proves one death.
	if err := d.Off(within(t, short)); !errors.Is(err, fencemethods.ErrTimeout) {
		t.Errorf("a second fence by the same message: %v", err)
	}
}

// The kernel calls the order off when the node's heartbeat goes on.
func TestANodeThatSpeaksAndLivesIsNotFenced(t *testing.T) {
	port := freePort(t)
	d, c := bare(t, plainParams(port), map[string]string{"confirm_ms": "10000"}), speaker(t, "127.0.0.1", port)
	ctx, cancel := context.WithTimeout(silence(t.Context()), patience)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- d.Off(ctx) }()
	repeat(t, c, plainMessage)
	awaitHeard(t, d, func() bool { return !d.since.IsZero() })
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("%v: want %v", err, context.Canceled)
	}
}

// Nobody calls that order off when the node lives, and anybody can send what would be believed.
func TestAPlainMessageIsNoProofOfAFenceByHand(t *testing.T) {
	port := freePort(t)
	m := Method()
	plain, sealed := openBy(t, m, 1, plainParams(port), nil), openBy(t, m, 1, sealedParams(t, port), nil)
	repeat(t, speaker(t, "127.0.0.1", port), plainMessage)
	newKernel(t, "127.0.0.1", port, testKey, 1).speak(t)
	for name, ctx := range map[string]context.Context{
		"by hand":           fencemethods.WithRequest(t.Context(), fencemethods.Request{Number: 1, Attempt: 1}),
		"of unknown origin": t.Context(),
	} {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		wantError(t, plain.Off(ctx), fencemethods.ErrUnsupported, "ordered by hand")
		if err := sealed.Off(ctx); err != nil {
			t.Errorf("%s, sealed: %v", name, err)
		}
	}
}

func TestAMessageThatCannotBeConfirmedInTimeIsNoProof(t *testing.T) {
	port := freePort(t)
	d := open(t, 1, plainParams(port), map[string]string{"confirm_ms": "5000"})
	repeat(t, speaker(t, "127.0.0.1", port), plainMessage)
	wantError(t, d.Off(within(t, short)), fencemethods.ErrTimeout, "confirm_ms")
}

func TestWhatIsNoMessageIsNoProof(t *testing.T) {
	port := freePort(t)
	d := open(t, 1, plainParams(port), nil)
	for _, p := range [][]byte{
		{}, plainMessage[:7], append(plainMessage[:8:8], 0), {0x40, 0x2a, 0x30, 0x1b, 2, 0, 0, 0}, {0x40, 0x2a, 0x30, 0x1b, 0, 0, 0, 1}, make([]byte, 8),
	} {
		repeat(t, speaker(t, "127.0.0.1", port), p)
	}
	wantError(t, d.Off(within(t, short)), fencemethods.ErrTimeout, "no word")
}

// Fence_kdump itself can wait for one node at a time on a machine.
func TestManyNodesCrashAtOnce(t *testing.T) {
	m, port, done := Method(), freePort(t), make(chan error)
	const nodes = 100
	for i := range nodes {
		addr := fmt.Sprintf("127.0.1.%d", i+1)
		d := openBy(t, m, uint8(i), plainParams(port), map[string]string{"addrs": addr})
		// Every other one crashes.
		if i%2 == 0 {
			repeat(t, speaker(t, addr, port), plainMessage)
		}
		go func() {
			err := d.Off(within(t, 3*time.Second))
			if (err == nil) != (i%2 == 0) {
				err = fmt.Errorf("node %d: %w", i, err)
			} else {
				err = nil
			}
			done <- err
		}()
	}
	for range nodes {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestDeadlineIsKept(t *testing.T) {
	for _, params := range []map[string]string{plainParams(freePort(t)), sealedParams(t, freePort(t))} {
		d := open(t, 1, params, nil)
		const limit = 2 * short
		fencetest.InTime(t, limit, func() {
			wantError(t, d.Off(within(t, limit)), fencemethods.ErrTimeout, "no word")
		})
	}
}

func TestCheckAsksTheListenerOfThisMachine(t *testing.T) {
	port := freePort(t)
	d := open(t, 1, plainParams(port), nil)
	if err := d.Check(within(t, patience)); err != nil {
		t.Error(err)
	}
	if state, err := d.Status(within(t, short)); state != fencemethods.Unknown || err != nil {
		t.Errorf("Status = %v, %v", state, err)
	}
	if err := d.On(within(t, short)); !errors.Is(err, fencemethods.ErrUnsupported) {
		t.Errorf("On: %v", err)
	}
}

func TestTheLastDeviceClosesTheListener(t *testing.T) {
	m, port := Method(), freePort(t)
	first, last := openBy(t, m, 1, plainParams(port), nil), openBy(t, m, 2, plainParams(port), nil)
	for _, d := range []fencemethods.Device{first, last} {
		if err := d.Check(within(t, patience)); err != nil {
			t.Error("before it is closed:", err)
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	}
	c, err := net.ListenUDP("udp", &net.UDPAddr{Port: port})
	if err != nil {
		t.Fatal("after the last one:", err)
	}
	c.Close()
}

// As fence_kdump does, for as long as it waits.
func TestAPortThatIsTakenIsTold(t *testing.T) {
	c, err := net.ListenUDP("udp", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	d := open(t, 1, plainParams(c.LocalAddr().(*net.UDPAddr).Port), nil)
	wantError(t, d.Check(within(t, short)), fencemethods.ErrBusy, "another process")
	wantError(t, d.Off(within(t, short)), fencemethods.ErrBusy, "another process")
}

// A packet that was read late came when it came.
func TestATimestampThatIsMissingMakesAMessageTooOld(t *testing.T) {
	if got := age(nil); got < time.Hour {
		t.Errorf("age %v", got)
	}
	port := freePort(t)
	d := bare(t, plainParams(port), nil)
	mustSend(t, speaker(t, "127.0.0.1", port), plainMessage)
	awaitHeard(t, d, func() bool { return !d.plain.IsZero() })
	if since := time.Since(d.plain); since < 0 || since > patience {
		t.Errorf("a message of now is of %v ago", since)
	}
}

func TestNothingIsAllocatedWhileListening(t *testing.T) {
	port := freePort(t)
	own := bare(t, sealedParams(t, port), nil)
	k := newKernel(t, "127.0.0.1", port, testKey, 1)
	hello, from := k.sealed(message{kind: kindHello}), netip.MustParseAddrPort("127.0.0.1:9")
	got := testing.AllocsPerRun(50, func() {
		own.begin()
		own.listener.heard(hello, from, time.Now())
		own.challenge()
		_, _, _ = own.verdict(time.Now(), time.Now())
		own.end()
	})
	if got > 0 {
		t.Errorf("%v allocations", got)
	}
}
