// SPDX-License-Identifier: GPL-2.0-only

package snmp

import (
	"cmp"
	"fmt"
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
		// The same outlets shall be the same text, so that two nodes with them are found.
		if n := len(outlets); n > 0 && compare(outlets[n-1], o) >= 0 {
			return nil, fmt.Errorf("outlet %s comes twice or out of order: expected the lowest first", word)
		}
		outlets = append(outlets, o)
	}
	if len(outlets) > maxOutlets {
		return nil, fmt.Errorf("%d outlets, expected at most %d", len(outlets), maxOutlets)
	}
	return outlets, nil
}

func compare(a, b outlet) int {
	return cmp.Or(cmp.Compare(a.device, b.device), cmp.Compare(a.number, b.number))
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

// verifyOutlets wants the number of a device in a chain where there are chains, and only there.
func verifyOutlets(v fencemethods.Values) *fencemethods.ParamError {
	t, _ := findTable(v["model"])
	for word := range strings.SplitSeq(v["outlets"], ",") {
		switch chained := strings.Contains(word, ":"); {
		case chained && !t.chained:
			return &fencemethods.ParamError{Key: "outlets", Text: "a " + t.name + " has no devices in a chain: expected numbers such as 3, or 3,4"}
		case !chained && t.chained:
			return &fencemethods.ParamError{Key: "outlets", Text: "a " + t.name + " has devices in a chain: expected 1:" + word + " for outlet " + word + " of the first"}
		}
	}
	return nil
}
