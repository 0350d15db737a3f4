package inside

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// secure takes capabilities from this thread and puts the filter on it. Raw
// system calls: those of package syscall may go to all threads.
func secure(p *Plan) error {
	filter := func() error {
		if len(p.Filter) == 0 {
			return nil
		}
		if len(p.Filter)%int(unsafe.Sizeof(unix.SockFilter{})) != 0 {
			return errors.New("the filter is broken")
		}
		prog := unix.SockFprog{Len: uint16(len(p.Filter) / int(unsafe.Sizeof(unix.SockFilter{}))), Filter: (*unix.SockFilter)(unsafe.Pointer(&p.Filter[0]))}
		if _, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(p.Flags), uintptr(unsafe.Pointer(&prog))); e != 0 {
			return fmt.Errorf("seccomp: %w", e)
		}
		runtime.KeepAlive(p)
		return nil
	}
	if !p.NoNew {
		if err := filter(); err != nil {
			return err
		}
	}
	if err := dropCapabilities(p.Caps); err != nil {
		return err
	}
	if p.NoNew {
		return filter()
	}
	return nil
}

func dropCapabilities(c Caps) error {
	for n := uintptr(0); n < 64; n++ {
		if c.Bounding>>n&1 == 1 {
			continue
		}
		if _, _, e := unix.RawSyscall(unix.SYS_PRCTL, unix.PR_CAPBSET_DROP, n, 0); e == unix.EINVAL {
			break // the kernel's last one was the one before
		} else if e != 0 {
			return fmt.Errorf("drop capability %d: %w", n, e)
		}
	}
	if _, _, e := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0); e != 0 {
		return fmt.Errorf("clear ambient capabilities: %w", e)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{
		{Effective: uint32(c.Effective), Permitted: uint32(c.Permitted), Inheritable: uint32(c.Inheritable)},
		{Effective: uint32(c.Effective >> 32), Permitted: uint32(c.Permitted >> 32), Inheritable: uint32(c.Inheritable >> 32)},
	}
	if _, _, e := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&head)), uintptr(unsafe.Pointer(&data[0])), 0); e != 0 {
		return fmt.Errorf("set capabilities: %w", e)
	}
	return nil
}

// dropGroups leaves the groups that the region happens to run with.
func dropGroups() error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0); e != 0 {
		return fmt.Errorf("drop groups: %w", e)
	}
	return nil
}
