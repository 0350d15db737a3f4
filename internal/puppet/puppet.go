// Package puppet makes the scripts that install Puppet on a builder and run it
// until a run changes nothing, and reads what a failed run said. The runs need
// no server: a catalog source is the blueprint's own code. It must not know how
// scripts reach a builder.
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
}

// Apply runs the code below Dir/inputs/puppet, with the modules of
// Dir/inputs/modules beside the code's own. It ends with exit code 0 only when
// a run changed nothing and the hand-off is armed.
func (r Run) Apply() string {
	return shell.Render(map[string]string{
		"DIR": Dir, "ENVIRONMENT": r.Environment, "ROLE": r.Role, "BLUEPRINT": r.Blueprint,
		"MAX_RUNS": strconv.Itoa(r.MaxRuns), "SECONDS_MAX": strconv.Itoa(int(r.Deadline / time.Second)),
		"SETTINGS": handoff.Settings, "ARMED": handoff.ArmedFile, "AGENT": handoff.AgentPath, "REPORT": r.Report,
	}, apply)
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

// Explain is the line of a failed run that says most: the first failed
// resource, else the catalog's own error, else what the script said last.
func Explain(output string) string {
	last, first := "", ""
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "Error: "); ok {
			// Catalog errors name this very machine, which is gone tomorrow.
			if i := strings.LastIndex(rest, " on node "); i > 0 {
				rest = rest[:i]
			}
			rest = strings.ReplaceAll(rest, Dir+"/environments/", "")
			switch {
			case strings.HasPrefix(rest, "Facter: "):
			case strings.HasPrefix(rest, "/Stage["): // names the resource
				return rest
			case first == "":
				first = rest
			}
		}
		if strings.HasPrefix(line, "puppet: ") {
			last = strings.TrimPrefix(line, "puppet: ")
		}
	}
	if first != "" {
		return first
	}
	return last
}
