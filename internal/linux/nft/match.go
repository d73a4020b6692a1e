package nft

import (
	"encoding/binary"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers: 1 is 16 bytes wide and shares its bytes with 8 to 11, four bytes
// each; 2 likewise with 12 to 15.
const (
	reg1  = unix.NFT_REG_1
	reg32 = unix.NFT_REG32_00
)

// Exprs joins the expressions of several matches and a statement.
func Exprs(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// Stmt is one expression that ends a rule.
func Stmt(e expr.Any) []expr.Any { return []expr.Any{e} }

// Verdicts.
func Accept() []expr.Any { return Stmt(&expr.Verdict{Kind: expr.VerdictAccept}) }

// Drop ends the packet.
func Drop() []expr.Any { return Stmt(&expr.Verdict{Kind: expr.VerdictDrop}) }

// Goto leaves for a chain and does not come back.
func Goto(chain string) []expr.Any {
	return Stmt(&expr.Verdict{Kind: expr.VerdictGoto, Chain: chain})
}

// Counter counts packets and bytes, as every rule of iptables does.
func Counter() []expr.Any { return Stmt(&expr.Counter{}) }

// Jump calls a chain.
func Jump(chain string) []expr.Any {
	return Stmt(&expr.Verdict{Kind: expr.VerdictJump, Chain: chain})
}

// Marked matches packets that have all bits of mark set.
func Marked(mark uint32) []expr.Any {
	bits := native(mark)
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: bits, Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: bits},
	}
}

// SetMark sets (or, with on false, clears) the bits of mark and leaves the
// packet's other bits.
func SetMark(mark uint32, on bool) []expr.Any {
	flip := uint32(0)
	if on {
		flip = mark
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: native(^mark), Xor: native(flip)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: reg1},
	}
}

// Masquerade translates the source to the address of the outgoing interface.
func Masquerade() []expr.Any { return Stmt(&expr.Masq{}) }

// Family matches "ipv4" or "ipv6" packets, which must come before any match
// of their headers.
func Family(ipv6 bool) []expr.Any {
	proto := byte(unix.NFPROTO_IPV4)
	if ipv6 {
		proto = unix.NFPROTO_IPV6
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{proto}},
	}
}

// IIFName matches (or, with not, excludes) the interface a packet came by.
func IIFName(name string, not bool) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1},
		&expr.Cmp{Op: op(not), Register: reg1, Data: IfName(name)},
	}
}

// IIFIn and OIFIn look the interface up in a set of names.
func IIFIn(set string, not bool) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1},
		&expr.Lookup{SourceRegister: reg1, SetName: set, Invert: not},
	}
}

// OIFIn looks up the interface a packet leaves by.
func OIFIn(set string, not bool) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg1},
		&expr.Lookup{SourceRegister: reg1, SetName: set, Invert: not},
	}
}

// PairIn looks up both interfaces, incoming . outgoing.
func PairIn(set string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg32},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg32 + 4},
		&expr.Lookup{SourceRegister: reg32, SetName: set},
	}
}

// OutWithSource looks up outgoing interface . source address.
func OutWithSource(set string, ipv6 bool) []expr.Any {
	offset, length := SrcAddr4, uint32(4)
	if ipv6 {
		offset, length = SrcAddr6, 16
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg32},
		&expr.Payload{DestRegister: reg32 + 4, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Lookup{SourceRegister: reg32, SetName: set},
	}
}

// InWithDestination looks up incoming interface . destination address.
func InWithDestination(set string, ipv6 bool) []expr.Any {
	offset, length := DstAddr4, uint32(4)
	if ipv6 {
		offset, length = DstAddr6, 16
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg32},
		&expr.Payload{DestRegister: reg32 + 4, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Lookup{SourceRegister: reg32, SetName: set},
	}
}

// Kinds of interfaces (NFT_META_IIFKIND, NFT_META_OIFKIND; Linux 5.1).
const (
	metaIIFKind expr.MetaKey = 26
	metaOIFKind expr.MetaKey = 27
)

// NotBetweenKind matches packets that neither come from nor go to an interface
// of a kind, such as "bridge".
func NotBetweenKind(kind string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: metaIIFKind, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: IfName(kind)},
		&expr.Meta{Key: metaOIFKind, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: IfName(kind)},
	}
}

// Header offsets of addresses.
const (
	SrcAddr4, DstAddr4 uint32 = 12, 16
	SrcAddr6, DstAddr6 uint32 = 8, 24
)

// Net4 matches an IPv4 address field against a network of whole bytes.
func Net4(offset uint32, network []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(network))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: network},
	}
}

// NotLinkLocal6 excludes IPv6 sources of fe80::/10.
func NotLinkLocal6() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: SrcAddr6, Len: 2},
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 2, Mask: []byte{0xff, 0xc0}, Xor: []byte{0, 0}},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: []byte{0xfe, 0x80}},
	}
}

// DstLocal matches packets to an address of this machine.
func DstLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg1, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL)},
	}
}

// CTState matches connections in any of the states.
func CTState(bits uint32) []expr.Any { return ct(expr.CtKeySTATE, bits) }

// ipsDstNAT is IPS_DST_NAT of the kernel: the destination was translated.
const ipsDstNAT = 1 << 5

// CTTranslated matches connections whose destination was translated.
func CTTranslated() []expr.Any { return ct(expr.CtKeySTATUS, ipsDstNAT) }

func ct(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg1},
		&expr.Bitwise{
			SourceRegister: reg1, DestRegister: reg1, Len: 4,
			Mask: binary.NativeEndian.AppendUint32(nil, bits), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: make([]byte, 4)},
	}
}

// DNATByPort translates by a map of protocol . port to address . port.
func DNATByPort(m string, ipv6 bool) []expr.Any {
	return append([]expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg32},
		&expr.Payload{DestRegister: reg32 + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}, dnat(m, ipv6)...)
}

// DNATByAddr translates by a map of address . protocol . port to address . port.
func DNATByAddr(m string, ipv6 bool) []expr.Any {
	offset, length, words := DstAddr4, uint32(4), uint32(1)
	if ipv6 {
		offset, length, words = DstAddr6, 16, 4
	}
	return append([]expr.Any{
		&expr.Payload{DestRegister: reg32, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg32 + words},
		&expr.Payload{DestRegister: reg32 + words + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
	}, dnat(m, ipv6)...)
}

// ToPort looks up destination address . protocol . port in a set.
func ToPort(set string, ipv6 bool) []expr.Any {
	offset, length, words := DstAddr4, uint32(4), uint32(1)
	if ipv6 {
		offset, length, words = DstAddr6, 16, 4
	}
	return []expr.Any{
		&expr.Payload{DestRegister: reg32, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg32 + words},
		&expr.Payload{DestRegister: reg32 + words + 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		&expr.Lookup{SourceRegister: reg32, SetName: set},
	}
}

// Protocol matches a transport protocol (IPPROTO_…).
func Protocol(proto byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{proto}},
	}
}

// SNATByIIF translates the source by a map of the incoming interface to an
// address; a miss ends the rule.
func SNATByIIF(m string, ipv6 bool) []expr.Any {
	family := uint32(unix.NFPROTO_IPV4)
	if ipv6 {
		family = unix.NFPROTO_IPV6
	}
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg32},
		&expr.Lookup{SourceRegister: reg32, DestRegister: reg1, IsDestRegSet: true, SetName: m},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: family, RegAddrMin: reg1},
	}
}

// dnat looks the key in the first registers up; a miss ends the rule.
func dnat(m string, ipv6 bool) []expr.Any {
	family, port := uint32(unix.NFPROTO_IPV4), uint32(reg32+1)
	if ipv6 {
		family, port = unix.NFPROTO_IPV6, reg32+4
	}
	return []expr.Any{
		&expr.Lookup{SourceRegister: reg32, DestRegister: reg32, IsDestRegSet: true, SetName: m},
		&expr.NAT{Type: expr.NATTypeDestNAT, Family: family, RegAddrMin: reg32, RegProtoMin: port},
	}
}

func op(not bool) expr.CmpOp {
	if not {
		return expr.CmpOpNeq
	}
	return expr.CmpOpEq
}

// Types used in sets.
var (
	TypeIfName  = nftables.TypeIFName
	TypeIPv4    = nftables.TypeIPAddr
	TypeIPv6    = nftables.TypeIP6Addr
	TypeProto   = nftables.TypeInetProto
	TypeService = nftables.TypeInetService
)

// NotLoopback6 excludes packets to ::1.
func NotLoopback6() []expr.Any {
	loop := make([]byte, 16)
	loop[15] = 1
	return []expr.Any{
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: DstAddr6, Len: 16},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: loop},
	}
}
