package guest

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"unsafe"
)

// showConsole gives systemd a /dev/console, a pseudo-terminal whose other end
// is copied to the console file: systemd writes its status only to terminals.
// Without one everything works, it only shows less.
func (s *system) showConsole() {
	if err := s.openTTY(); err != nil {
		s.console.printf("no /dev/console: %v", err)
	}
}

const consolePath = "/dev/console"

// hideConsole takes the terminal away from /dev/console. Systemd waits a
// second at each message for one whose other end is closed.
func hideConsole() { _ = syscall.Unmount(consolePath, syscall.MNT_DETACH) }

func (s *system) openTTY() error {
	// An earlier guest's is dead now, and nothing can be mounted on it.
	hideConsole()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	raw, err := master.SyscallConn()
	if err != nil {
		return err
	}
	var n uint32
	var lock int32
	var e1, e2 syscall.Errno
	if err := raw.Control(func(fd uintptr) {
		_, _, e1 = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCSPTLCK, uintptr(unsafe.Pointer(&lock)))
		_, _, e2 = syscall.Syscall(syscall.SYS_IOCTL, fd, syscall.TIOCGPTN, uintptr(unsafe.Pointer(&n)))
	}); err != nil || e1 != 0 || e2 != 0 {
		_ = master.Close()
		return fmt.Errorf("pseudo-terminal: %v %v %v", err, e1, e2)
	}
	slave := "/dev/pts/" + strconv.Itoa(int(n))
	const path = consolePath
	if f, err := os.OpenFile(path, os.O_CREATE, 0o600); err == nil {
		_ = f.Close()
	}
	if err := syscall.Mount(slave, path, "", syscall.MS_BIND, ""); err != nil {
		_ = master.Close()
		return err
	}
	// Held open, or reading ends with EIO whenever systemd closes it.
	hold, err := os.OpenFile(path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		_ = master.Close()
		return err
	}
	go func() {
		defer hold.Close()
		defer master.Close()
		b := make([]byte, 4<<10)
		for {
			k, err := master.Read(b)
			if err != nil {
				return
			}
			_, _ = s.console.Write(b[:k])
		}
	}()
	return nil
}
