// SPDX-License-Identifier: GPL-2.0-only

package gate

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/o2fence/o2fence/bridge/config"
	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/ipban/filter"
	"github.com/o2fence/o2fence/test/netns"
)

const (
	patience = 20 * time.Second
	short    = 500 * time.Millisecond
)

var (
	web1 = []netip.Addr{netip.MustParseAddr("198.18.4.1"), netip.MustParseAddr("2001:db8:4::1")}
	web2 = []netip.Addr{netip.MustParseAddr("198.18.4.2")}
	here = "198.18.4.9"
)

// A fixture is a gate in a network namespace of its own, which the test's goroutine has entered, beside
// one for the nodes.
type fixture struct {
	*testing.T
	*Gate
	filter      *filter.Filter
	state       string
	config      config.IPBan
	nodes, here *netns.Space
}

func newFixture(t *testing.T) *fixture {
	x := &fixture{T: t, nodes: netns.New(t), here: netns.New(t), state: filepath.Join(t.TempDir(), "ipban.json")}
	netns.Link(x.nodes, x.here, []string{"198.18.4.1/24", "198.18.4.2/24", "2001:db8:4::1/64"}, []string{here + "/24", "2001:db8:4::9/64"})
	x.config = config.IPBan{Target: "other", Nodes: []config.IPBanNode{
		{Cluster: "c", Name: "web1", Number: 1, Addresses: web1}, {Cluster: "c", Name: "web2", Number: 2, Addresses: web2},
	}}
	x.here.Enter()
	var err error
	if x.filter, err = filter.Open(filter.INet); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.filter.Close() })
	x.start()
	return x
}

// start starts the gate, as after a restart of its process.
func (x *fixture) start() {
	x.Helper()
	var err error
	if x.Gate, err = Open(&x.config, x.filter, x.state); err != nil {
		x.Fatal(err)
	}
	if _, err := x.Restore(); err != nil {
		x.Fatal(err)
	}
}

func (x *fixture) node(i int) *Node { return x.Nodes()[i] }

func (x *fixture) within(d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(x.Context(), d)
	x.Cleanup(cancel)
	return ctx
}

func (x *fixture) mustOff(i int) {
	x.Helper()
	if err := x.node(i).Off(x.within(patience)); err != nil {
		x.Fatal(err)
	}
}

func (x *fixture) mustStatus(i int, want fencemethods.State) {
	x.Helper()
	if got, err := x.node(i).Status(x.within(patience)); got != want || (err == nil) != (want != fencemethods.Unknown) {
		x.Errorf("%s is %v, %v; want %v", x.node(i).Name, got, err, want)
	}
}

// connect makes a connection from a node: its end, and the target's.
func (x *fixture) connect(from string) (far, near net.Conn) {
	x.Helper()
	l, err := net.Listen("tcp4", net.JoinHostPort(here, "0"))
	if err != nil {
		x.Fatal(err)
	}
	defer l.Close()
	x.nodes.Do(func() (err error) {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: patience}
		far, err = d.Dial("tcp", l.Addr().String())
		return err
	})
	if near, err = l.Accept(); err != nil {
		x.Fatal(err)
	}
	x.Cleanup(func() { far.Close(); near.Close() })
	return far, near
}

func TestANodeIsBannedAndLetInAgain(t *testing.T) {
	x := newFixture(t)
	_, near := x.connect("198.18.4.1")
	far2, near2 := x.connect("198.18.4.2")
	x.mustStatus(0, fencemethods.On)
	x.mustOff(0)
	x.mustStatus(0, fencemethods.Off)
	x.mustStatus(1, fencemethods.On)
	if _, err := near.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the target's connection: %v", err)
	}
	if _, err := far2.Write([]byte{1}); err != nil {
		t.Fatal(err)
	}
	if _, err := near2.Read(make([]byte, 1)); err != nil {
		t.Errorf("the other node's connection: %v", err)
	}
	x.mustOff(0)
	if err := x.node(0).On(x.within(patience)); err != nil {
		t.Fatal(err)
	}
	x.mustStatus(0, fencemethods.On)
	x.connect("198.18.4.1")
	x.mustOff(0)
}

// What came in before the ban is written by a target that is slow after it.
func TestANodeIsNotOffBeforeTheTargetHasReadWhatItSent(t *testing.T) {
	x := newFixture(t)
	far, near := x.connect("198.18.4.1")
	if _, err := far.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := x.node(0).Off(x.within(short)); !errors.Is(err, errUnread) {
		t.Errorf("%v, want %v", err, errUnread)
	}
	x.mustStatus(0, fencemethods.Unknown)
	if n, err := io.ReadFull(near, make([]byte, 1000)); err != nil {
		t.Fatalf("%d bytes, %v", n, err)
	}
	x.mustOff(0)
}

func TestANodeIsNotOffBeforeTheTargetHasSettled(t *testing.T) {
	x := newFixture(t)
	x.config.SettleMS = 2000
	x.start()
	begun := time.Now()
	if err := x.node(0).Off(x.within(short)); !errors.Is(err, errSettling) {
		t.Errorf("%v, want %v", err, errSettling)
	}
	x.mustOff(0)
	if took := time.Since(begun); took < 2*time.Second {
		t.Errorf("off after %v", took)
	}
}

func TestABanOutlivesProcessAndRules(t *testing.T) {
	x := newFixture(t)
	x.mustOff(0)
	x.start()
	x.mustStatus(0, fencemethods.Off)
	x.mustStatus(1, fencemethods.On)
	x.here.Run("nft", "flush ruleset") // as at a boot, or by an administrator
	if state, err := x.node(0).Status(x.within(patience)); state != fencemethods.Unknown || err == nil {
		t.Errorf("without rules: %v, %v", state, err)
	}
	x.start()
	x.mustStatus(0, fencemethods.Off)
}

func TestAFilterThatWasAlteredIsPutRightAndTheProofWithIt(t *testing.T) {
	for name, script := range map[string]string{
		"all rules":   "flush ruleset",
		"one address": "delete element inet o2fence banned4 { 198.18.4.1 }",
	} {
		t.Run(name, func(t *testing.T) {
			x := newFixture(t)
			x.mustOff(0)
			x.here.Run("nft", script)
			_, near := x.connect("198.18.4.1") // which only now is possible
			if changed, err := x.Restore(); !changed || err != nil {
				t.Fatalf("Restore = %v, %v", changed, err)
			}
			x.mustOff(0)
			if _, err := near.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) {
				t.Errorf("a connection from meanwhile: %v", err)
			}
			if changed, err := x.Restore(); changed || err != nil {
				t.Errorf("Restore of a filter that stands = %v, %v", changed, err)
			}
		})
	}
}

func TestHalfABanIsUnknown(t *testing.T) {
	x := newFixture(t)
	x.mustOff(0)
	if err := x.filter.Allow(web1[:1]); err != nil {
		t.Fatal(err)
	}
	x.mustStatus(0, fencemethods.Unknown)
	x.mustOff(0)
	if err := x.filter.Allow(web1); err != nil {
		t.Fatal(err)
	}
	x.mustStatus(0, fencemethods.Unknown) // none is in the filter, but the next start would ban it
	x.mustOff(0)
	if err := os.Remove(x.state); err != nil {
		t.Fatal(err)
	}
	x.mustStatus(0, fencemethods.Unknown) // and here it would not
}

// A node that lives resets itself when it has been without its disk for long enough, not before.
func TestANodeIsHeldForATime(t *testing.T) {
	x := newFixture(t)
	x.config.HoldMS = 3600000
	x.start()
	x.mustOff(0)
	for _, when := range []string{"after the ban", "after a restart"} {
		err := x.node(0).On(x.within(patience))
		if !errors.Is(err, fencemethods.ErrBusy) || !strings.Contains(err.Error(), "banned for 3") {
			t.Errorf("%s: %v", when, err)
		}
		x.start()
	}
	x.mustStatus(0, fencemethods.Off)
	if err := x.Release("", "web1"); err != nil {
		t.Fatal(err)
	}
	x.mustStatus(0, fencemethods.On)
	if err := x.Release("", "web1"); err == nil {
		t.Error("released twice")
	}
}

// A meddler is a target that has finished, and does something meanwhile.
type meddler func()

func (m meddler) working(context.Context, *config.IPBanNode) (bool, error) {
	m()
	return false, nil
}

// The last look at the filter comes after all else: what got through before may have reached the target.
func TestAFilterThatFallsDuringTheProofProvesNothing(t *testing.T) {
	const hole = "delete element inet o2fence banned4 { 198.18.4.1 }"
	x := newFixture(t)
	x.target = meddler(func() { x.here.Run("nft", hole) })
	if err := x.node(0).ban(); err != nil {
		t.Fatal(err)
	}
	if err := x.node(0).prove(x.within(patience)); !errors.Is(err, errPartly) {
		t.Errorf("it is down still: %v, want %v", err, errPartly)
	}
	if err := x.node(0).ban(); err != nil {
		t.Fatal(err)
	}
	x.target = meddler(func() {
		x.here.Run("nft", hole)
		if _, err := x.Restore(); err != nil {
			t.Error(err)
		}
	})
	if err := x.node(0).prove(x.within(patience)); !errors.Is(err, errAltered) {
		t.Errorf("it stands again: %v, want %v", err, errAltered)
	}
	x.target = meddler(func() { _ = os.Remove(x.state) })
	if err := x.node(0).prove(x.within(patience)); !errors.Is(err, errNotKept) {
		t.Errorf("it would be let in by a restart: %v, want %v", err, errNotKept)
	}
	x.target = meddler(func() {})
	x.mustOff(0)
}

// What is in no queue yet at the first look is in one at the second.
func TestConnectionsAreLookedAtTwiceBeforeTheyAreEnded(t *testing.T) {
	x := newFixture(t)
	_, near := x.connect("198.18.4.1")
	if err := x.node(0).ban(); err != nil {
		t.Fatal(err)
	}
	if err := x.node(0).prove(x.within(patience)); !errors.Is(err, errUnread) {
		t.Errorf("at first: %v, want %v", err, errUnread)
	}
	_ = near.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection after the first look: %v", err)
	}
	if err := x.node(0).prove(x.within(patience)); !errors.Is(err, errConnected) {
		t.Errorf("then: %v, want %v", err, errConnected)
	}
	x.mustOff(0)
}

// A connection that is there again has the time begin anew in which the target settles.
func TestTheTargetSettlesOnceTheLastConnectionIsGone(t *testing.T) {
	x := newFixture(t)
	x.config.SettleMS = 3600000
	x.start()
	n := x.node(0)
	if err := n.ban(); err != nil {
		t.Fatal(err)
	}
	if err := n.prove(x.within(patience)); !errors.Is(err, errSettling) || n.proof.quiet.IsZero() {
		t.Fatalf("%v, want %v", err, errSettling)
	}
	x.here.Run("nft", "delete element inet o2fence banned4 { 198.18.4.1 }")
	x.connect("198.18.4.1")
	x.here.Run("nft", "add element inet o2fence banned4 { 198.18.4.1 }")
	if err := n.prove(x.within(patience)); !errors.Is(err, errUnread) || !n.proof.quiet.IsZero() {
		t.Errorf("%v, quiet since %v", err, n.proof.quiet)
	}
}

// Whom the configuration no longer has stays banned, by the addresses that it had.
func TestABanOutlivesAChangeOfTheConfiguration(t *testing.T) {
	x := newFixture(t)
	x.mustOff(0)
	x.config.Nodes = []config.IPBanNode{{Cluster: "c", Name: "web2", Number: 2, Addresses: web1[:1]}}
	x.here.Run("nft", "flush ruleset")
	x.start()
	banned, err := x.filter.Banned()
	if err != nil || !slices.Contains(banned, web1[0]) || !slices.Contains(banned, web1[1]) {
		t.Errorf("banned: %v, %v", banned, err)
	}
	x.mustOff(0) // web2, with an address that was web1's
	if err := x.Release("c", "web1"); err != nil {
		t.Fatal(err)
	}
	x.mustStatus(0, fencemethods.Off)
}

// It was configured by another number when it was banned, which nobody has any more.
func TestANodeIsNotBackWhileItIsBannedByAnotherNumber(t *testing.T) {
	x := newFixture(t)
	x.mustOff(0)
	x.config.Nodes[0].Number = 3
	x.start()
	x.mustOff(0)
	left, err := x.Strangers()
	want := []fencemethods.Target{{Cluster: "c", Node: 1, Name: "web1"}}
	if diff := cmp.Diff(want, left); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
	if err := x.node(0).On(x.within(patience)); !errors.Is(err, fencemethods.ErrRefused) || !strings.Contains(err.Error(), "still banned") {
		t.Errorf("let in again: %v", err)
	}
	if err := x.Release("", "web1"); err != nil {
		t.Fatal(err)
	}
	x.mustStatus(0, fencemethods.On)
	x.mustOff(0)
	x.config.Nodes[0].Number = 4
	x.start()
	x.mustOff(0)
	if err := x.Release("c", "web1"); err != nil { // all of them
		t.Fatal(err)
	}
	x.mustStatus(0, fencemethods.On)
	x.connect("198.18.4.1")
}

func TestAStateThatIsNotUnderstoodIsNotTakenForNone(t *testing.T) {
	x := newFixture(t)
	for _, text := range []string{"", "{", `{"version":2,"banned":[]}`, `{"version":1,"baned":[]}`, `{"version":1,"banned":[]}{}`} {
		if err := os.WriteFile(x.state, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(&x.config, x.filter, x.state); err == nil || !strings.Contains(err.Error(), "not a list of banned nodes") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestABanThatCannotBeKeptIsNone(t *testing.T) {
	x := newFixture(t)
	if err := x.node(0).Check(x.within(patience)); err != nil {
		t.Error(err)
	}
	x.store.name = "/proc/ipban.json" // where no file can be made
	if err := x.node(0).Check(x.within(patience)); err == nil {
		t.Error("Check says that all is well")
	}
	if err := x.node(0).Off(x.within(short)); !errors.Is(err, fencemethods.ErrRefused) {
		t.Errorf("%v, want %v", err, fencemethods.ErrRefused)
	}
}

// Taken from tgt 1.0.85.
const shown = `Target 1: iqn.2026-01.test:disk
    System information:
        Driver: iscsi
        State: ready
    I_T nexus information:
        I_T nexus: 2
            Initiator: iqn.2026-01.test:web1 alias: web1
            Connection: 0
                IP Address: 198.18.4.1
        I_T nexus: 3
            Initiator: iqn.2026-01.test:web2 alias: none
            Connection: 0
                IP Address: ::ffff:198.18.4.2
        I_T nexus: 4
            Initiator: iqn.2026-01.test:web3 alias: none
            Connection: 0
                
    LUN information:
        LUN: 0
            Type: controller
    Account information:
    ACL information:
        ALL
`

func TestSessionsOfATgtAreTold(t *testing.T) {
	want := []session{
		{"iqn.2026-01.test:web1", []netip.Addr{web1[0]}},
		{"iqn.2026-01.test:web2", []netip.Addr{web2[0]}},
		{"iqn.2026-01.test:web3", []netip.Addr{{}}},
	}
	got, err := parseTargets(shown)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(session{}), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || err != nil {
		t.Error(err, diff)
	}
}

// Nor is one of an unknown form: no session would be seen in it.
func TestAListOfTargetsThatIsCutShortIsNotTakenForOneWithoutSessions(t *testing.T) {
	lines := strings.SplitAfter(shown, "\n")
	for n := 1; !strings.Contains(strings.Join(lines[:n], ""), "ACL"); n++ {
		if got, err := parseTargets(strings.Join(lines[:n], "")); !errors.Is(err, errTargets) {
			t.Errorf("%d lines: %v, %v", n, got, err)
		}
	}
	for _, text := range []string{"no targets here\n", strings.ReplaceAll(shown, "I_T nexus information", "Sessions"), strings.TrimSuffix(shown, "    ACL information:\n        ALL\n") + shown} {
		if got, err := parseTargets(text); !errors.Is(err, errTargets) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	if _, err := parseTargets(""); err != nil {
		t.Errorf("a tgtd without targets: %v", err)
	}
}

// A session is the node's by whichever of its connections.
func TestASessionOfSeveralConnectionsIsTheNodesByAnyOfThem(t *testing.T) {
	const second = "            Connection: 1\n                IP Address: 203.0.113.9\n"
	text := strings.Replace(shown, "198.18.4.1\n", "198.18.4.1\n"+second, 1)
	text = text[:strings.Index(text, "        I_T nexus: 3")] + text[strings.Index(text, "    LUN"):]
	node := &config.IPBanNode{Addresses: web1}
	if working, err := showing(t, text).working(t.Context(), node); !working || err != nil {
		t.Errorf("working: %v, %v", working, err)
	}
}

// showing is a tgtadm that shows a text.
func showing(t *testing.T, text string) tgt {
	t.Helper()
	tool := filepath.Join(t.TempDir(), "tgtadm")
	if err := os.WriteFile(tool, []byte("#!/bin/sh\ncat <<'END'\n"+text+"END\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return tgt{tool}
}

func TestATgtWorksForANodeUntilItsSessionIsGone(t *testing.T) {
	n := &config.IPBanNode{Addresses: web1, Initiators: []string{"iqn.2026-01.test:web1"}}
	before, _, _ := strings.Cut(shown, "        I_T nexus: 2")
	_, after, _ := strings.Cut(shown, "    LUN information")
	for name, c := range map[string]struct {
		sessions string
		working  bool
		err      string
	}{
		"none":                   {"", false, ""},
		"its own":                {"I_T nexus: 2\nInitiator: iqn.2026-01.test:web1 alias: web1\nIP Address: 198.18.4.1\n", true, ""},
		"its other address":      {"I_T nexus: 2\nInitiator: x alias: none\nIP Address: 2001:db8:4::1\n", true, ""},
		"another's":              {"I_T nexus: 2\nInitiator: x alias: none\nIP Address: 198.18.4.2\n", false, ""},
		"whose, nobody knows":    {"I_T nexus: 2\nInitiator: x alias: none\n\n", true, ""},
		"from a strange address": {"I_T nexus: 2\nInitiator: iqn.2026-01.test:web1 alias: none\nIP Address: 198.18.4.3\n", false, "not one of its addresses"},
		"another's and its own":  {"I_T nexus: 2\nInitiator: x alias: x\nIP Address: 198.18.4.2\nI_T nexus: 3\nInitiator: x alias: x\nIP Address: 198.18.4.1\n", true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			working, err := showing(t, before+c.sessions+"    LUN information"+after).working(t.Context(), n)
			if working != c.working || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%v, %v; want %v, %q", working, err, c.working, c.err)
			}
		})
	}
}

func TestATgtThatDoesNotAnswerIsNoProof(t *testing.T) {
	t.Setenv("TGT_IPC_SOCKET", filepath.Join(t.TempDir(), "nobody"))
	for _, tool := range []string{"tgtadm", "/nowhere/tgtadm"} {
		if working, err := (tgt{tool}).working(t.Context(), &config.IPBanNode{}); err == nil {
			t.Errorf("%s: %v", tool, working)
		}
	}
}
