package kernel

import (
	"encoding/binary"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Small words for nft expressions; each is what nft would compile it to.

const (
	offSource = 12 // of the address in the IPv4 header
	offDest   = 16

	ctInvalid     = 1
	ctEstablished = 2
	ctRelated     = 4
	ctDNAT        = 1 << 5 // of the status
)

func ifName(s string) []byte {
	b := make([]byte, 16)
	copy(b, s)
	return b
}

func ifIs(key expr.MetaKey, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: ifName(name)},
	}
}

func iif(name string) []expr.Any { return ifIs(expr.MetaKeyIIFNAME, name) }
func oif(name string) []expr.Any { return ifIs(expr.MetaKeyOIFNAME, name) }

func notOIF(name string) []expr.Any {
	e := oif(name)
	e[1].(*expr.Cmp).Op = expr.CmpOpNeq
	return e
}

func addr(off uint32) *expr.Payload {
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: off, Len: 4}
}

func within(off uint32, p netip.Prefix) []expr.Any {
	if p.Bits() == 0 {
		return nil
	}
	p = p.Masked()
	out := []expr.Any{addr(off)}
	if p.Bits() < 32 {
		mask := make([]byte, 4)
		binary.BigEndian.PutUint32(mask, ^uint32(0)<<(32-p.Bits()))
		out = append(out, &expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)})
	}
	return append(out, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Addr().AsSlice()})
}

func inSet(off uint32, set string) []expr.Any {
	return []expr.Any{addr(off), &expr.Lookup{SourceRegister: 1, SetName: set}}
}

func notInSet(off uint32, set string) []expr.Any {
	return []expr.Any{addr(off), &expr.Lookup{SourceRegister: 1, SetName: set, Invert: true}}
}

// vmap goes where a map says.
func vmap(off uint32, set string) []expr.Any {
	return []expr.Any{addr(off), &expr.Lookup{SourceRegister: 1, SetName: set, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true}}
}

func ctBits(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: key},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func established() []expr.Any { return ctBits(expr.CtKeySTATE, ctEstablished|ctRelated) }
func invalidCt() []expr.Any   { return ctBits(expr.CtKeySTATE, ctInvalid) }
func dnatted() []expr.Any     { return ctBits(expr.CtKeySTATUS, ctDNAT) }

// ownPacket matches interface, source address and source MAC together.
func ownPacket(set string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: 1},
		&expr.Payload{DestRegister: unix.NFT_REG32_04, Base: expr.PayloadBaseNetworkHeader, Offset: offSource, Len: 4},
		&expr.Payload{DestRegister: unix.NFT_REG32_05, Base: expr.PayloadBaseLLHeader, Offset: 6, Len: 6},
		&expr.Lookup{SourceRegister: 1, SetName: set},
	}
}

func l4proto(p int) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(p)}},
	}
}

func dports(from, to int) []expr.Any {
	load := &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}
	lo, hi := binary.BigEndian.AppendUint16(nil, uint16(from)), binary.BigEndian.AppendUint16(nil, uint16(to))
	if from == to {
		return []expr.Any{load, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: lo}}
	}
	return []expr.Any{load,
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: lo},
		&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: hi},
	}
}

func transportByte(off uint32, v int) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: off, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{byte(v)}},
	}
}

func verdict(kind expr.VerdictKind, chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: kind, Chain: chain}}
}

func accept() []expr.Any           { return verdict(expr.VerdictAccept, "") }
func drop() []expr.Any             { return verdict(expr.VerdictDrop, "") }
func jump(chain string) []expr.Any { return verdict(expr.VerdictJump, chain) }
func goTo(chain string) []expr.Any { return verdict(expr.VerdictGoto, chain) }

// natMap translates to what a map says for the address at off.
func natMap(kind expr.NATType, off uint32, set string) []expr.Any {
	return []expr.Any{addr(off),
		&expr.Lookup{SourceRegister: 1, SetName: set, DestRegister: 1, IsDestRegSet: true},
		&expr.NAT{Type: kind, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	}
}

func snatTo(a netip.Addr) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: 1, Data: a.AsSlice()},
		&expr.NAT{Type: expr.NATTypeSourceNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: 1},
	}
}
