package nft

import (
	"bytes"
	"encoding/binary"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// Packet is the first packet of a connection, as far as it is known.
type Packet struct {
	IPv6 bool
	// In and Out are the names of the interfaces; empty is not known.
	In, Out string
	Mark    uint32
	// Translated: its destination was changed (ct status dnat).
	Translated bool
}

// Fate is what becomes of a packet in a base chain.
type Fate struct {
	Dropped bool
	// By is the chain whose policy or rule decided.
	By ChainRef
	// Entered lists the chains that the packet came through, the base chain
	// first.
	Entered []ChainRef
}

// Evaluate follows a packet through a base chain. A condition that cannot be
// decided from what is known of the packet counts as not met, for accept and
// drop alike: what is found is what the chain does by default. ignore leaves
// rules out (nil: none).
func (f Foreign) Evaluate(base BaseChain, p Packet, ignore func(ForeignRule) bool) Fate {
	if base.Family == nftables.TableFamilyIPv4 && p.IPv6 || base.Family == nftables.TableFamilyIPv6 && !p.IPv6 {
		return Fate{By: base.ChainRef}
	}
	w := walk{f: f, p: p, ignore: ignore}
	if code, decided := w.chain(base.ChainRef, 0); decided {
		return Fate{Dropped: code == drop, By: w.by, Entered: w.entered}
	}
	return Fate{Dropped: base.Drops, By: base.ChainRef, Entered: w.entered}
}

// maxJumps is the kernel's own bound (NFT_JUMP_STACK_SIZE).
const maxJumps = 16

type walk struct {
	f       Foreign
	p       Packet
	ignore  func(ForeignRule) bool
	by      ChainRef
	entered []ChainRef
}

// chain returns the verdict that ends the base chain, if there is one.
func (w *walk) chain(ref ChainRef, depth int) (code int32, decided bool) {
	w.entered = append(w.entered, ref)
	for _, r := range w.f.Rules[ref] {
		if w.ignore != nil && w.ignore(r) || !r.matches(w.p) {
			continue
		}
		code, target := r.verdict()
		switch code {
		case unix.NFT_JUMP, unix.NFT_GOTO:
			if depth < maxJumps {
				if v, decided := w.chain(ChainRef{ref.Family, ref.Table, target}, depth+1); decided {
					return v, true
				}
			}
			if code == unix.NFT_GOTO {
				return 0, false
			}
		case unix.NFT_RETURN:
			return 0, false
		case accept, drop:
			w.by = ref
			return code, true
		}
	}
	return 0, false
}

// registers of the kernel's machine: sixteen words, each known or not.
type registers struct {
	word  [16][4]byte
	known [16]bool
}

// at turns a register's number into its first word: 1 to 4 are 16 bytes wide
// and share their bytes with 8 to 23.
func at(reg uint32) int {
	if reg >= unix.NFT_REG32_00 {
		return int(reg - unix.NFT_REG32_00)
	}
	return int(reg-1) * 4
}

func (g *registers) set(reg uint32, value []byte, known bool) {
	i := at(reg)
	for n := 0; n == 0 || n*4 < len(value); n++ {
		if i+n < 0 || i+n >= len(g.word) {
			return
		}
		g.known[i+n] = known
		g.word[i+n] = [4]byte{}
		if n*4 < len(value) {
			copy(g.word[i+n][:], value[n*4:])
		}
	}
}

func (g *registers) get(reg uint32, length int) ([]byte, bool) {
	var out []byte
	i := at(reg)
	for n := 0; n*4 < length; n++ {
		if i+n < 0 || i+n >= len(g.word) || !g.known[i+n] {
			return nil, false
		}
		out = append(out, g.word[i+n][:]...)
	}
	return out[:length], true
}

func native(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// matches reports whether all conditions of the rule hold for certain.
func (r ForeignRule) matches(p Packet) bool {
	var regs registers
	for _, e := range r.exprs {
		switch e.name {
		case "meta":
			if e.attrs[unix.NFTA_META_DREG] != nil {
				v, known := p.meta(number(e.attrs[unix.NFTA_META_KEY]))
				regs.set(number(e.attrs[unix.NFTA_META_DREG]), v, known)
			}
		case "ct":
			if e.attrs[unix.NFTA_CT_DREG] != nil {
				v, known := p.conntrack(number(e.attrs[unix.NFTA_CT_KEY]))
				regs.set(number(e.attrs[unix.NFTA_CT_DREG]), v, known)
			}
		case "bitwise":
			if !e.bitwise(&regs) {
				regs.set(number(e.attrs[unix.NFTA_BITWISE_DREG]), nil, false)
			}
		case "cmp":
			data, err := attributes(e.attrs[unix.NFTA_CMP_DATA])
			if err != nil {
				return false
			}
			want := data[unix.NFTA_DATA_VALUE]
			got, known := regs.get(number(e.attrs[unix.NFTA_CMP_SREG]), len(want))
			if !known || !compare(number(e.attrs[unix.NFTA_CMP_OP]), got, want) {
				return false
			}
		case "match":
			if !p.match(text(e.attrs[unix.NFTA_MATCH_NAME]), number(e.attrs[unix.NFTA_MATCH_REV]), e.attrs[unix.NFTA_MATCH_INFO]) {
				return false
			}
		case "immediate":
			if number(e.attrs[unix.NFTA_IMMEDIATE_DREG]) != unix.NFT_REG_VERDICT {
				regs.set(number(e.attrs[unix.NFTA_IMMEDIATE_DREG]), nil, false)
			}
		case "counter", "log", "target", "reject", "objref", "notrack":
			// Not conditions.
		default:
			return false
		}
	}
	return true
}

func compare(op uint32, got, want []byte) bool {
	order := bytes.Compare(got, want)
	switch op {
	case unix.NFT_CMP_EQ:
		return order == 0
	case unix.NFT_CMP_NEQ:
		return order != 0
	case unix.NFT_CMP_LT:
		return order < 0
	case unix.NFT_CMP_LTE:
		return order <= 0
	case unix.NFT_CMP_GT:
		return order > 0
	case unix.NFT_CMP_GTE:
		return order >= 0
	}
	return false
}

// bitwise computes a mask and an exclusive or; false when the value or the
// operation is not known.
func (e foreignExpr) bitwise(regs *registers) bool {
	mask, err := attributes(e.attrs[unix.NFTA_BITWISE_MASK])
	if err != nil {
		return false
	}
	flip, err := attributes(e.attrs[unix.NFTA_BITWISE_XOR])
	if err != nil {
		return false
	}
	m, x := mask[unix.NFTA_DATA_VALUE], flip[unix.NFTA_DATA_VALUE]
	length := int(number(e.attrs[unix.NFTA_BITWISE_LEN]))
	if len(m) != length || len(x) != length {
		return false
	}
	v, known := regs.get(number(e.attrs[unix.NFTA_BITWISE_SREG]), length)
	if !known {
		return false
	}
	for i := range v {
		v[i] = v[i]&m[i] ^ x[i]
	}
	regs.set(number(e.attrs[unix.NFTA_BITWISE_DREG]), v, true)
	return true
}

func (p Packet) meta(key uint32) ([]byte, bool) {
	switch key {
	case unix.NFT_META_IIFNAME:
		return IfName(p.In), p.In != ""
	case unix.NFT_META_OIFNAME:
		return IfName(p.Out), p.Out != ""
	case unix.NFT_META_MARK:
		return native(p.Mark), true
	case unix.NFT_META_NFPROTO:
		if p.IPv6 {
			return []byte{unix.NFPROTO_IPV6}, true
		}
		return []byte{unix.NFPROTO_IPV4}, true
	case unix.NFT_META_PROTOCOL:
		if p.IPv6 {
			return []byte{0x86, 0xdd}, true
		}
		return []byte{0x08, 0x00}, true
	}
	return make([]byte, 16), false
}

// Bits of ct state and ct status (linux/netfilter/nf_conntrack_common.h).
const (
	stateNew  = 1 << 3
	statusNAT = 1 << 5
)

func (p Packet) conntrack(key uint32) ([]byte, bool) {
	switch key {
	case unix.NFT_CT_STATE:
		return native(stateNew), true
	case unix.NFT_CT_STATUS:
		if p.Translated {
			return native(statusNAT), true
		}
		return native(0), true
	}
	return make([]byte, 16), false
}

// match decides the extensions of iptables that say something about what is
// known.
func (p Packet) match(name string, revision uint32, info []byte) bool {
	switch {
	case name == "comment":
		return true
	case name == "mark" && revision == 1 && len(info) >= 9: // struct xt_mark_mtinfo1
		want, mask := binary.NativeEndian.Uint32(info), binary.NativeEndian.Uint32(info[4:])
		return (p.Mark&mask == want) != (info[8] != 0)
	}
	return false
}
