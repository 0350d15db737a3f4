// Package hypervisor is the port between the region's services and what runs
// instances: hypervisor/oci (real ones, an OCI runtime over overlayfs) and
// hypervisor/sim (in memory, with faults). hypervisor/conformance is the suite
// that both must pass. It knows machine images, instances and the channel to
// the guest inside them; it must not know EC2, networks or Dayfly.
package hypervisor

import (
	"context"
	"errors"
	"io"
	"time"
)

// Errors that every implementation returns (wrapped).
var (
	ErrNoInstance = errors.New("no such instance")
	ErrNoImage    = errors.New("no such image")
	ErrState      = errors.New("the instance is in the wrong state for this")
	ErrInUse      = errors.New("the image is in use")
	ErrNotReady   = errors.New("the guest does not answer (yet)")
)

// Boot is what an image's PID 1 is.
type Boot string

const (
	BootGuest   Boot = "guest"   // the region's guest is PID 1 (images without an init)
	BootSystemd Boot = "systemd" // /sbin/init of the image, the guest is a unit in /run
)

// Image is a machine image that the hypervisor holds: a stack of
// content-addressed layers.
type Image struct {
	ID     string // the caller's name for it, such as ami-…
	Boot   Boot
	Arch   string   // Go's name, amd64
	Layers []string // sha256:… from the lowest to the highest
	Bytes  int64    // size of all layers
}

// Instance is what Create needs; it is remembered until Destroy.
type Instance struct {
	ID        string // i-…
	Image     string // Image.ID
	CPUs      float64
	MemoryMiB int64
	Pids      int64
	Hostname  string
	NetNS     string            // path of the network namespace to join; "" = a new empty one
	Env       map[string]string // environment of PID 1 and of what it starts
	// UserData runs once per instance at first boot when it begins with "#!".
	UserData []byte
	Resolver string // address for /etc/resolv.conf; "" = none
}

// State of an instance.
type State string

const (
	Running State = "running"
	Stopped State = "stopped" // created, or stopped, or PID 1 ended by itself
)

// Status is what List and Events say of an instance.
type Status struct {
	ID      string
	Image   string
	State   State
	PID     int // of PID 1, as the host sees it; 0 when stopped or simulated
	Started time.Time
	// Reason says why a stopped instance stopped: "stopped" when asked to,
	// "exited N", "killed by signal N", "out of memory".
	Reason string
}

// Command is a script for the guest to run as root.
type Command struct {
	ID      string // once-only: the guest runs an id at most once per instance life and answers again with its result
	Script  []byte // run by /bin/sh unless it begins with "#!"
	Dir     string
	Timeout time.Duration
}

// Result of a command.
type Result struct {
	ExitCode int
	Stdout   []byte // at most 1 MiB each, the end is kept
	Stderr   []byte
	TimedOut bool
	Started  time.Time
	Ended    time.Time
}

// Hypervisor runs instances. Every method is idempotent by id and safe for
// concurrent use; a method that returns an error may be repeated. Instances
// outlive the process that holds the Hypervisor: a new one adopts them.
type Hypervisor interface {
	// ImportImage makes an image from a root file system as an uncompressed
	// tar stream. An id that is there is left alone (rootfs is not read).
	ImportImage(ctx context.Context, id string, boot Boot, rootfs io.Reader) (Image, error)
	// Snapshot makes an image from a stopped instance: its image's layers and
	// one more with what was written. ErrState if it runs.
	Snapshot(ctx context.Context, instance, image string) (Image, error)
	Images(ctx context.Context) ([]Image, error)
	// DeleteImage forgets an image and the layers that nothing else has.
	// ErrInUse while an instance was made from it. Unknown ids are no error.
	DeleteImage(ctx context.Context, id string) error

	// Create makes and starts an instance; it returns when PID 1 runs.
	// ErrNoImage where the image is unknown.
	Create(ctx context.Context, in Instance) error
	// Stop asks PID 1 to end (SIGTERM, or systemd's SIGRTMIN+3) and kills
	// everything after grace. The disk stays.
	Stop(ctx context.Context, id string, grace time.Duration) error
	// Start boots a stopped instance again on its own disk. netns replaces
	// the network namespace's path.
	Start(ctx context.Context, id, netns string) error
	// Destroy kills what runs and removes every trace. Unknown ids are no error.
	Destroy(ctx context.Context, id string) error

	// List returns every instance that is there, dead ones too.
	List(ctx context.Context) ([]Status, error)
	// Events delivers a status each time an instance stops, whoever stopped
	// it. There is one channel for the life of the Hypervisor; List at start.
	Events() <-chan Status

	// Run hands a command to the guest and waits for its result. ErrNotReady
	// while the guest is not up; the command has then not begun.
	Run(ctx context.Context, id string, c Command) (Result, error)
	// Ready tells whether the guest answers.
	Ready(ctx context.Context, id string) error
	// Console returns the end of what PID 1 printed, at most max bytes.
	Console(ctx context.Context, id string, max int) ([]byte, error)

	// Close stops watching; instances go on.
	Close() error
}
