package bpf

import (
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

const (
	auditX86_64 = 0xc000003e
	auditI386   = 0x40000003
	auditARM64  = 0xc00000b7
	eperm       = retErrno | uint32(unix.EPERM)
	enosys      = retErrno | uint32(unix.ENOSYS)
)

func docker(t testing.TB, caps ...string) []unix.SockFilter {
	t.Helper()
	s := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}}
	p, err := seccomp.GetDefaultProfile(s)
	if err != nil {
		t.Fatal(err)
	}
	prog, err := Compile(p)
	if err != nil {
		t.Fatal(err)
	}
	return prog
}

func TestDocker(t *testing.T) {
	prog := docker(t)
	t.Log(len(prog), "instructions")
	const newNS = unix.CLONE_NEWUSER
	for _, c := range []struct {
		name string
		d    Data
		want uint32
	}{
		{"read", Data{Nr: unix.SYS_READ, Arch: auditX86_64}, retAllow},
		{"mount", Data{Nr: unix.SYS_MOUNT, Arch: auditX86_64}, eperm},
		{"clone3 asks to fall back", Data{Nr: unix.SYS_CLONE3, Arch: auditX86_64}, enosys},
		{"clone", Data{Nr: unix.SYS_CLONE, Arch: auditX86_64, Args: [6]uint64{0x11}}, retAllow},
		{"clone of a user namespace", Data{Nr: unix.SYS_CLONE, Arch: auditX86_64, Args: [6]uint64{newNS | 0x11}}, eperm},
		{"clone with an upper half", Data{Nr: unix.SYS_CLONE, Arch: auditX86_64, Args: [6]uint64{1 << 40}}, retAllow},
		{"socket inet", Data{Nr: unix.SYS_SOCKET, Arch: auditX86_64, Args: [6]uint64{unix.AF_INET}}, retAllow},
		{"socket alg", Data{Nr: unix.SYS_SOCKET, Arch: auditX86_64, Args: [6]uint64{unix.AF_ALG}}, eperm},
		{"socket vsock", Data{Nr: unix.SYS_SOCKET, Arch: auditX86_64, Args: [6]uint64{unix.AF_VSOCK}}, eperm},
		{"socket inet with an upper half", Data{Nr: unix.SYS_SOCKET, Arch: auditX86_64, Args: [6]uint64{1<<32 | unix.AF_INET}}, eperm},
		{"personality query", Data{Nr: unix.SYS_PERSONALITY, Arch: auditX86_64, Args: [6]uint64{0xffffffff}}, retAllow},
		{"personality no randomization", Data{Nr: unix.SYS_PERSONALITY, Arch: auditX86_64, Args: [6]uint64{0x40000}}, eperm},
		{"younger than the profile", Data{Nr: 5000, Arch: auditX86_64}, enosys},
		{"x32 read", Data{Nr: x32Bit, Arch: auditX86_64}, retAllow},
		{"x32 mount", Data{Nr: x32Bit | unix.SYS_MOUNT, Arch: auditX86_64}, eperm},
		{"x32 younger", Data{Nr: x32Bit | 5000, Arch: auditX86_64}, enosys},
		{"i386 read", Data{Nr: 3, Arch: auditI386}, retAllow},
		{"i386 mount", Data{Nr: 21, Arch: auditI386}, eperm},
		{"another architecture", Data{Nr: 63, Arch: auditARM64}, retKill},
	} {
		if got := Run(prog, c.d); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
}

// TestCompare holds every comparison against Go's own.
func TestCompare(t *testing.T) {
	values := []uint64{0, 1, 2, 0x7fffffff, 0xffffffff, 1 << 32, 1<<32 + 1, 2<<32 - 1, 2 << 32, ^uint64(0) - 1, ^uint64(0)}
	ops := map[specs.LinuxSeccompOperator]func(a, b, c uint64) bool{
		specs.OpEqualTo:      func(a, b, _ uint64) bool { return a == b },
		specs.OpNotEqual:     func(a, b, _ uint64) bool { return a != b },
		specs.OpGreaterThan:  func(a, b, _ uint64) bool { return a > b },
		specs.OpGreaterEqual: func(a, b, _ uint64) bool { return a >= b },
		specs.OpLessThan:     func(a, b, _ uint64) bool { return a < b },
		specs.OpLessEqual:    func(a, b, _ uint64) bool { return a <= b },
		specs.OpMaskedEqual:  func(a, mask, want uint64) bool { return a&mask == want },
	}
	for op, f := range ops {
		for _, v := range values {
			for _, two := range []uint64{0, 1, 1 << 32} {
				arg := specs.LinuxSeccompArg{Index: 2, Value: v, ValueTwo: two, Op: op}
				also := specs.LinuxSeccompArg{Index: 0, Value: 7, Op: specs.OpEqualTo}
				prog, err := Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86}, Syscalls: []specs.LinuxSyscall{
					{Names: []string{"write"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{arg, also}},
				}})
				if err != nil {
					t.Fatal(err)
				}
				for _, x := range values {
					for _, first := range []uint64{7, 8, 1<<32 + 7} {
						want := eperm
						if f(x, v, two) && first == 7 {
							want = retAllow
						}
						if got := Run(prog, Data{Nr: unix.SYS_WRITE, Arch: auditX86_64, Args: [6]uint64{first, 0, x}}); got != want {
							t.Fatalf("%s %#x %#x of %#x, %d: %#x, want %#x", op, v, two, x, first, got, want)
						}
					}
				}
			}
		}
	}
}

func TestRefuse(t *testing.T) {
	one := []specs.Arch{specs.ArchX86_64}
	for name, p := range map[string]*specs.LinuxSeccomp{
		"action":       {DefaultAction: specs.ActNotify, Architectures: one},
		"architecture": {DefaultAction: specs.ActErrno, Architectures: []specs.Arch{specs.ArchMIPS}},
		"listener":     {DefaultAction: specs.ActErrno, ListenerPath: "/run/x"},
		"operator":     {DefaultAction: specs.ActErrno, Architectures: one, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Op: "~"}}}}},
		"argument":     {DefaultAction: specs.ActErrno, Architectures: one, Syscalls: []specs.LinuxSyscall{{Names: []string{"read"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
	} {
		if _, err := Compile(p); err == nil {
			t.Errorf("%s: it is accepted", name)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	for b.Loop() {
		docker(b)
	}
}
