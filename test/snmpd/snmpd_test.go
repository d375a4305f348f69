// SPDX-License-Identifier: GPL-2.0-only

package snmpd

import (
	"context"
	"errors"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

const root = ".1.3.6.1.4.1.318.1.1.12"

// objects are a number that can be set to 1 and 2, and two that cannot, out of order.
func objects(n *atomic.Int32) []Object {
	return []Object{
		{Name: root + ".10", Root: root, Get: func() any { return "last" }},
		{Name: root + ".9", Root: root, Get: func() any { return nil }},
		{Name: root + ".3", Root: root, Get: func() any { return int(n.Load()) }, Set: func(value int) error {
			if value > 2 {
				return errors.New("what?")
			}
			n.Store(int32(value))
			return nil
		}},
	}
}

func start(t *testing.T, n *atomic.Int32) *Agent {
	t.Helper()
	a, err := Start(soon(t), t.TempDir(), Config{
		Community: "private", ReadOnly: "public", SysObjectID: ".1.3.6.1.4.1.318.1.3.4.5", SysName: "pdu1",
		Users:   []User{{Name: "fence", Auth: "SHA-256", AuthPass: "authentication", Priv: "AES", PrivPass: "encryption"}},
		Objects: objects(n),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close() })
	return a
}

func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// ask runs one of net-snmp's programs and returns the first line of what it says.
func ask(t *testing.T, a *Agent, program string, words ...string) string {
	t.Helper()
	login := []string{"-v2c", "-c", "private"}
	if strings.HasPrefix(words[0], "-") {
		login, words = strings.Fields(words[0]), words[1:]
	}
	args := append(login, "-m", "", "-t", "5", "-Onqe", a.Addr().String())
	out, _ := exec.CommandContext(soon(t), program, append(args, words...)...).CombinedOutput()
	return strings.TrimSpace(string(out))
}

func TestObjectsAreTheCallers(t *testing.T) {
	var n atomic.Int32
	n.Store(1)
	a := start(t, &n)
	for _, c := range []struct {
		words []string
		want  string
	}{
		{[]string{"snmpget", ".1.3.6.1.2.1.1.2.0"}, ".1.3.6.1.2.1.1.2.0 .1.3.6.1.4.1.318.1.3.4.5"},
		{[]string{"snmpget", ".1.3.6.1.2.1.1.5.0"}, `.1.3.6.1.2.1.1.5.0 "pdu1"`},
		{[]string{"snmpget", root + ".3"}, root + ".3 1"},
		{[]string{"snmpget", root + ".4"}, root + ".4 No Such Instance currently exists at this OID"},
		{[]string{"snmpget", root + ".9"}, root + ".9 No Such Instance currently exists at this OID"},
		{[]string{"snmpset", root + ".3", "i", "2"}, root + ".3 2"},
		{[]string{"snmpwalk", root}, root + ".3 2\n" + root + `.10 "last"`},
		{[]string{"snmpset", root + ".3", "i", "3"}, "wrongValue"},
		{[]string{"snmpset", root + ".3", "s", "1"}, "wrongType"},
		{[]string{"snmpset", root + ".10", "i", "1"}, "notWritable"},
		{[]string{"snmpset", "-v2c -c public", root + ".3", "i", "1"}, "noAccess"},
		{[]string{"snmpset", "-v3 -u fence -l authPriv -a SHA-256 -A authentication -x AES -X encryption", root + ".3", "i", "1"}, root + ".3 1"},
	} {
		if got := ask(t, a, c.words[0], c.words[1:]...); !strings.Contains(got, c.want) {
			t.Errorf("%q: %q, want %q", c.words, got, c.want)
		}
	}
	if n.Load() != 1 {
		t.Errorf("the number is %d", n.Load())
	}
}

func TestARestartedAgentIsWhereItWas(t *testing.T) {
	var n atomic.Int32
	a := start(t, &n)
	before, engineBoots := a.Addr(), ".1.3.6.1.6.3.10.2.1.2.0"
	boots := ask(t, a, "snmpget", engineBoots)
	if err := a.Restart(soon(t)); err != nil {
		t.Fatal(err)
	}
	if got := ask(t, a, "snmpget", root+".3"); a.Addr() != before || got != root+".3 0" {
		t.Errorf("at %v, was at %v; it says %q", a.Addr(), before, got)
	}
	if after := ask(t, a, "snmpget", engineBoots); after == boots {
		t.Errorf("its engine counts %q boots, as before", after)
	}
}
