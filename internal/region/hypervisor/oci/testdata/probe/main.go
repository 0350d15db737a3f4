// Probe tries, inside an instance, what must not be possible there. It prints
// "OK" or the error of the one thing that it was asked to try.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func main() {
	err := try(os.Args[1], os.Args[2:])
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println("OK")
}

func call(n uintptr, a ...uintptr) error {
	var x [6]uintptr
	copy(x[:], a)
	if _, _, e := syscall.RawSyscall6(n, x[0], x[1], x[2], x[3], x[4], x[5]); e != 0 {
		return e
	}
	return nil
}

func try(what string, args []string) error {
	switch what {
	case "mount":
		return unix.Mount("tmpfs", "/mnt", "tmpfs", 0, "")
	case "remount-proc-sys":
		return unix.Mount("", "/proc/sys", "", unix.MS_REMOUNT|unix.MS_BIND, "")
	case "unshare-user":
		return unix.Unshare(unix.CLONE_NEWUSER)
	case "unshare-mount":
		return unix.Unshare(unix.CLONE_NEWNS)
	case "keyctl":
		return call(unix.SYS_KEYCTL, 0, ^uintptr(2), 0) // KEYCTL_GET_KEYRING_ID of the session
	case "bpf":
		attr := [16]byte{0: 1, 4: 4, 8: 4, 12: 1}
		return call(unix.SYS_BPF, 0, uintptr(unsafe.Pointer(&attr)), 16)
	case "perf":
		attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_SOFTWARE, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{}))}
		_, err := unix.PerfEventOpen(&attr, 0, -1, -1, 0)
		return err
	case "setns":
		f, err := os.Open("/proc/1/ns/net")
		if err != nil {
			return err
		}
		return unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
	case "userfaultfd":
		return call(unix.SYS_USERFAULTFD, 0)
	case "reboot":
		return unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	case "clock":
		return unix.Settimeofday(&unix.Timeval{Sec: time.Now().Unix()})
	case "hostname":
		return unix.Sethostname([]byte("other"))
	case "module":
		return call(unix.SYS_INIT_MODULE, 0, 0, 0)
	case "open": // a device by its numbers: kind major minor
		major, _ := strconv.Atoi(args[1])
		minor, _ := strconv.Atoi(args[2])
		mode := uint32(unix.S_IFCHR | 0o600)
		if args[0] == "b" {
			mode = unix.S_IFBLK | 0o600
		}
		if err := unix.Mknod("/tmp/device", mode, int(unix.Mkdev(uint32(major), uint32(minor)))); err != nil {
			return fmt.Errorf("mknod: %w", err)
		}
		defer os.Remove("/tmp/device")
		_, err := os.Open("/tmp/device")
		return err
	case "write":
		f, err := os.OpenFile(args[0], os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(args[1])
		return err
	case "ptrace":
		pid, _ := strconv.Atoi(args[0])
		return unix.PtraceAttach(pid)
	case "kill":
		pid, _ := strconv.Atoi(args[0])
		return unix.Kill(pid, 0)
	case "caps":
		b, err := os.ReadFile("/proc/self/status")
		for l := range strings.Lines(string(b)) {
			if strings.HasPrefix(l, "Cap") || strings.HasPrefix(l, "Seccomp:") {
				fmt.Print(l)
			}
		}
		return err
	case "memory":
		mib, _ := strconv.Atoi(args[0])
		var keep [][]byte
		for range mib {
			b := make([]byte, 1<<20)
			for i := 0; i < len(b); i += 4096 {
				b[i] = 1
			}
			keep = append(keep, b)
		}
		fmt.Println(len(keep))
		return nil
	case "forks":
		want, _ := strconv.Atoi(args[0])
		for n := range want {
			if err := exec.Command("/bin/sleep", "60").Start(); err != nil {
				return fmt.Errorf("after %d: %w", n, err)
			}
		}
		return nil
	}
	return fmt.Errorf("unknown: %s", what)
}
