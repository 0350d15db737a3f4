package bpf

import "golang.org/x/sys/unix"

// Data is what the kernel shows to a filter.
type Data struct {
	Nr   uint32
	Arch uint32
	Args [6]uint64
}

func (d Data) word(off uint32) uint32 {
	switch {
	case off == offNr:
		return d.Nr
	case off == offArch:
		return d.Arch
	case off >= offArgs && off < offArgs+48 && off%4 == 0:
		return uint32(d.Args[(off-offArgs)/8] >> (8 * (off % 8)))
	}
	return 0
}

// Run is what the kernel does with a filter: for tests, and to compare filters.
// A program that it cannot run kills.
func Run(prog []unix.SockFilter, d Data) uint32 {
	var a, x uint32
	var mem [16]uint32
	for pc := 0; pc >= 0 && pc < len(prog); pc++ {
		i := prog[pc]
		jump := func(yes bool) {
			if yes {
				pc += int(i.Jt)
			} else {
				pc += int(i.Jf)
			}
		}
		switch i.Code {
		case ldAbs:
			a = d.word(i.K)
		case unix.BPF_LD | unix.BPF_IMM:
			a = i.K
		case unix.BPF_LD | unix.BPF_MEM:
			a = mem[i.K&15]
		case unix.BPF_ST:
			mem[i.K&15] = a
		case unix.BPF_MISC | unix.BPF_TAX:
			x = a
		case unix.BPF_MISC | unix.BPF_TXA:
			a = x
		case andK:
			a &= i.K
		case jumpA:
			pc += int(i.K)
		case jumpE:
			jump(a == i.K)
		case jumpG:
			jump(a >= i.K)
		case jumpT:
			jump(a > i.K)
		case unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K:
			jump(a&i.K != 0)
		case retK:
			return i.K
		default:
			return retKill
		}
	}
	return retKill
}
