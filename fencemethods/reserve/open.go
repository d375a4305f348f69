// SPDX-License-Identifier: GPL-2.0-only

package reserve

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/o2fence/o2fence/fencemethods"
)

const (
	// disksMax is how many disks one node may be cut off from.
	disksMax = 8

	// PathsMax is how many paths may lead to all of them together: a method's KernelKiB is for as many.
	PathsMax = 16
)

// Disks approves a list of disks, each of which is one to is; form says what is.
func Disks(is func(string) bool, form string) func(string) error {
	return func(s string) error {
		names := strings.Split(s, ",")
		if len(names) > disksMax {
			return fmt.Errorf("%d disks: at most %d", len(names), disksMax)
		}
		for i, name := range names {
			switch {
			case !is(name):
				return fmt.Errorf("%q is no disk: expected %s", name, form)
			case slices.Contains(names[:i], name):
				return fmt.Errorf("%q is there twice", name)
			}
		}
		return nil
	}
}

// Open makes the Device for a list that Disks has approved. It opens all paths, of which there may be
// PathsMax; after an error none is left open. A disk without any is no error:
// that one is missing must not keep the bridge from starting.
func Open(t fencemethods.Target, list string, o Options, open func(name string) ([]Link, error)) (fencemethods.Device, error) {
	if !t.Member {
		return nil, failStranger
	}
	var disks []Disk
	paths := 0
	for _, name := range strings.Split(list, ",") {
		links, err := open(name)
		disks = append(disks, Disk{Name: name, Links: links})
		paths += len(links)
		if err == nil && paths > PathsMax {
			err = fmt.Errorf("%d paths: at most %d", paths, PathsMax)
		}
		if err != nil {
			return nil, errors.Join(err, closeAll(disks))
		}
	}
	return New(t, disks, o), nil
}

func closeAll(disks []Disk) error {
	var errs []error
	for _, disk := range disks {
		for _, link := range disk.Links {
			errs = append(errs, link.Close())
		}
	}
	return errors.Join(errs...)
}
