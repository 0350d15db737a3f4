// Package puppet makes the scripts that install Puppet on a builder and run it
// until a run changes nothing, and reads what a failed run said. Catalogs come
// from the blueprint's own code, or from the company's Puppet server; then a
// Claim says which certificate a machine may have. It must not know how scripts
// reach a builder.
package puppet

import (
	"embed"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/shell"
)

// Dir is the bake's work folder on a builder; sealing removes it.
const Dir = "/var/lib/dayfly/bake"

var (
	//go:embed bootstrap.sh
	bootstrap string
	//go:embed apply.sh
	apply string
	//go:embed agent.sh
	agent string
	//go:embed runs.sh
	runs string
	//go:embed settled.sh
	settled string
	//go:embed armed.sh
	armed string
	//go:embed module
	module embed.FS
)

// Bootstrap installs the package with Puppet's agent, with its service off.
func Bootstrap() string {
	return shell.Render(map[string]string{"DIR": Dir, "PACKAGE": "puppet-agent"}, bootstrap)
}

// Run says how Puppet is run.
type Run struct {
	Blueprint   string
	Role        string // fact dayfly_role
	Environment string // Puppet's own
	MaxRuns     int
	Deadline    time.Duration // for all runs
	Report      string        // s3:// address for the last report; "" = none
	Server      *Server       // nil = the blueprint's own code
}

// Server is the company's Puppet server, and what a machine shows it.
type Server struct {
	Host, Port  string
	Address     string        // of Host, for the bake only; "" = the name is known
	Fingerprint string        // SHA-256 of the CA's bundle as it is served, hex without colons: Puppet's ca_fingerprint; "" = the first one seen is believed
	Version     string        // that the server's environment must have; "" = any
	Sign        time.Duration // how long the CA may take

	Certname string
	Image    string // image record, pp_image_name
	Bucket   string // where the one-time token lies
	Key      string
	Region   string
}

// Script runs Puppet on a builder until a run changes nothing and the hand-off
// is armed; only then it ends with exit code 0.
func (r Run) Script() string {
	if r.Server == nil {
		return r.Apply()
	}
	return r.Agent()
}

// Limits of what a builder waits for.
const (
	patience = 20 * time.Second // for an answer of the server
	maxSkew  = 5 * time.Minute  // between the clocks of builder and server
)

// Agent runs Puppet's agent against the server, with a certificate that the
// server's CA grants for a one-time token.
func (r Run) Agent() string {
	s := r.Server
	return shell.Render(map[string]string{
		"DIR": Dir, "ENVIRONMENT": r.Environment, "ROLE": r.Role,
		"MAX_RUNS": strconv.Itoa(r.MaxRuns), "SECONDS_MAX": strconv.Itoa(int(r.Deadline / time.Second)),
		"SETTINGS": handoff.Settings, "ARMED": handoff.ArmedFile, "AGENT": handoff.AgentPath, "REPORT": r.Report,
		"SERVER": s.Host, "PORT": s.Port, "ADDRESS": s.Address, "FINGERPRINT": s.Fingerprint, "VERSION": s.Version,
		"SIGN": strconv.Itoa(int(s.Sign / time.Second)), "PATIENCE": strconv.Itoa(int(patience / time.Second)), "SKEW": strconv.Itoa(int(maxSkew / time.Second)),
		"CERTNAME": s.Certname, "IMAGE": s.Image, "BUCKET": s.Bucket, "KEY": s.Key, "REGION": s.Region,
	}, agent+runs+settled+armed)
}

// CatalogVersion is what the server made the last catalog from, as a run's
// output says it.
func CatalogVersion(output string) string {
	for line := range strings.Lines(output) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "catalog-version "); ok {
			return v
		}
	}
	return ""
}

// Apply runs the code below Dir/inputs/puppet, with the modules of
// Dir/inputs/modules beside the code's own. It ends with exit code 0 only when
// a run changed nothing and the hand-off is armed.
func (r Run) Apply() string {
	return shell.Render(map[string]string{
		"DIR": Dir, "ENVIRONMENT": r.Environment, "ROLE": r.Role, "BLUEPRINT": r.Blueprint,
		"MAX_RUNS": strconv.Itoa(r.MaxRuns), "SECONDS_MAX": strconv.Itoa(int(r.Deadline / time.Second)),
		"SETTINGS": handoff.Settings, "ARMED": handoff.ArmedFile, "AGENT": handoff.AgentPath, "REPORT": r.Report,
	}, apply+runs+armed)
}

// Module gives the files of the built-in module dayfly, by their path below a
// folder of modules.
func Module() map[string][]byte {
	out := map[string][]byte{}
	err := fs.WalkDir(module, "module", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out[path.Join("dayfly", strings.TrimPrefix(p, "module/"))], err = module.ReadFile(p)
		return err
	})
	if err != nil {
		panic("puppet: embedded module: " + err.Error())
	}
	return out
}
