// SPDX-License-Identifier: GPL-2.0-only

// Package nvme fences by the reservations of NVMe namespaces (NVM Express Base Specification 2.0, 7.2 to
// 7.5 of the NVM Command Set before): the node's registration is taken away by the namespace itself,
// which declines its writes from then on. See package reserve.
//
// A namespace is known by its identifier, and asked for it before each order. A registration is of the
// host, by its Host Identifier, and not of a path: with several controllers the kernel's own multipath
// picks one.
package nvme

import (
	"strings"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/reserve"
)

// pathKiB is what the kernel may hold for one path: its thread, a request, a bio, the list of the
// sixteen pages of its buffer.
const pathKiB = 32

// Method describes this method.
func Method() fencemethods.Method { return method(sysfs{root: "/"}.open) }

// An opener opens the paths to a namespace.
type opener func(wwid string) ([]bus, error)

func method(open opener) fencemethods.Method {
	return fencemethods.Method{
		Name:      "nvme",
		Summary:   "NVMe reservations: the namespaces decline the node's writes",
		MemoryKiB: 64,
		KernelKiB: reserve.PathsMax * pathKiB,
		Registers: true,
		New: func(t fencemethods.Target, v fencemethods.Values) (fencemethods.Device, error) {
			return newDevice(t, v, open)
		},
		Params: []fencemethods.Param{
			{
				Name: "namespaces", Required: true,
				Validate: reserve.Disks(isWWID, "uuid. and a UUID, or eui. and 16 or 32 hexadecimal digits, as in /sys/block/nvmeXnY/wwid"),
				Help:     "all namespaces that the node must not write to, separated by commas, as in /sys/block/nvmeXnY/wwid",
			},
			{
				Name: "persist", Default: "yes", Validate: fencemethods.OneOf("yes", "no"),
				Help: "no: for storage that forgets reservations when it restarts; a fenced node can write again then",
			},
		},
	}
}

// isWWID approves what the kernel makes of the identifiers that are unique in the world.
func isWWID(s string) bool {
	kind, id, _ := strings.Cut(s, ".")
	if strings.Trim(id, "-0123456789abcdef") != "" {
		return false
	}
	switch kind {
	case "uuid":
		return len(id) == 36 && strings.Count(id, "-") == 4 && wwid(idUUID, unhex(id)) == s
	case "eui":
		return (len(id) == 16 || len(id) == 32) && !strings.Contains(id, "-")
	}
	return false
}

func newDevice(t fencemethods.Target, v fencemethods.Values, open opener) (fencemethods.Device, error) {
	o := reserve.Options{Lasting: v["persist"] == "yes"}
	return reserve.Open(t, v["namespaces"], o, func(name string) ([]reserve.Link, error) {
		var links []reserve.Link
		buses, err := open(name)
		for _, b := range buses {
			links = append(links, &space{bus: b, wwid: name, persist: o.Lasting})
		}
		return links, err
	})
}
