// Package guest is what the region puts into an instance, as AWS's own agents
// are in theirs: it is PID 1 where the image has no init, runs user data once,
// and runs the commands that come over the guest channel. It is bind-mounted
// into the instance, never part of an image, and knows nothing but the
// directory that the hypervisor shares with it: no EC2, no network, no Dayfly.
// It stays small (no net, no os/exec): there is one in every instance.
package guest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Where things are inside an instance. All of it is below /run, a tmpfs, so
// that none of it can get into an image.
const (
	Dir     = "/run/dayfly"
	Binary  = Dir + "/guest" // this program, read-only
	HostDir = Dir + "/host"  // shared with the hypervisor
	DiskDir = Dir + "/disk"  // what the instance wrote to its disk, read-only: who looks for changes need not look at the whole image
	scripts = Dir + "/scripts"
)

// Names in the shared directory.
const (
	SocketName   = "guest.sock" // the guest channel
	BootName     = "boot.json"  // Boot
	ConsoleName  = "console"    // what PID 1 and its services print
	commandsName = "commands"   // results of commands
)

// Limits.
const (
	ConsoleLimit = 1 << 20 // of the console file
	OutputLimit  = 1 << 20 // of each output of a command; the end is kept
	ScriptLimit  = 4 << 20
	frameLimit   = 16 << 20
)

// Version of the channel's protocol. A guest answers requests of its own
// version and of older ones.
const Version = 1

// Boot is what the hypervisor tells the guest at each boot, in HostDir.
type Boot struct {
	Version int               `json:"version"`
	Env     map[string]string `json:"env,omitempty"` // of commands, services and units
	// UserData is set at the first boot only.
	UserData []byte `json:"user_data,omitempty"`
}

// Operations of the channel.
const (
	OpReady = "ready"
	OpRun   = "run"
)

// Request goes to the guest, one per connection.
type Request struct {
	Version int      `json:"version"`
	Op      string   `json:"op"`
	Command *Command `json:"command,omitempty"`
}

// Command is a script to run as root, at most once per instance and ID.
type Command struct {
	ID      string        `json:"id"`
	Script  []byte        `json:"script"`
	Dir     string        `json:"dir,omitempty"`
	Timeout time.Duration `json:"timeout,omitempty"`
}

// Response answers a Request. A run is answered twice: when the guest has
// taken the command (Accepted), and with its Result.
type Response struct {
	Version  int     `json:"version"`
	Error    string  `json:"error,omitempty"`
	Accepted bool    `json:"accepted,omitempty"`
	Result   *Result `json:"result,omitempty"`
}

// Result of a Command.
type Result struct {
	ExitCode int       `json:"exit_code"`
	Stdout   []byte    `json:"stdout,omitempty"`
	Stderr   []byte    `json:"stderr,omitempty"`
	TimedOut bool      `json:"timed_out,omitempty"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended"`
}

// WriteFrame writes v as JSON behind its length, four bytes, big endian.
func WriteFrame(w io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("guest channel: encode: %w", err)
	}
	if len(b) > frameLimit {
		return fmt.Errorf("guest channel: a message of %d bytes is over the limit of %d", len(b), frameLimit)
	}
	if _, err := w.Write(append(binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(b)), uint32(len(b))), b...)); err != nil {
		return fmt.Errorf("guest channel: %w", err)
	}
	return nil
}

// ReadFrame reads what WriteFrame wrote into v. io.EOF means that the other
// side ended between two frames.
func ReadFrame(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return io.EOF
		}
		return fmt.Errorf("guest channel: %w", err)
	}
	n := binary.BigEndian.Uint32(head[:])
	if n > frameLimit {
		return fmt.Errorf("guest channel: a message of %d bytes is over the limit of %d", n, frameLimit)
	}
	// Grow with what really comes: a length alone reserves no memory.
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(b) < int(n) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return fmt.Errorf("guest channel: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("guest channel: decode: %w", err)
	}
	return nil
}

func readBoot(path string) (Boot, error) {
	var b Boot
	data, err := os.ReadFile(path)
	if err != nil {
		return b, err
	}
	if err := json.Unmarshal(data, &b); err != nil {
		return b, fmt.Errorf("%s: %w", path, err)
	}
	if b.Version != Version {
		return b, fmt.Errorf("%s: version %d, this guest knows %d", path, b.Version, Version)
	}
	return b, nil
}
