// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"runtime"
	"testing"
)

func TestGarbageIsCollectedWhenThereIsSome(t *testing.T) {
	collected := 0
	s := newSweeper(func() { collected++ })
	s.sweep()
	if collected != 0 {
		t.Fatal("collected when there was none")
	}
	runtime.KeepAlive(make([]byte, leftKiB<<10))
	s.sweep()
	if collected != 1 {
		t.Fatal("not collected")
	}
	s.sweep()
	if collected != 1 {
		t.Error("the same garbage is collected twice")
	}
}

func TestToLookForGarbageLeavesNone(t *testing.T) {
	s := newSweeper(func() {})
	if n := testing.AllocsPerRun(100, s.sweep); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
