// SPDX-License-Identifier: GPL-2.0-only

// Package scsi fences by SCSI-3 persistent reservations (SPC-4 5.13): the node's key is taken away
// from the disks themselves, which decline its writes from then on. See package reserve.
//
// A disk is known by its designator (VPD page 0x83), and its paths are found when the device is made.
// Before each order the path is asked who it is: what has another disk behind it by now is neither
// believed nor commanded.
package scsi

import (
	"strings"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/reserve"
)

// pathKiB is what the kernel may hold for one path: its thread, a request, a bio, the list of the
// four pages of its buffer.
const pathKiB = 32

// Method describes this method.
func Method() fencemethods.Method { return method(sysfs{root: "/"}.open) }

// An opener opens the paths to a disk.
type opener func(wwid string) ([]bus, error)

func method(open opener) fencemethods.Method {
	return fencemethods.Method{
		Name:      "scsi",
		Summary:   "SCSI-3 reservations: the disks decline the node's writes",
		MemoryKiB: 64,
		KernelKiB: reserve.PathsMax * pathKiB,
		Registers: true,
		New: func(t fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
			return newDevice(t, v, open)
		},
		Params: []fencemethods.Param{
			{
				Name: "disks", Required: true, Validate: reserve.Disks(isWWID, "naa. or eui. and 16, 24 or 32 hexadecimal digits, as in /sys/block/sdX/device/wwid"),
				Help: "all disks that the node must not write to, separated by commas, as in /sys/block/sdX/device/wwid",
			},
			{
				Name: "paths", Default: "all", Validate: fencemethods.OneOf("all", "answering"),
				Help: "all: every path has to show that the node is cut off; answering: those that answer, at least one to each disk",
			},
			{
				Name: "abort", Default: "yes", Validate: fencemethods.OneOf("yes", "no"),
				Help: "no: for storage that cannot end the node's commands; what it has taken may still be written",
			},
			{
				Name: "persist", Default: "yes", Validate: fencemethods.OneOf("yes", "no"),
				Help: "no: for storage that forgets reservations when it restarts; a fenced node can write again then",
			},
		},
	}
}

// isWWID approves what the kernel makes of the two kinds of designators that are unique in the world.
func isWWID(s string) bool {
	kind, digits, _ := strings.Cut(s, ".")
	if strings.Trim(digits, "0123456789abcdef") != "" {
		return false
	}
	switch kind {
	case "naa":
		return len(digits) == 16 || len(digits) == 32
	case "eui":
		return len(digits) == 16 || len(digits) == 24 || len(digits) == 32
	}
	return false
}

func newDevice(t fencemethods.Target, v fencemethods.Values, open opener) (fencemethods.Device, error) {
	o := reserve.Options{Lasting: v["persist"] == "yes", Answering: v["paths"] == "answering"}
	return reserve.Open(t, v["disks"], o, func(wwid string) ([]reserve.Link, error) {
		var links []reserve.Link
		buses, err := open(wwid)
		for _, b := range buses {
			links = append(links, newUnit(b, wwid, v["abort"] == "yes", o.Lasting))
		}
		return links, err
	})
}
