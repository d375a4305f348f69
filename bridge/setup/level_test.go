// SPDX-License-Identifier: GPL-2.0-only

package setup

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/catalog"
)

// testLevels is a node of methods that fence nothing, in two levels.
const testLevels = `fence:
	node = web1
	delay_ms = 1
	level = all
	method = test
	i_know_this_fences_nothing = yes
	file = DIR/commands
	method = test
	i_know_this_fences_nothing = yes
	retries = 1
	level = any
	method = test
	i_know_this_fences_nothing = yes
	result = fail
	method = test
	i_know_this_fences_nothing = yes
	result = hang
	level = one
	method = watchdog
`

// openLevels opens what carries that out, and returns where the commands are written.
func openLevels(t *testing.T, begin func()) (*Bridge, string) {
	t.Helper()
	dir := t.TempDir()
	cfg, err := loadText(t, strings.ReplaceAll(testLevels, "DIR", dir))
	if err != nil {
		t.Fatal(err)
	}
	bridge, err := OpenBridge(cfg, begin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bridge.Close() })
	joined, err := Cluster(cfg.Clusters[0], "web2")
	if err != nil {
		t.Fatal(err)
	}
	for i, job := range bridge.Nodes[0].Jobs {
		if s := joined.Nodes[0].Steps[i]; s.Method != job.Method || string(s.Params) != string(job.Params) {
			t.Errorf("%s %q joins as %s %q", job.Method, job.Params, s.Method, s.Params)
		}
	}
	return bridge, filepath.Join(dir, "commands")
}

func TestALevelIsCarriedAsOneMethod(t *testing.T) {
	var begun atomic.Int32
	bridge, commands := openLevels(t, func() { begun.Add(1) })
	if !bridge.Nodes[0].Jobs[0].Several {
		t.Error("it is powered on again as if it were one device")
	}
	if diff := cmp.Diff([]string{"test+test", "test|test"}, bridge.Methods); diff != "" {
		t.Error(diff)
	}
	m, err := catalog.Methods().Find("test")
	if err != nil {
		t.Fatal(err)
	}
	if want := 4 * m.MemoryKiB; bridge.HeapKiB != want || begun.Load() != 4 {
		t.Errorf("%d KiB of heap, %d goroutines; want %d and 4", bridge.HeapKiB, begun.Load(), want)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := bridge.Nodes[0].Jobs[0].Device.Off(ctx); err != nil {
		t.Error(err)
	}
	if got, err := os.ReadFile(commands); err != nil || string(got) != "off web1\n" {
		t.Errorf("commanded %q, %v", got, err)
	}
	const want = "test|test web1: off: command refused: test: told to fail; test: no proof before the deadline; run o2fencectl check"
	if err := bridge.Nodes[0].Jobs[1].Device.Off(ctx); err == nil || err.Error() != want || fencemethods.Errno(err) == 0 {
		t.Errorf("%v\nwant %s", err, want)
	}
}

func TestAMemberIsNamedByItsMachine(t *testing.T) {
	cfg := load(t)
	if got := label(cfg.Clusters[0].Nodes[0].Steps[0]); got != "ipmi 127.0.0.1" {
		t.Errorf("%q", got)
	}
}

// There are more secrets than those that o2fence has a file for.
func TestAnAgentsOptionsAreNotShown(t *testing.T) {
	const one = `fence:
	node = NAME
	method = agent
	program = /usr/sbin/fence_aws
	options = secret_key=hunter2
	allow_unsafe = yes

`
	_, err := loadText(t, strings.ReplaceAll(one, "NAME", "web1")+strings.ReplaceAll(one, "NAME", "web2"))
	if err == nil || !strings.Contains(err.Error(), "fence.conf:10: agent with options=..., program=/usr/sbin/fence_aws fences node web1 already") {
		t.Error(err)
	}
	long := strings.Replace(one, "/fence_aws", "/a/directory/with/a/long/name/fence_aws", 1)
	cfg, err := loadText(t, strings.ReplaceAll(long, "NAME", "web1"))
	if err != nil {
		t.Fatal(err)
	}
	if got := label(cfg.Clusters[0].Nodes[0].Steps[0]); got != "agent" {
		t.Errorf("%q", got)
	}
}

func TestAnAgentNeedsAnotherMethodBeforeItsLevel(t *testing.T) {
	const beside = `fence:
	node = web1
	level = any
	method = ipmi
	addr = 127.0.0.1
	user = fence
	password_file = PASSWORD
	method = agent
	program = /usr/sbin/fence_dummy
	plug = 1
`
	if _, err := loadText(t, beside); err == nil || !strings.Contains(err.Error(), "fence.conf:8: method agent: not deadlock-proof") {
		t.Errorf("beside: %v", err)
	}
	behind := strings.Replace(beside, "\tlevel = any\n", "", 1)
	behind = strings.Replace(behind, "\tmethod = agent", "\tlevel = any\n\tmethod = test\n\ti_know_this_fences_nothing = yes\n\tmethod = agent", 1)
	if _, err := loadText(t, behind); err != nil {
		t.Errorf("behind: %v", err)
	}
}

func TestWhatCannotBeReadIsNotOneOfAll(t *testing.T) {
	const level = `fence:
	node = web1
	level = RULE
	method = kdump
	addrs = 192.0.2.1
	plain = yes
	method = ipmi
	addr = 127.0.0.1
	user = fence
	password_file = PASSWORD
	after_ms = 5000
`
	if _, err := loadText(t, strings.Replace(level, "RULE", "any", 1)); err != nil {
		t.Error(err)
	}
	if _, err := loadText(t, strings.Replace(level, "RULE", "all", 1)); err == nil || !strings.Contains(err.Error(), "fence.conf:4: method kdump waits") {
		t.Error(err)
	}
}

func TestWhatANodeSaidBeforeItFellSilentIsNotBelieved(t *testing.T) {
	const kdump = `cluster:
	name = web
	missed = 3

fence:
	node = web1
	method = kdump
	addrs = 192.0.2.1
	plain = yes
	silence_ms = 6000
`
	if _, err := loadText(t, kdump); err != nil {
		t.Error(err)
	}
	const want = "fence.conf:10: silence_ms: 6001 is longer than a node is silent before it is fenced: expected at most missed times period_ms, 6000"
	if _, err := loadText(t, strings.Replace(kdump, "6000", "6001", 1)); err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("%v\nwant %s", err, want)
	}
}
