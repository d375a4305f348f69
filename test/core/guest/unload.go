// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/o2fence/o2fence/bridge/kernel"
)

var unloadTests = []test{
	{"the core stays while a module has methods there", coreStays},
	{"loading and unloading twenty times leaves no trace", loadUnload},
}

func coreStays(*suite) error { return expect(unload("o2fence"), errInUse) }

func loadUnload(s *suite) error {
	s.close()
	for range 20 {
		for _, module := range []string{"core_methods", "o2fence_methods", "o2fence"} {
			if err := unload(module); err != nil {
				return err
			}
		}
		if err := noTrace(); err != nil {
			return err
		}
		for _, module := range []string{"o2fence", "o2fence_methods", "core_methods"} {
			if err := s.load(module, ""); err != nil {
				return err
			}
		}
	}
	if err := s.open(); err != nil {
		return err
	}
	return s.nothingJoined()
}

// noTrace fails when something of the modules is still there.
func noTrace() error {
	if _, err := kernel.Dial(); !errors.Is(err, kernel.ErrNotLoaded) {
		return fmt.Errorf("the family: %w", orNone(err))
	}
	for _, path := range []string{"/sys/module/o2fence", "/sys/kernel/tracing/events/o2fence"} {
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("%s is still there", path)
		}
	}
	return noThreads()
}

func noThreads() error {
	processes, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, p := range processes {
		name, err := os.ReadFile("/proc/" + p.Name() + "/comm")
		if err == nil && strings.HasPrefix(string(name), "o2fence") {
			return fmt.Errorf("thread %s is still there", name)
		}
	}
	return nil
}
