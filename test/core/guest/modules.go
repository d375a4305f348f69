// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// errInUse is what the kernel says of a module that is pinned.
var errInUse error = syscall.EAGAIN

// load loads a module. It is no error when it is there already.
func (s *suite) load(module, params string) error {
	f, err := os.Open(s.files[module])
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), params, 0)
	if err != nil && (params != "" || !errors.Is(err, unix.EEXIST)) {
		return fmt.Errorf("loading %s: %w", module, err)
	}
	return nil
}

// unload does not wait for the module's users.
func unload(module string) error {
	if err := unix.DeleteModule(module, unix.O_NONBLOCK); err != nil {
		return fmt.Errorf("unloading %s: %w", module, err)
	}
	return nil
}

// pinned tells whether a module refuses to go. One that was not pinned is loaded again.
func (s *suite) pinned(module string) (bool, error) {
	err := unload(module)
	if errors.Is(err, errInUse) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	return false, s.load(module, "")
}

// parameter reads an integer parameter of a module.
func parameter(module, name string) (int, error) {
	text, err := os.ReadFile("/sys/module/" + module + "/parameters/" + name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}
