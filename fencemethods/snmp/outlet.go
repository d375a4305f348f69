// SPDX-License-Identifier: GPL-2.0-only

package snmp

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/o2fence/o2fence/fencemethods"
)

const (
	maxOutlet  = 255 // more than any power strip has
	maxChained = 16  // devices in a daisy chain, likewise
	maxOutlets = 8   // of one node; more would not fit an old device's messages
)

// An outlet is a number on the device, and the device's in its daisy chain.
type outlet struct{ device, number int }

// parseOutlets reads "3", "3,4" or, of the second device in a chain, "2:3".
func parseOutlets(s string) ([]outlet, error) {
	var outlets []outlet
	for word := range strings.SplitSeq(s, ",") {
		o, err := parseOutlet(word)
		if err != nil {
			return nil, err
		}
		if slices.Contains(outlets, o) {
			return nil, fmt.Errorf("outlet %s comes twice", word)
		}
		outlets = append(outlets, o)
	}
	if len(outlets) > maxOutlets {
		return nil, fmt.Errorf("%d outlets, expected at most %d", len(outlets), maxOutlets)
	}
	return outlets, nil
}

func parseOutlet(word string) (outlet, error) {
	o := outlet{device: 1}
	device, number, chained := strings.Cut(word, ":")
	if !chained {
		device, number = "1", word
	}
	var err error
	if o.device, err = parseNumber(device, maxChained); err == nil {
		o.number, err = parseNumber(number, maxOutlet)
	}
	if err != nil {
		return outlet{}, fmt.Errorf("%q is no outlet: expected numbers such as 3, or 3,4, or 2:3 for outlet 3 of the second device of a chain", word)
	}
	return o, nil
}

func parseNumber(s string, high int) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > high || strconv.Itoa(n) != s {
		return 0, strconv.ErrRange
	}
	return n, nil
}

func validOutlets(s string) error {
	_, err := parseOutlets(s)
	return err
}

// verifyOutlets refuses the number of a device in a chain where there are no chains.
func verifyOutlets(v fencemethods.Values) *fencemethods.ParamError {
	t, _ := findTable(v["model"])
	if !t.chained && strings.Contains(v["outlets"], ":") {
		return &fencemethods.ParamError{Key: "outlets", Text: "a " + t.name + " has no devices in a chain: expected numbers such as 3, or 3,4"}
	}
	return nil
}
