// Package bpf compiles an OCI seccomp profile into the classic BPF program that
// the kernel runs at every system call, with the meaning that libseccomp and
// runc give to it: rules with arguments, 32-bit ABIs beside the native one, and
// ENOSYS for system calls that are younger than the profile. It knows x86-64
// alone. It does no I/O, and must not know what the filter is put on.
package bpf

import (
	"errors"
	"fmt"
	"slices"
	"sort"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What offsets of struct seccomp_data, and actions, mean.
const (
	offNr   = 0
	offArch = 4
	offArgs = 16

	retAllow = 0x7fff0000
	retErrno = 0x00050000
	retKill  = 0x00000000 // the thread: what libseccomp does with an ABI that it does not know

	x32Bit = 0x40000000
	limit  = 4096 // instructions that the kernel takes
)

// Opcodes.
const (
	ldAbs = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS
	jumpA = unix.BPF_JMP | unix.BPF_JA
	jumpE = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	jumpG = unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K
	jumpT = unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K
	andK  = unix.BPF_ALU | unix.BPF_AND | unix.BPF_K
	retK  = unix.BPF_RET | unix.BPF_K
)

type program []unix.SockFilter

func ret(v uint32) program { return program{{Code: retK, K: v}} }
func load(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: ldAbs, K: off}
}

// abi is one way to make system calls.
type abi struct {
	numbers map[string]int
	bit     uint32
	wide    bool // arguments have 64 bits
}

// Compile makes the program. Names that a table does not have are left out, as
// libseccomp does: a profile names the system calls of many kernels.
func Compile(p *specs.LinuxSeccomp) ([]unix.SockFilter, error) {
	if p.ListenerPath != "" {
		return nil, errors.New("seccomp: a listener is not supported")
	}
	def, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	sections := map[specs.Arch]program{specs.ArchX86_64: nil, specs.ArchX86: nil, specs.ArchX32: nil}
	for _, a := range p.Architectures {
		var t abi
		switch a {
		case specs.ArchX86_64:
			t = abi{arch.X86_64.SyscallNames, 0, true}
		case specs.ArchX86:
			t = abi{arch.I386.SyscallNames, 0, false}
		case specs.ArchX32:
			t = abi{x32(), x32Bit, false}
		default:
			return nil, fmt.Errorf("seccomp: the architecture %s is not supported", a)
		}
		if sections[a], err = section(p, t, def); err != nil {
			return nil, err
		}
	}
	for a, s := range sections {
		if s == nil {
			sections[a] = ret(retKill)
		}
	}
	native := program{load(offNr)}
	native = append(native, branch(jumpG, x32Bit, sections[specs.ArchX32], sections[specs.ArchX86_64])...)
	old := append(program{load(offNr)}, sections[specs.ArchX86]...)
	out := program{load(offArch)}
	out = append(out, branch(jumpE, uint32(arch.X86_64.ID), native, branch(jumpE, uint32(arch.I386.ID), old, ret(retKill)))...)
	if len(out) > limit {
		return nil, fmt.Errorf("seccomp: the profile needs %d instructions, and the kernel takes %d", len(out), limit)
	}
	return out, nil
}

// x32 numbers its system calls as x86-64 does, but for those that it has twice:
// there the one above 512 is its own.
func x32() map[string]int {
	numbers := map[string]int{}
	for n, name := range arch.X32.SyscallNumbers {
		numbers[name] = max(n, numbers[name])
	}
	return numbers
}

// branch runs yes where the loaded word passes the test, else no. Both end by
// returning.
func branch(code uint16, k uint32, yes, no program) program {
	var out program
	if len(no) <= 255 {
		out = append(out, unix.SockFilter{Code: code, K: k, Jt: uint8(len(no))})
	} else {
		out = append(out, unix.SockFilter{Code: code, K: k, Jf: 1}, unix.SockFilter{Code: jumpA, K: uint32(len(no))})
	}
	return append(append(out, no...), yes...)
}

func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	switch a {
	case specs.ActAllow:
		return retAllow, nil
	case specs.ActErrno:
		e := uint(unix.EPERM)
		if errno != nil {
			e = *errno
		}
		if e > 4095 {
			return 0, fmt.Errorf("seccomp: %d is no error number", e)
		}
		return retErrno | uint32(e), nil
	case specs.ActKill, specs.ActKillThread:
		return retKill, nil
	case specs.ActKillProcess:
		return 0x80000000, nil
	}
	return 0, fmt.Errorf("seccomp: the action %s is not supported", a)
}

// rule is what holds for one system call.
type rule struct {
	always *uint32
	when   []when
}

type when struct {
	args []specs.LinuxSeccompArg
	act  uint32
}

// section decides by the number, which is loaded.
func section(p *specs.LinuxSeccomp, t abi, def uint32) (program, error) {
	rules := map[uint32]*rule{}
	last := uint32(0) // the youngest system call that the profile knows
	for _, c := range p.Syscalls {
		act, err := action(c.Action, c.ErrnoRet)
		if err != nil {
			return nil, err
		}
		for _, name := range c.Names {
			n, ok := t.numbers[name]
			if !ok {
				continue
			}
			nr := uint32(n) | t.bit
			last = max(last, nr)
			if act == def {
				continue
			}
			r := rules[nr]
			if r == nil {
				r = &rule{}
				rules[nr] = r
			}
			switch {
			case len(c.Args) == 0:
				if r.always == nil {
					r.always = &act
				}
			case repeats(c.Args):
				for _, a := range c.Args {
					r.when = append(r.when, when{[]specs.LinuxSeccompArg{a}, act})
				}
			default:
				r.when = append(r.when, when{c.Args, act})
			}
		}
	}
	if len(rules) == 0 {
		return ret(def), nil
	}
	// Ranges of numbers that are treated alike, each from its first number.
	type span struct {
		from uint32
		do   program
	}
	var spans []span
	add := func(from uint32, do program) {
		if n := len(spans); n > 0 && slices.Equal(spans[n-1].do, do) {
			return
		}
		spans = append(spans, span{from, do})
	}
	numbers := make([]uint32, 0, len(rules))
	for nr := range rules {
		numbers = append(numbers, nr)
	}
	slices.Sort(numbers)
	next := uint32(0)
	for _, nr := range numbers {
		if nr != next {
			add(next, ret(def))
		}
		do, err := decide(rules[nr], t.wide, def)
		if err != nil {
			return nil, err
		}
		add(nr, do)
		next = nr + 1
	}
	if next <= last {
		add(next, ret(def))
	}
	// So that a C library that knows younger ones falls back, as runc has it.
	add(last+1, ret(retErrno|uint32(unix.ENOSYS)))
	var search func(s []span) program
	search = func(s []span) program {
		if len(s) == 1 {
			return s[0].do
		}
		mid := len(s) / 2
		return branch(jumpG, s[mid].from, search(s[mid:]), search(s[:mid]))
	}
	if !sort.SliceIsSorted(spans, func(i, j int) bool { return spans[i].from < spans[j].from }) {
		return nil, errors.New("seccomp: the system calls are out of order")
	}
	return search(spans), nil
}

// repeats tells whether two conditions are about one argument: then any of the
// conditions will do, else all must hold.
func repeats(args []specs.LinuxSeccompArg) bool {
	for i, a := range args {
		if slices.ContainsFunc(args[:i], func(b specs.LinuxSeccompArg) bool { return a.Index == b.Index }) {
			return true
		}
	}
	return false
}

func decide(r *rule, wide bool, def uint32) (program, error) {
	if r.always != nil {
		return ret(*r.always), nil
	}
	// One block for each rule, which ends by returning or falls through.
	var out program
	for _, w := range r.when {
		var tests []test
		for _, a := range w.args {
			t, err := compare(a, wide)
			if err != nil {
				return nil, err
			}
			// What passes goes on with the next argument.
			for i := range t {
				t[i].end = len(tests) + len(t)
			}
			tests = append(tests, t...)
		}
		out = append(out, block(tests, w.act)...)
	}
	return append(out, ret(def)...), nil
}

// A test looks at one half of an argument.
type test struct {
	off     uint32
	mask    uint32
	code    uint16
	k       uint32
	yes, no exit
	end     int // the test with which the next argument begins
}

type exit int

const (
	next exit = iota // the test behind this one
	pass             // this argument is as it should be
	fail             // the rule does not hold
)

// block lays tests out one behind the other, and act behind them.
func block(tests []test, act uint32) program {
	at := make([]int, len(tests)+1) // where each test begins
	for i, t := range tests {
		at[i+1] = at[i] + 2
		if t.mask != all {
			at[i+1]++
		}
	}
	end := at[len(tests)] + 1 // behind act
	var out program
	for i, t := range tests {
		out = append(out, load(t.off))
		if t.mask != all {
			out = append(out, unix.SockFilter{Code: andK, K: t.mask})
		}
		to := func(e exit) uint8 {
			return uint8(map[exit]int{next: at[i+1], pass: at[t.end], fail: end}[e] - at[i+1])
		}
		out = append(out, unix.SockFilter{Code: t.code, K: t.k, Jt: to(t.yes), Jf: to(t.no)})
	}
	return append(out, ret(act)...)
}

const all = ^uint32(0)

// compare is the tests of one condition. Where arguments have 32 bits, the
// upper halves are not looked at.
func compare(a specs.LinuxSeccompArg, wide bool) ([]test, error) {
	if a.Index > 5 {
		return nil, fmt.Errorf("seccomp: there is no argument %d", a.Index)
	}
	low, high := offArgs+8*uint32(a.Index), offArgs+8*uint32(a.Index)+4
	lo, hi := uint32(a.Value), uint32(a.Value>>32)
	order := func(code uint16, yes, no exit) []test {
		return []test{
			{off: high, mask: all, code: jumpT, k: hi, yes: yes, no: next},
			{off: high, mask: all, code: jumpE, k: hi, yes: next, no: no},
			{off: low, mask: all, code: code, k: lo, yes: yes, no: no},
		}
	}
	var ts []test
	switch a.Op {
	case specs.OpEqualTo:
		ts = []test{{off: high, mask: all, code: jumpE, k: hi, no: fail}, {off: low, mask: all, code: jumpE, k: lo, yes: pass, no: fail}}
	case specs.OpNotEqual:
		ts = []test{{off: high, mask: all, code: jumpE, k: hi, no: pass}, {off: low, mask: all, code: jumpE, k: lo, yes: fail, no: pass}}
	case specs.OpMaskedEqual: // Value is the mask, ValueTwo what must remain
		ts = []test{{off: high, mask: hi, code: jumpE, k: uint32(a.ValueTwo >> 32), no: fail}, {off: low, mask: lo, code: jumpE, k: uint32(a.ValueTwo), yes: pass, no: fail}}
	case specs.OpGreaterThan:
		ts = order(jumpT, pass, fail)
	case specs.OpGreaterEqual:
		ts = order(jumpG, pass, fail)
	case specs.OpLessThan:
		ts = order(jumpG, fail, pass)
	case specs.OpLessEqual:
		ts = order(jumpT, fail, pass)
	default:
		return nil, fmt.Errorf("seccomp: the comparison %s is not supported", a.Op)
	}
	if !wide {
		ts = ts[len(ts)-1:]
	}
	return ts, nil
}
