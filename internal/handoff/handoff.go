// Package handoff is the agreement between a bake, a launch and the agent
// inside an instance: what the bake's last Puppet stage arms, what a launch
// says in its user data, what the deploy script finds in its environment, and
// what an instance reports. It is part of the agent, so it stays small; it must
// not know clouds, stores or how any of it is carried out.
package handoff

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"
)

// Paths inside an instance.
const (
	ArmedFile = "/etc/dayfly/handoff.json"     // written by Puppet's last stage: the hand-off is armed
	Settings  = "/usr/lib/dayfly/handoff.json" // what the last stage copies there
	ScriptDir = "/usr/lib/dayfly/handoff"      // the deploy script's folder
	AgentPath = "/usr/lib/dayfly/dayfly-agent"
	EnvFile   = "/etc/dayfly/instance.env" // host name and details of this instance
	StateDir  = "/var/lib/dayfly"          // what was fired, for the life of the instance
	RunDir    = "/run/dayfly"              // of this boot
	LogDir    = "/var/log/dayfly"
)

// Config is the armed hand-off.
type Config struct {
	Image    string        `json:"image"`  // image record
	Inputs   string        `json:"inputs"` // its inputs digest
	Role     string        `json:"role"`
	Run      string        `json:"run"`     // deploy script, absolute
	Service  string        `json:"service"` // command that the agent keeps running
	User     string        `json:"user"`    // of the service
	Ready    string        `json:"ready"`   // http://:PORT/PATH or tcp://:PORT
	Deadline time.Duration `json:"deadline"`
	Puppet   *Puppet       `json:"puppet,omitempty"` // nil = no run at first boot
}

// Puppet is a run of Puppet's agent at an instance's first boot, before the
// hand-off is fired.
type Puppet struct {
	Server      string `json:"server"`
	Port        string `json:"port"`
	Address     string `json:"address,omitempty"` // of Server; "" = the name is known
	Fingerprint string `json:"fingerprint,omitempty"`
	Environment string `json:"environment"` // Puppet's own
	Role        string `json:"role"`        // pp_role
}

// Certname of an instance that asks for a certificate by itself.
func (p Puppet) Certname(instance string) string {
	return strings.ToLower(p.Role + "." + p.Environment + "." + instance)
}

// ParseConfig reads an armed hand-off.
func ParseConfig(raw []byte) (Config, error) {
	var c Config
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("%s: %w", ArmedFile, err)
	}
	if !path.IsAbs(c.Run) {
		return c, fmt.Errorf("%s: run must be an absolute path, not %q", ArmedFile, c.Run)
	}
	if c.Deadline <= 0 {
		c.Deadline = 10 * time.Minute
	}
	if c.User == "" {
		c.User = "root"
	}
	return c, nil
}

// Marker is the first line of user data that is meant for the agent.
const Marker = "#dayfly"

// Launch is what an instance is told in its user data.
type Launch struct {
	URL         string // box's address of the release
	Mirror      string // s3://bucket/key, read with the instance's role
	Digest      string // sha256:…
	Environment string
	Generation  string
	Hook        string // name of the launch lifecycle hook
	Bucket      string // for the report; "" = none
	Operation   string // id of what the launch is part of, for logs; "" = not known
}

// Fires tells whether this launch has a release; builders and canaries have none.
func (l Launch) Fires() bool { return l.URL != "" || l.Mirror != "" || l.Digest != "" }

// File is the artifact's file name.
func (l Launch) File() string {
	for _, a := range []string{l.URL, l.Mirror} {
		if u, err := url.Parse(a); err == nil && a != "" {
			if b := path.Base(u.Path); b != "." && b != "/" {
				return b
			}
		}
	}
	return "release"
}

// By hand: every instance would pay for compiling the expressions, twice.

// isDigest tells whether s is sha256: and 64 hexadecimal digits.
func isDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, "sha256:")
	return ok && len(hex) == 64 && strings.Trim(hex, "0123456789abcdef") == ""
}

// isWord tells whether s is made of letters, digits and, but for the first
// place, of dots, dashes and underscores.
func isWord(s string) bool {
	const plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	return s != "" && len(s) <= 255 && strings.Contains(plain, s[:1]) && strings.Trim(s, plain+"._-") == ""
}

// maxUserData is EC2's own limit.
const maxUserData = 16 << 10

// ParseLaunch reads user data. User data that does not begin with the marker is
// somebody else's: an empty Launch and no error.
func ParseLaunch(raw string) (Launch, error) {
	l := Launch{Hook: "launch"}
	first, rest, _ := strings.Cut(raw, "\n")
	if strings.TrimRight(first, " \t\r") != Marker {
		return l, nil
	}
	if len(raw) > maxUserData {
		return l, fmt.Errorf("user data has %d bytes; EC2's limit is %d", len(raw), maxUserData)
	}
	fields := map[string]*string{
		"DAYFLY_RELEASE_URL": &l.URL, "DAYFLY_RELEASE_MIRROR": &l.Mirror, "DAYFLY_RELEASE_DIGEST": &l.Digest,
		"DAYFLY_ENVIRONMENT": &l.Environment, "DAYFLY_GENERATION": &l.Generation, "DAYFLY_LAUNCH_HOOK": &l.Hook, "DAYFLY_BUCKET": &l.Bucket, "DAYFLY_OPERATION": &l.Operation,
	}
	for i, line := range strings.Split(rest, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if !ok {
			return l, fmt.Errorf("user data line %d: %q is not KEY=VALUE", i+2, line)
		}
		// Unknown keys are newer than this agent, or the team's own.
		if p := fields[strings.TrimSpace(k)]; p != nil {
			*p = strings.TrimSpace(v)
		}
	}
	return l, l.check()
}

func (l Launch) check() error {
	var errs []error
	if l.Fires() {
		if !isDigest(l.Digest) {
			errs = append(errs, fmt.Errorf("DAYFLY_RELEASE_DIGEST must be sha256: and 64 hex digits, not %q", l.Digest))
		}
		if l.URL == "" && l.Mirror == "" {
			errs = append(errs, errors.New("there is a DAYFLY_RELEASE_DIGEST, but neither DAYFLY_RELEASE_URL nor DAYFLY_RELEASE_MIRROR"))
		}
	}
	if l.Mirror != "" {
		if _, _, err := ParseS3(l.Mirror); err != nil {
			errs = append(errs, fmt.Errorf("DAYFLY_RELEASE_MIRROR: %w", err))
		}
	}
	// These become parts of object keys and host names.
	for k, v := range map[string]string{"DAYFLY_ENVIRONMENT": l.Environment, "DAYFLY_GENERATION": l.Generation, "DAYFLY_LAUNCH_HOOK": l.Hook, "DAYFLY_BUCKET": l.Bucket, "DAYFLY_OPERATION": l.Operation} {
		if v != "" && !isWord(v) {
			errs = append(errs, fmt.Errorf("%s may have letters, digits, dots and dashes only, not %q", k, v))
		}
	}
	return errors.Join(errs...)
}

// ParseS3 takes s3://bucket/key apart.
func ParseS3(address string) (bucket, key string, err error) {
	rest, ok := strings.CutPrefix(address, "s3://")
	bucket, key, _ = strings.Cut(rest, "/")
	if !ok || bucket == "" || key == "" || strings.ContainsAny(bucket, "?#@: ") {
		return "", "", fmt.Errorf("%q is not s3://BUCKET/KEY", address)
	}
	return bucket, key, nil
}

// Report is what an instance says of its hand-off.
type Report struct {
	Instance    string `json:"instance"`
	ImageID     string `json:"image_id"` // AMI
	Image       string `json:"image"`    // image record
	Environment string `json:"environment"`
	Generation  string `json:"generation"`
	Digest      string `json:"digest"`
	Zone        string `json:"zone"`
	Operation   string `json:"operation,omitempty"`

	OK       bool      `json:"ok"`
	Reason   string    `json:"reason,omitempty"` // in words, when not OK
	ExitCode int       `json:"exit_code"`        // of the deploy script; -1 = it did not end by itself
	Output   string    `json:"output,omitempty"` // last 4 KiB of the script, or of the service when that failed
	Source   string    `json:"source,omitempty"` // box or mirror: where the release came from
	Puppet   *Puppeted `json:"puppet,omitempty"` // of the run at first boot
	Phases   []Phase   `json:"phases"`

	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended"`
}

// Puppeted is how Puppet's runs at first boot ended.
type Puppeted struct {
	Certname string `json:"certname"`
	Runs     int    `json:"runs"`
	ExitCode int    `json:"exit_code"` // of the last run
}

// Phase is one part of the hand-off and how long it took.
type Phase struct {
	Name    string  `json:"name"` // metadata, details, deploy, ready, hook
	Seconds float64 `json:"seconds"`
}

// Fired tells whether the instance came as far as its deploy script.
func (r Report) Fired() bool {
	return r.OK || slices.ContainsFunc(r.Phases, func(p Phase) bool { return p.Name == "deploy" })
}

// OutputLimit is how many of the last bytes a report keeps.
const OutputLimit = 4 << 10

// ReportKey is where a report lies in Dayfly's bucket.
func ReportKey(environment, generation, instance string) string {
	return path.Join("handoff", environment, generation, instance+".json")
}

// Logs is the end of what was written on an instance, as it sent it itself:
// once the hand-off is over, and again when its service fails.
type Logs struct {
	Instance string    `json:"instance"`
	At       time.Time `json:"at"`
	Agent    string    `json:"agent,omitempty"` // what the agent did at this boot
	Puppet   string    `json:"puppet,omitempty"`
	Deploy   string    `json:"deploy,omitempty"` // script
	Service  string    `json:"service,omitempty"`
}

// LogLimit is how many of the last bytes of each log are sent.
const LogLimit = 16 << 10

// LogsKey is where an instance's logs lie in Dayfly's bucket.
func LogsKey(environment, generation, instance string) string {
	return path.Join("handoff", environment, generation, "logs", instance+".json")
}

// Condition is what an instance says is wrong with it, once it serves. There is
// none where all is well.
type Condition struct {
	Instance  string    `json:"instance"`
	Unhealthy string    `json:"unhealthy,omitempty"` // a sentence
	Touched   []string  `json:"touched,omitempty"`   // changed paths, logins
	By        string    `json:"by,omitempty"`        // who touched it, as far as it is known
	At        time.Time `json:"at"`
}

// ConditionKey is where a condition lies in Dayfly's bucket.
func ConditionKey(environment, generation, instance string) string {
	return path.Join("handoff", environment, generation, "conditions", instance+".json")
}
