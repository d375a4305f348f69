// SPDX-License-Identifier: GPL-2.0-only

package service

import (
	"runtime"
	"testing"
)

const leftKiB = 512

func TestGarbageIsCollectedWhenThereIsSome(t *testing.T) {
	collected := 0
	s := NewSweeper(leftKiB, func() { collected++ })
	s.Sweep()
	if collected != 0 {
		t.Fatal("collected when there was none")
	}
	runtime.KeepAlive(make([]byte, leftKiB<<10))
	s.Sweep()
	if collected != 1 {
		t.Fatal("not collected")
	}
	s.Sweep()
	if collected != 1 {
		t.Error("the same garbage is collected twice")
	}
}

func TestToLookForGarbageLeavesNone(t *testing.T) {
	s := NewSweeper(leftKiB, func() {})
	if n := testing.AllocsPerRun(100, s.Sweep); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
