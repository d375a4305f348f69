// SPDX-License-Identifier: GPL-2.0-only

package level

import (
	"testing"

	"github.com/o2fence/o2fence/fencemethods"
	"github.com/o2fence/o2fence/fencemethods/limit"
)

// BenchmarkLevel is what a level of eight costs, beside what its devices do.
func BenchmarkLevel(b *testing.B) {
	for name, rule := range map[string]Rule{"all": All, "any": Any} {
		b.Run(name, func(b *testing.B) {
			var members []Member
			for range 8 {
				members = append(members, Member{Name: "a", Device: nothing{}})
			}
			d, err := Method("level", rule, members, func() {}).Open(fencemethods.Target{}, nil)
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			l := limit.New()
			b.ReportAllocs()
			for b.Loop() {
				l.Start(patience)
				if err := d.Off(l); err != nil {
					b.Fatal(err)
				}
				l.Stop()
			}
		})
	}
}
