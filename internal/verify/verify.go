// Package verify makes the script that checks a fresh instance of an image and
// reads its results and its identity. The blueprint's own checks are scripts; what every image
// must hold is built in. It must not know how scripts reach an instance.
package verify

import (
	_ "embed"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/identity"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/shell"
)

//go:embed verify.sh
var body string

// keep is how much of a check's output is kept, in bytes: Run Command gives
// 24,000 characters for all of them.
const keep = 1200

// maxChecks follows from it, and from what the facts of identity take.
const maxChecks = 12

// Plan says what is checked.
type Plan struct {
	Inputs string        // s3:// address of the bake's inputs, with the checks below verify/
	Checks []string      // paths below verify/
	Nonce  string        // that no check can guess: it marks the results
	Each   time.Duration // for one check
	Probe  string        // s3:// address of dayfly-probe
	Allow  []string      // paths that may hold what looks like a secret
	Store  string        // s3:// prefix for the inventory and its SBOM; "" = they are not kept
	Name   string        // of the image, for the SBOM
}

// Goss tells whether a check is a goss file; others are scripts.
func Goss(check string) bool {
	e := path.Ext(check)
	return e == ".yaml" || e == ".yml"
}

// Inventory and SBOM are the names of what is kept below Plan.Store.
const (
	Inventory = "inventory.json"
	SBOM      = "sbom.cdx.json"
)

// Supported refuses checks that cannot be run.
func Supported(checks []string) error {
	for _, c := range checks {
		if strings.ContainsAny(c, "\n\r") {
			return &fault.Error{Kind: fault.Invalid, Op: "read image.verify", Object: c, Message: "a check's name has one line"}
		}
	}
	if len(checks) > maxChecks {
		return &fault.Error{Kind: fault.Invalid, Op: "read image.verify", Message: fmt.Sprintf("there are %d checks; the limit is %d", len(checks), maxChecks), Hint: "put several into one script"}
	}
	return nil
}

// Script runs the checks. Its exit code says only that they were run.
func (p Plan) Script() string {
	return shell.Render(map[string]string{
		"INPUTS": p.Inputs, "CHECKS": strings.Join(p.Checks, "\n"), "NONCE": p.Nonce, "PROBE": p.Probe, "ALLOW": strings.Join(p.Allow, "\n"), "STORE": p.Store, "NAME": p.Name, "INVENTORY": Inventory, "SBOM": SBOM, "FACTS_LIMIT": strconv.Itoa(identity.Limit),
		"EACH": strconv.Itoa(max(1, int(p.Each/time.Second))), "KEEP": strconv.Itoa(keep),
		"ARMED": handoff.ArmedFile, "STATE": handoff.StateDir, "RUN": handoff.RunDir, "AGENT": handoff.AgentPath,
	}, identity.Function+body)
}

// builtIn are the checks that every image gets.
var builtIn = []string{"agent", "hand-off", "secrets", "inventory"}

// Read takes the results and the instance's identity out of the script's
// output. A result that is missing is a failed one.
func (p Plan) Read(output string) ([]image.Check, map[string]string) {
	mark := "@@" + p.Nonce + " "
	got, facts := map[string]image.Check{}, map[string]string{}
	for _, part := range strings.Split("\n"+output, "\n"+mark)[1:] {
		head, out, _ := strings.Cut(part, "\n")
		code, name, ok := strings.Cut(head, " ")
		switch {
		case head == "facts":
			facts = identity.Read(out)
			continue
		case !ok:
			continue // the end
		}
		n, err := strconv.Atoi(code)
		c := image.Check{Name: name, Passed: err == nil && n == 0, Output: shell.LastLines(out, 20, keep)}
		if !c.Passed && c.Output == "" {
			c.Output = "exit code " + code
			if n == 124 {
				c.Output = "it took longer than " + p.Each.String()
			}
		}
		got[name] = c
	}
	var all []image.Check
	for _, name := range append(append([]string{}, builtIn...), p.Checks...) {
		c, ok := got[name]
		if !ok {
			c = image.Check{Name: name, Output: "it has no result"}
		}
		all = append(all, c)
	}
	return all, facts
}

// Failed describes the checks that failed, "" when none did.
func Failed(checks []image.Check) string {
	var all []string
	for _, c := range checks {
		if !c.Passed {
			where := ""
			if c.On != "" {
				where = " on " + c.On
			}
			all = append(all, c.Name+where+": "+c.Output)
		}
	}
	return strings.Join(all, "\n")
}
