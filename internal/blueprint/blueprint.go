// Package blueprint is the folder that a team brings: dayfly.yaml, templates,
// Puppet code, deploy script, checks and suites. It reads and judges them; it
// must not know clouds, stores or how anything is carried out.
package blueprint

import (
	"time"

	"github.com/dayfly-infra/dayfly/internal/environment"
)

// File is the name of the blueprint's description.
const File = "dayfly.yaml"

// Blueprint is a dayfly.yaml that was read without an error.
type Blueprint struct {
	Name         string
	Image        Image
	Release      Release
	Handoff      Handoff
	Foundation   string // template's path in the folder, default foundation.yaml; "" when Fleet holds everything
	Fleet        string // template's path, default fleet.yaml
	Parameters   ParameterNames
	Environments map[string]Environment
	Runs         Runs
	Pipeline     []Stage
}

// Image says how the machine image is made.
type Image struct {
	Base         string // debian-12, debian-12-slim, an ami-… or an SSM parameter's name
	Puppet       Puppet
	SecretsAllow []Allow  // what may look like a secret on the image
	Verify       []string // checks, paths in the folder: scripts (goss files with .yaml)
	Type         string   // instance type of the builder, default t3.medium
	Role         string   // role of the nodes, default the blueprint's name
	Boot         string   // armed (default) or puppet
	// KeepFailed is how long a failed bake keeps its builder for a look and
	// another try; 0 = not at all, default 2h.
	KeepFailed time.Duration
	// Refresh is how often an image is made anew although its inputs are the
	// same; 0 = never.
	Refresh time.Duration
}

// Allow is an exception from the search for secrets.
type Allow struct {
	Path   string // or a pattern; with a slash at the end, all below a folder
	Reason string
}

// Puppet is where the catalog comes from: Code (a folder with manifests/,
// modules/, data/, hiera.yaml) or Server.
type Puppet struct {
	Code        string
	Server      string        // host or host:port, default port 8140
	Address     string        // of the server's host, for the bake only, where no name server knows it
	Version     string        // of the server's environment; part of the inputs digest, compared with the catalog's
	VersionURL  string        // where that version can be asked for instead
	Fingerprint string        // ca_fingerprint: SHA-256 of the CA's bundle, hex
	Sign        time.Duration // maxwaitforcert: how long the CA may take, default 5m
	Environment string
	Role        string
	MaxRuns     int           // runs until one changes nothing, default 5
	Deadline    time.Duration // for all runs, default 30m
}

// Release says where the user's code comes from.
type Release struct {
	Box    string // https://…, http://…, s3://…, file:///…, git+https://…
	Follow string // "latest" (default) or an artifact's name
}

// Handoff is the user's own deploy script and what it starts.
type Handoff struct {
	Run      string        // path in the folder, such as deploy/deploy
	Service  string        // command that the agent keeps running; "" when the script started one itself
	User     string        // user of the service, default root
	Ready    string        // http://:PORT/PATH or tcp://:PORT on the instance
	Deadline time.Duration // from boot to ready, default 10m
}

// ParameterNames are the template parameters that Dayfly passes its values in,
// by what they mean; a template that lacks an optional one does not get it.
type ParameterNames struct {
	Image         string // ImageId
	ReleaseURL    string // ReleaseUrl: the box's address
	ReleaseMirror string // ReleaseMirror: s3://bucket/key
	ReleaseDigest string // ReleaseDigest
	Size          string // Size
	MaxSize       string // MaxSize
	Environment   string // Environment
	Generation    string // Generation
	Bucket        string // Bucket: Dayfly's own, for reports
	Operation     string // Operation: id of what the launch is part of, for logs
}

// Environment is a purpose with its size and life.
type Environment struct {
	Name       string
	Size       int
	Zones      int           // default 3
	Survive    int           // zones that may be lost without falling below Size
	Lease      time.Duration // default 24h
	LeaseMax   time.Duration // from its beginning: how far the lease may be extended; default 24h, or the lease where that is longer
	MaxAge     time.Duration // of an instance; 0 = as old as its generation
	Touched    string        // what becomes of instances that somebody changed: replace (default) or report
	Standing   bool          // lease: standing: it is renewed as long as nobody destroys the environment
	Strategy   environment.Strategy
	Image      string             // channel, "" = the image of the blueprint's own inputs
	Follow     environment.Follow // of that channel; After has names of this blueprint
	Parameters map[string]string  // for both templates, where they have them
}

// Instances is how many are launched so that Size are left when Survive zones
// are lost, evenly spread: 69 for 45 in three zones of which one may go.
func (e Environment) Instances() int {
	left := e.Zones - e.Survive
	if e.Survive == 0 || left < 1 {
		return e.Size
	}
	return (e.Size + left - 1) / left * e.Zones
}

// Problem is one thing that is wrong in a blueprint, with its position.
type Problem struct {
	File         string `json:"file"`
	Line, Column int    // from 1; 0 = the whole file
	Message      string `json:"message"`
	Hint         string `json:"hint,omitempty"`
	Warning      bool   `json:"warning,omitempty"`
}

/*
In the files beside this one:

	Load(fsys fs.FS) (*Blueprint, []Problem, error)  // parse and check dayfly.yaml and that every named file is there
	Check(fsys fs.FS) []Problem                      // Load + templates + what a fleet template lacks (hook lines printed)
	Pack(fsys fs.FS, w io.Writer) (digest string, err error)  // deterministic tar of the files that matter, with limits
	Unpack(r io.Reader, dir string) error
	Scaffold(dir, name string) error                 // `dayfly init`
	(*Problem).String: file:line:column: message (hint)
*/
