// SPDX-License-Identifier: GPL-2.0-only

package testmethod

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/o2fence/o2fence/fencemethods"
)

func open(t *testing.T, params map[string]string) fencemethods.Device {
	t.Helper()
	params["i_know_this_fences_nothing"] = "yes"
	d, err := Method().Open(fencemethods.Target{Name: "node2"}, params)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestItIsNotUsedByAccident(t *testing.T) {
	for _, params := range []map[string]string{{}, {"i_know_this_fences_nothing": "no"}} {
		if _, err := Method().Open(fencemethods.Target{}, params); err == nil {
			t.Errorf("Open(%v): no error", params)
		}
	}
}

func TestItAnswersWhatItIsTold(t *testing.T) {
	for _, c := range []struct {
		params map[string]string
		err    error
		state  fencemethods.State
	}{
		{map[string]string{}, nil, fencemethods.Off},
		{map[string]string{"result": "ok", "delay_ms": "1"}, nil, fencemethods.Off},
		{map[string]string{"result": "ok", "delay_ms": "60000"}, fencemethods.ErrTimeout, fencemethods.On},
		{map[string]string{"result": "slow"}, nil, fencemethods.Off},
		{map[string]string{"result": "fail"}, fencemethods.ErrRefused, fencemethods.On},
		{map[string]string{"result": "hang"}, fencemethods.ErrTimeout, fencemethods.On},
	} {
		d := open(t, c.params)
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		if err := d.Off(ctx); !errors.Is(err, c.err) {
			t.Errorf("%v: Off: %v, want %v", c.params, err, c.err)
		}
		long, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if state, err := d.Status(long); state != c.state || err != nil {
			t.Errorf("%v: Status = %v, %v; want %v", c.params, state, err, c.state)
		}
	}
}

func TestItStopsWhenCalledOff(t *testing.T) {
	d := open(t, map[string]string{"result": "hang"})
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	time.AfterFunc(20*time.Millisecond, cancel)
	if err := d.Off(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Off: %v, want %v", err, context.Canceled)
	}
}

func TestItRecordsItsCommands(t *testing.T) {
	name := filepath.Join(t.TempDir(), "commands")
	d := open(t, map[string]string{"file": name})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := errors.Join(d.Off(ctx), d.On(ctx), d.Check(ctx)); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(name)
	if want := "off node2\non node2\n"; string(got) != want || err != nil {
		t.Errorf("recorded %q, %v; want %q", got, err, want)
	}
}

func TestItAllocatesNothing(t *testing.T) {
	d := open(t, map[string]string{"delay_ms": "1", "file": filepath.Join(t.TempDir(), "commands")})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	allocs := testing.AllocsPerRun(20, func() {
		if err := d.Off(ctx); err != nil {
			t.Error(err)
		}
	})
	if allocs != 0 {
		t.Errorf("Off allocates %v times", allocs)
	}
}
