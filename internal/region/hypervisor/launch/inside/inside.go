// Package inside is the half of the launcher that runs in the new process: it
// has its namespaces already, is told a Plan, makes the file system, gives up
// its powers and becomes PID 1 of the instance by exec. Nothing is decided
// here. The process is dayfly-guest, which is small and lies on every host that
// has instances; until the exec it has seen nothing of the instance's files but
// where it mounts. The package must stay small (no net, no os/exec), and must
// not know the OCI, instances or the region.
//
// A Go program has several threads from its first instruction on, and the
// kernel keeps credentials, filters and most namespaces by the thread. So all
// is done on one thread, and exec from it ends the others.
package inside

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Socket is the descriptor on which the plan comes and the answer goes.
const Socket = 3

// Answers on the socket: Done just before the exec, so that the end of the
// stream after it means that PID 1 runs; anything else is an error's text.
const Done = 0

const planLimit = 1 << 20

// Plan is all that is to be done. Paths of Root, NetNS and of binds' sources are
// the host's, others are of the new root.
type Plan struct {
	Root     Overlay
	NetNS    string `json:",omitempty"` // to join; it has one of its own already where empty
	Hostname string `json:",omitempty"`
	Keyring  string `json:",omitempty"` // name of the new session keyring
	Mounts   []Mount
	Devices  []Device
	Links    [][2]string // in /dev: name, target
	Readonly []string
	Masked   []string
	OOMScore string `json:",omitempty"`
	Rlimits  []Rlimit
	Caps     Caps
	NoNew    bool   // no new privileges
	Filter   []byte // seccomp, as the kernel has it in memory
	Flags    uint32 // of the filter
	Args     []string
	Env      []string
	Dir      string
}

// Mount is one mount. A bind is remounted with its flags.
type Mount struct {
	Source, Dest, Type, Data string
	Flags                    uintptr
	File                     bool // the source is a file
	Keep                     bool // what is there is only remounted
}

// Device is a node in /dev.
type Device struct {
	Name         string
	Major, Minor uint32
}

// Rlimit is one limit.
type Rlimit struct {
	Kind       int
	Soft, Hard uint64
}

// Caps are sets of capabilities.
type Caps struct {
	Bounding, Effective, Permitted, Inheritable uint64
}

// Write sends a plan.
func Write(w io.Writer, p Plan) error {
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	if len(b) > planLimit {
		return fmt.Errorf("a plan of %d bytes", len(b))
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...))
	return err
}

type socket int

func (s socket) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(int(s), b)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Main makes this process PID 1 of an instance. It returns only with an error,
// which the other side has been told.
func Main() error {
	runtime.LockOSThread()
	unix.CloseOnExec(Socket)
	err := run()
	_, _ = unix.Write(Socket, []byte(err.Error()))
	return err
}

func run() error {
	var p Plan
	var head [4]byte
	if _, err := io.ReadFull(socket(Socket), head[:]); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > planLimit {
		return errors.New("the plan is too long")
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(socket(Socket), b); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	for _, step := range []struct {
		name string
		do   func(*Plan) error
	}{
		{"join the namespaces", join},
		{"make the root", makeRoot},
		{"make the devices", makeDevices},
		{"enter the root", enter},
		{"protect paths", protect},
		{"set limits", limits},
	} {
		if err := step.do(&p); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return become(&p)
}

// join completes the namespaces that could not be had at the clone.
func join(p *Plan) error {
	// Our cgroups are the instance's by now: they are the root that it sees.
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return fmt.Errorf("cgroup namespace: %w", err)
	}
	if p.NetNS != "" {
		fd, err := unix.Open(p.NetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err == nil {
			err = unix.Setns(fd, unix.CLONE_NEWNET)
			unix.Close(fd)
		}
		if err != nil {
			return fmt.Errorf("network namespace %s: %w", p.NetNS, err)
		}
	}
	if p.Hostname != "" {
		if err := unix.Sethostname([]byte(p.Hostname)); err != nil {
			return fmt.Errorf("host name: %w", err)
		}
	}
	if p.Keyring != "" {
		// The host's keys are not the instance's. Not where the kernel has no keys.
		if _, err := unix.KeyctlJoinSessionKeyring(p.Keyring); err != nil && err != unix.ENOSYS {
			return fmt.Errorf("session keyring: %w", err)
		}
	}
	return nil
}

func limits(p *Plan) error {
	if p.OOMScore != "" {
		if err := os.WriteFile("/proc/self/oom_score_adj", []byte(p.OOMScore), 0); err != nil {
			return err
		}
	}
	for _, r := range p.Rlimits {
		if err := syscall.Setrlimit(r.Kind, &syscall.Rlimit{Cur: r.Soft, Max: r.Hard}); err != nil {
			return fmt.Errorf("limit %d: %w", r.Kind, err)
		}
	}
	return nil
}

// become gives up all that the instance shall not have and executes its PID 1.
// The order is forced: loading a filter needs powers, unless there is no way
// to new ones.
func become(p *Plan) error {
	if err := unix.Chdir(p.Dir); err != nil {
		return err
	}
	if err := stdio(); err != nil {
		return fmt.Errorf("standard input: %w", err)
	}
	unix.Umask(0o022)
	if p.NoNew {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no new privileges: %w", err)
		}
	}
	if err := dropGroups(); err != nil {
		return err
	}
	if len(p.Args) == 0 {
		return errors.New("nothing to execute")
	}
	// The host's descriptors end with the exec, whatever they are.
	if err := unix.CloseRange(Socket, ^uint(0)>>1, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close descriptors: %w", err)
	}
	// Whoever started this may have died meanwhile: then nobody knows of it.
	fds := []unix.PollFd{{Fd: Socket, Events: unix.POLLRDHUP}}
	if n, err := unix.Poll(fds, 0); n != 0 || err != nil {
		return errors.New("the launcher has ended")
	}
	if err := secure(p); err != nil {
		return err
	}
	if _, err := unix.Write(Socket, []byte{Done}); err != nil {
		return err
	}
	return fmt.Errorf("execute %s: %w", p.Args[0], syscall.Exec(p.Args[0], p.Args, p.Env))
}
