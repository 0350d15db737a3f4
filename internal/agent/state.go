package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"strconv"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

// phase is how far a boot is.
type phase string

const (
	armed     phase = "armed"     // no release: a builder or a canary
	configure phase = "configure" // Puppet's agent runs
	deploying phase = "deploying" // the deploy script runs
	starting  phase = "starting"  // the script is done, the service is not ready yet
	serving   phase = "serving"   // ready, and the launch hook is completed
	failed    phase = "failed"
)

// boot is what the agent knows of this boot, in /run: an agent that is started
// again goes on from here.
type boot struct {
	Boot    string         `json:"boot"` // this boot's own name
	ID      identity       `json:"id"`
	Launch  handoff.Launch `json:"launch"`
	Config  handoff.Config `json:"config"`
	Phase   phase          `json:"phase"`
	Reason  string         `json:"reason,omitempty"`
	Script  process        `json:"script,omitzero"`  // deploy script that runs
	Service process        `json:"service,omitzero"` //
}

// process names a process for ever: a pid alone is used again.
type process struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"` // clock ticks since the machine's boot
}

const bootFile = handoff.RunDir + "/boot.json"

// fired says that the hand-off of one (image, release) was fired on this
// instance; it outlives reboots.
type fired struct {
	Instance string `json:"instance"`
	Done     bool   `json:"done"` // the script ended well
}

func firedFile(b *boot) string {
	h := sha256.Sum256([]byte(b.Config.Image + "\n" + b.Config.Inputs + "\n" + b.Launch.Digest))
	return handoff.StateDir + "/fired/" + hex.EncodeToString(h[:8]) + ".json"
}

// load reads a JSON file; false where it is absent or cannot be read.
func (a *Agent) load(p string, v any) bool {
	raw, err := os.ReadFile(a.path(p))
	return err == nil && json.Unmarshal(raw, v) == nil
}

func (a *Agent) save(p string, v any) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return a.write(p, append(raw, '\n'), 0o600)
}

// bootName differs with each boot of a machine or container: /run may be a
// plain folder that survives both, and even be part of an image.
func (a *Agent) bootName() string {
	id, _ := os.ReadFile(a.path("/proc/sys/kernel/random/boot_id"))
	start, _ := a.startOf(1)
	return strings.TrimSpace(string(id)) + "/" + strconv.FormatUint(start, 10)
}

// startOf is when a process was started; an error when it is not there.
func (a *Agent) startOf(pid int) (uint64, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The second field is a name in parentheses and may hold anything.
	s := string(raw)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 20 {
		return 0, errors.New("stat of a process cannot be read")
	}
	if f[0] == "Z" || f[0] == "X" {
		return 0, os.ErrProcessDone
	}
	return strconv.ParseUint(f[19], 10, 64)
}

func (a *Agent) alive(p process) bool {
	if p.PID <= 1 {
		return false
	}
	start, err := a.startOf(p.PID)
	return err == nil && start == p.Start
}
