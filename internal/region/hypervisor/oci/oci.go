// Package oci runs instances for real: an OCI bundle each, over overlayfs and
// content-addressed layers, started by package launch or by an OCI runtime
// (runc). It implements hypervisor.Hypervisor, and knows files, mounts, cgroups
// and processes; it must not know EC2, networks (it joins a namespace by its
// path) or Dayfly.
//
// # On disk
//
//	DIR/lock                   held by the process that manages DIR
//	DIR/images/ID.json         an image: its layers, from the lowest
//	DIR/layers/sha256-HEX/     a layer, extracted; never changed
//	DIR/instances/ID/          instance.json, and:
//	  upper/ work/ rootfs/     overlayfs
//	  skel/                    the highest read-only layer: /etc/hosts, /etc/hostname and
//	                           /etc/resolv.conf of this instance, and mount points. An instance
//	                           may change or replace these files, but as they are not in upper
//	                           they are in no image unless it did
//	  guest/                   shared with the guest inside: socket, boot.json, console, results
//	  config.json              the OCI bundle's
//	RUNDIR/runc/               the runtime's own state
//
// Whatever has no record, or a name that begins with a dot, is left over from
// an interrupted operation and removed by New. A running instance needs
// nothing of this process: New finds it again by its pid and start time.
//
// Overlays are mounted volatile: what an instance syncs reaches the disk when
// it stops, or by itself later, so that 45 of them do not wait for each other.
// A host that loses power keeps images and stopped instances, but may lose the
// latest writes of instances that ran.
//
// # Isolation
//
// Instances have their own pid, mount, uts, ipc and cgroup namespaces, and the
// network namespace that they are given (or a new one), limits of memory, cpu
// and processes, the 14 capabilities of Docker's default and its default
// seccomp profile, and its masked and read-only paths. There is no user
// namespace: root inside is root of the host without most of its powers.
//
// Images with systemd get what systemd needs and no more: CAP_SYS_ADMIN (it
// mounts), with it the system calls that the profile then allows less bpf,
// perf_event_open, fanotify_init, lookup_dcookie, quotactl, quotactl_fd,
// syslog and setdomainname; its own cgroup writable, and of cgroup v1 only the
// name=systemd hierarchy, so that it cannot lift its limits; and tmpfs on /run,
// /run/lock and /tmp. CAP_SYS_ADMIN without a user namespace can undo masked and
// read-only paths: a systemd image keeps honest software apart, it is no wall
// against a hostile root inside. Images without systemd are.
package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/launch"
)

// Config of a Hypervisor.
type Config struct {
	Dir       string // images and instances; on a file system that overlayfs can write to
	RunDir    string // state that need not survive a reboot, such as /run/dayfly
	Prefix    string // parent cgroup and beginning of container names, unique on this host
	GuestPath string // the dayfly-guest program, statically linked
	// Runtime is "launch" for package launch, or an OCI runtime such as "runc".
	// When empty, package launch where it can be, else runc.
	Runtime     string
	Concurrency int          // instances started or removed at once; two per processor when 0
	Log         *slog.Logger // slog.Default when nil
	Clock       clock.Clock  // the real one when nil
}

// Hypervisor implements hypervisor.Hypervisor. Make it with New.
type Hypervisor struct {
	cfg      Config
	launcher *launch.Launcher // nil where an OCI runtime is asked for, or needed
	runtime  string           // its path then
	profiles profiles
	bootID   string
	lock     *os.File
	cgroups  cgroups
	slots    chan struct{}
	watch    *watcher
	events   *queue
	work     sync.WaitGroup // clean-ups after exits
	quit     chan struct{}  // closed by Close
	throwing sync.WaitGroup // who still sends to trash
	trash    chan string    // directories of instances that are gone
	emptied  chan struct{}  // closed when nothing removes them any more

	mu     sync.Mutex // guards what follows, and status of instances
	images map[string]image
	insts  map[string]*instance
	closed bool
}

var _ hypervisor.Hypervisor = (*Hypervisor)(nil)

var (
	validID     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)
	validPrefix = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,31}$`)
)

func refuse(message, hint string, err error) error {
	return &fault.Error{Kind: fault.Invalid, Op: "start the hypervisor", Message: message, Hint: hint, Err: err}
}

const lockPatience = time.Second

// New takes over cfg.Dir: it adopts instances that run, and removes what an
// interrupted operation left.
func New(cfg Config) (*Hypervisor, error) {
	h := &Hypervisor{cfg: cfg, quit: make(chan struct{}), images: map[string]image{}, insts: map[string]*instance{}}
	if err := h.configure(); err != nil {
		return nil, err
	}
	for _, d := range []string{cfg.Dir, h.imagesDir(), h.layersDir(), h.instancesDir(), cfg.RunDir, h.runcRoot()} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, refuse("a directory is missing", "choose directories that root can write to", err)
		}
	}
	// Layers hold set-user-id programs: nobody else may get to them.
	for _, d := range []string{h.imagesDir(), h.layersDir(), h.instancesDir(), h.runcRoot()} {
		if err := os.Chmod(d, 0o700); err != nil {
			return nil, refuse("a directory is not ours", "", err)
		}
	}
	lock, err := os.OpenFile(filepath.Join(cfg.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, refuse("cannot lock "+cfg.Dir, "", err)
	}
	// What a killed process was just starting holds its lock until it executes.
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	for end := time.Now().Add(lockPatience); errors.Is(err, unix.EWOULDBLOCK) && time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		_ = lock.Close()
		return nil, refuse("another process manages "+cfg.Dir, "stop the other region first", err)
	}
	h.lock = lock
	h.slots = make(chan struct{}, h.cfg.Concurrency)
	h.events = newQueue()
	h.trash, h.emptied = make(chan string, 256), make(chan struct{})
	go h.emptyTrash()
	if h.watch, err = newWatcher(); err == nil {
		err = h.adopt()
	}
	if err != nil {
		_ = h.Close()
		return nil, err
	}
	return h, nil
}

func (h *Hypervisor) configure() error {
	c := &h.cfg
	if os.Geteuid() != 0 {
		return refuse("instances need root", "run it as root, or use the simulator", nil)
	}
	for name, d := range map[string]string{"Dir": c.Dir, "RunDir": c.RunDir, "GuestPath": c.GuestPath} {
		if !filepath.IsAbs(d) {
			return refuse(fmt.Sprintf("%s is %q, not an absolute path", name, d), "", nil)
		}
	}
	if !validPrefix.MatchString(c.Prefix) {
		return refuse(fmt.Sprintf("the prefix %q is not lower-case letters, digits and dashes", c.Prefix), "", nil)
	}
	if i, err := os.Stat(c.GuestPath); err != nil || !i.Mode().IsRegular() || i.Mode()&0o111 == 0 {
		return refuse("the guest program "+c.GuestPath+" is missing or not executable", "build it: make build", err)
	}
	if c.Concurrency <= 0 {
		c.Concurrency = 2 * runtime.NumCPU()
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	if c.Clock == nil {
		c.Clock = clock.Real{}
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return refuse("this host has no /proc", "", err)
	}
	h.bootID = strings.TrimSpace(string(boot))
	if h.cgroups, err = findCgroups(c.Prefix); err != nil {
		return err
	}
	return h.chooseRuntime()
}

const ownRuntime = "launch"

// chooseRuntime takes the launcher where it can be had.
func (h *Hypervisor) chooseRuntime() error {
	c := &h.cfg
	why := ""
	switch {
	case runtime.GOARCH != "amd64":
		why = "it knows the system calls of x86-64 alone"
	case h.cgroups.unified:
		why = "it knows cgroup v1 alone"
	}
	var err error
	switch {
	case (c.Runtime == "" || c.Runtime == ownRuntime) && why == "":
		h.launcher, err = launch.New(launch.Config{Program: c.GuestPath, Groups: h.cgroups.groups})
		return err
	case c.Runtime == ownRuntime:
		return refuse("Dayfly's own launcher cannot be used here: "+why, "use the runtime runc", nil)
	case c.Runtime == "":
		c.Log.Info("instances are started by runc, not by Dayfly's own launcher", "because", why)
		c.Runtime = "runc"
	}
	if h.runtime, err = exec.LookPath(c.Runtime); err != nil {
		return refuse("the OCI runtime "+c.Runtime+" is missing", "apt-get install runc", err)
	}
	return nil
}

func (h *Hypervisor) imagesDir() string    { return filepath.Join(h.cfg.Dir, "images") }
func (h *Hypervisor) layersDir() string    { return filepath.Join(h.cfg.Dir, "layers") }
func (h *Hypervisor) instancesDir() string { return filepath.Join(h.cfg.Dir, "instances") }
func (h *Hypervisor) runcRoot() string     { return filepath.Join(h.cfg.RunDir, "runc") }

// container is an instance's name towards the runtime.
func (h *Hypervisor) container(id string) string { return h.cfg.Prefix + "-" + id }

// List returns every instance, in order of ids.
func (h *Hypervisor) List(context.Context) ([]hypervisor.Status, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]hypervisor.Status, 0, len(h.insts))
	for _, i := range h.insts {
		if i.made {
			list = append(list, i.status)
		}
	}
	slices.SortFunc(list, func(a, b hypervisor.Status) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// Events delivers each instance that stops. The channel is closed by Close.
func (h *Hypervisor) Events() <-chan hypervisor.Status { return h.events.out }

// Close stops watching. Instances go on.
func (h *Hypervisor) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	close(h.quit)
	h.mu.Unlock()
	if h.watch != nil {
		h.watch.close()
	}
	h.work.Wait()
	h.throwing.Wait()
	close(h.trash)
	<-h.emptied
	h.events.close()
	var err error
	if h.launcher != nil {
		err = h.launcher.Close()
	}
	return errors.Join(err, h.lock.Close())
}

// find returns an instance that Create has finished.
func (h *Hypervisor) find(id string) (*instance, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errors.New("the hypervisor is closed")
	}
	i := h.insts[id]
	if i == nil || !i.made {
		return nil, fmt.Errorf("%s: %w", id, hypervisor.ErrNoInstance)
	}
	return i, nil
}

// slot waits for the right to start or remove an instance.
func (h *Hypervisor) slot(ctx context.Context) (release func(), err error) {
	select {
	case h.slots <- struct{}{}:
		return func() { <-h.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Console returns the end of what PID 1 printed.
func (h *Hypervisor) Console(_ context.Context, id string, limit int) ([]byte, error) {
	i, err := h.find(id)
	if err != nil {
		return nil, err
	}
	// The file lies where root inside can replace it: follow nothing, and do
	// not hang on a pipe.
	f, err := os.OpenFile(i.consolePath(), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("console of %s: %w", id, err)
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("console of %s: %w", id, err)
	}
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("console of %s: not a file any more", id)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, max(0, st.Size()-int64(limit)), int64(limit)))
	if err != nil {
		return nil, fmt.Errorf("console of %s: %w", id, err)
	}
	return b, nil
}
