// SPDX-License-Identifier: GPL-2.0-only

package scsi

import (
	"context"
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

const (
	disk1 = "naa.60014055d2c0e8ba141f76c93ee027b5"
	disk2 = "naa.50014055d2c0e8ba"
)

// A host is an initiator with some paths to each disk.
type host struct {
	number uint8
	paths  map[string][]*nexus
}

func newHost(number uint8, paths int, luns ...*lun) *host {
	h := &host{number: number, paths: map[string][]*nexus{}}
	for _, l := range luns {
		for i := range paths {
			h.paths[l.wwid] = append(h.paths[l.wwid], l.path("sd"+string(rune('a'+i))))
		}
	}
	return h
}

func (h *host) open(wwid string) ([]bus, error) {
	var all []bus
	for _, n := range h.paths[wwid] {
		all = append(all, &handle{nexus: n})
	}
	return all, nil
}

// device is what this host has for another node.
func (h *host) device(t *testing.T, node uint8, others map[string]string) fencemethods.Device {
	t.Helper()
	var names []string
	for name := range h.paths {
		names = append(names, name)
	}
	params := map[string]string{"disks": strings.Join(names, ",")}
	maps.Copy(params, others)
	return open(t, h.number, node, params, h.open)
}

func open(t *testing.T, from, node uint8, params map[string]string, by opener) fencemethods.Device {
	t.Helper()
	d, err := method(by).Open(fencemethods.Target{Cluster: "web", Node: node, Name: "victim", Member: true, From: from}, params)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// join registers the host.
func (h *host) join(t *testing.T, others map[string]string) {
	t.Helper()
	if err := h.device(t, h.number, others).On(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
}

func (h *host) writes() bool {
	for _, paths := range h.paths {
		for _, n := range paths {
			if n.writes() {
				return true
			}
		}
	}
	return false
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// pair is two hosts that have joined.
func pair(t *testing.T, paths int, luns ...*lun) (a, b *host) {
	t.Helper()
	a, b = newHost(1, paths, luns...), newHost(2, paths, luns...)
	a.join(t, nil)
	b.join(t, nil)
	return a, b
}

func wantError(t *testing.T, err, kind error, text string) {
	t.Helper()
	e, ok := errors.AsType[*fencemethods.Error](err)
	switch {
	case !ok || !errors.Is(err, kind) || !strings.Contains(err.Error(), text):
		t.Errorf("%v; want %v with %q", err, kind, text)
	case e.Advice == "" || len(err.Error()) > 255:
		t.Errorf("%v: says not what to do, or is too long", err)
	}
}

func wantState(t *testing.T, d fencemethods.Device, want fencemethods.State) {
	t.Helper()
	if got, err := d.Status(within(t, 2*time.Second)); got != want {
		t.Errorf("Status = %v, %v; want %v", got, err, want)
	}
}
