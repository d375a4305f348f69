// SPDX-License-Identifier: GPL-2.0-only

package kernel

import (
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"github.com/o2fence/o2fence/bridge/uapi"
)

// FuzzDecode looks at all that dumps and events can hold.
func FuzzDecode(f *testing.F) {
	ae := netlink.NewAttributeEncoder()
	ae.String(uint16(uapi.AttrCluster), "c")
	ae.Uint32(uint16(uapi.AttrNode), 7)
	ae.Uint64(uint16(uapi.AttrRequest), 9)
	ae.Bytes(uint16(uapi.AttrAt), make([]byte, 24))
	ae.String(uint16(uapi.AttrMethod), "ipmi")
	ae.Uint32(uint16(uapi.AttrTimeoutMS), 1000)
	ae.Uint32(uint16(uapi.AttrLive), 1)
	ae.Uint32(uint16(uapi.AttrEvent), 2)
	b, err := ae.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add([]byte{3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, decode := range []func(*netlink.AttributeDecoder) int{
			func(ad *netlink.AttributeDecoder) int { return len(decodeNode(ad).Steps) },
			func(ad *netlink.AttributeDecoder) int { _ = decodeMethod(ad); return 0 },
			func(ad *netlink.AttributeDecoder) int { r := decodeRegion(ad); return len(r.Live) + len(r.Silent) },
			func(ad *netlink.AttributeDecoder) int { return len(decodeRequest(ad).At) },
			func(ad *netlink.AttributeDecoder) int { return len(decodeEvent(ad).Request.At) },
		} {
			ad, err := netlink.NewAttributeDecoder(b)
			if err != nil {
				continue
			}
			if n := decode(ad); n > len(b)/unix.NLA_ALIGNTO {
				t.Errorf("%x: %d parts", b, n)
			}
		}
	})
}
