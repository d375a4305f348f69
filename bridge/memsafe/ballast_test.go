// SPDX-License-Identifier: GPL-2.0-only

package memsafe

import (
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const testBallastKiB = 16 << 10

func TestABallastIsMemoryUntilItIsDropped(t *testing.T) {
	before := status("VmRSS")
	b, err := TakeBallast(testBallastKiB, newReserve(t).Reserve)
	if err != nil {
		t.Fatal(err)
	}
	held := status("VmRSS")
	if b.Held() != testBallastKiB || held-before < testBallastKiB*3/4 {
		t.Errorf("%d KiB are held, %d KiB of memory", b.Held(), held-before)
	}
	b.Drop()
	if dropped := status("VmRSS"); b.Held() != 0 || held-dropped < testBallastKiB*3/4 {
		t.Errorf("%d KiB are held after the drop, %d KiB of memory were freed", b.Held(), held-dropped)
	}
	b.memory[0] = 1
	b.Drop()
	if b.memory[0] != 1 {
		t.Error("the kernel is asked to look for pages where there are none to drop")
	}
}

func TestABallastIsTakenAgainWhenMemoryIsFree(t *testing.T) {
	r := newReserve(t)
	synctest.Test(t, func(t *testing.T) {
		b, err := TakeBallast(2*sliceKiB, r.Reserve)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Drop()
		r.set(1 << 40) // more than is free: memory is short
		b.Drop()
		go b.Refill(t.Context(), time.Minute, func() bool { return false })
		time.Sleep(10*time.Minute + time.Second)
		if b.Held() != 0 {
			t.Error("it is taken again while memory is short")
		}
		r.set(0)
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if b.Held() != sliceKiB {
			t.Errorf("%d KiB are held after the first look", b.Held())
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if !b.full() {
			t.Errorf("%d KiB are held", b.Held())
		}
	})
}

// What the ballast asks the kernel for, a fence must not have to wait behind.
func TestABallastIsNotTakenAgainWhileAFenceIsUnderWay(t *testing.T) {
	r := newReserve(t)
	synctest.Test(t, func(t *testing.T) {
		b, err := TakeBallast(2*sliceKiB, r.Reserve)
		if err != nil {
			t.Fatal(err)
		}
		defer b.Drop()
		r.set(0)
		b.Drop()
		var free atomic.Int64 // so often the answer is that no fence is under way
		free.Store(10)
		go b.Refill(t.Context(), time.Minute, func() bool { return free.Add(-1) < 0 })
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if pages := b.Held() << 10 / os.Getpagesize(); pages != 9 { // one look, then one for each page
			t.Errorf("%d pages were taken until a fence began", pages)
		}
		free.Store(1000)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if !b.full() {
			t.Errorf("%d KiB are held when it has ended", b.Held())
		}
	})
}
