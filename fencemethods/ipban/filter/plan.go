// SPDX-License-Identifier: GPL-2.0-only

package filter

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// priority is before all that Linux does to a packet by itself, defragmentation (-400) being the first.
const priority = -450

// A plan is the table as it has to be.
type plan struct {
	table  *nftables.Table
	sets   []*nftables.Set
	chains []chain
}

type chain struct {
	*nftables.Chain
	rules [][]expr.Any
}

// A version is where one version of IP has what the rules look at.
type version struct {
	name        string
	etherType   uint16
	addr        uint32 // bytes
	source      uint32 // offset in the header
	destination uint32
	key         nftables.SetDatatype
}

func versions() []version {
	return []version{
		{"banned4", unix.ETH_P_IP, 4, 12, 16, nftables.TypeIPAddr},
		{"banned6", unix.ETH_P_IPV6, 16, 8, 24, nftables.TypeIP6Addr},
	}
}

// plan is all of it: source addresses are looked at before routing and destinations after it, so it
// does not matter whether this machine is the packet's end, or on its way.
func (f *Filter) plan() plan {
	p := plan{table: &nftables.Table{Name: Table, Family: f.family}}
	from := p.chain("from", nftables.ChainHookPrerouting)
	to := p.chain("to", nftables.ChainHookPostrouting)
	for _, v := range versions() {
		p.sets = append(p.sets, &nftables.Set{Table: p.table, Name: v.name, KeyType: v.key})
		from.rules = append(from.rules, v.rule(v.source))
		to.rules = append(to.rules, v.rule(v.destination))
	}
	p.chains = []chain{from, to}
	return p
}

func (p *plan) chain(name string, hook *nftables.ChainHook) chain {
	policy := nftables.ChainPolicyAccept
	return chain{Chain: &nftables.Chain{
		Name: name, Table: p.table, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityRef(priority), Policy: &policy,
	}}
}

// rule drops a packet whose address at offset is in the version's set.
func (v version) rule(offset uint32) []expr.Any {
	const register = 1
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: binary.BigEndian.AppendUint16(nil, v.etherType)},
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: v.addr},
		&expr.Lookup{SourceRegister: register, SetName: v.name},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}
}

// of returns those of addrs that belong into the set.
func of(s *nftables.Set, addrs []netip.Addr) []nftables.SetElement {
	var elements []nftables.SetElement
	for _, a := range addrs {
		if a.Is4() == (s.KeyType == nftables.TypeIPAddr) {
			elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
		}
	}
	return elements
}
