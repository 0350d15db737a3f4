// Package seal makes the script that turns a builder into something that may
// be copied: identity, secrets and traces are removed in an order that matters,
// and then looked for. It must not know how scripts reach a builder.
package seal

import (
	_ "embed"
	"strconv"

	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/identity"
	"github.com/dayfly-infra/dayfly/internal/puppet"
	"github.com/dayfly-infra/dayfly/internal/shell"
)

// Version is part of the inputs digest of every image: a change of what sealing
// does makes new images.
const Version = "3"

//go:embed seal.sh
var body string

// Script prints the builder's identity and seals; exit code 1 says what is still
// there.
func Script() string {
	return shell.Render(map[string]string{
		"DIR": puppet.Dir, "STATE": handoff.StateDir, "RUN": handoff.RunDir, "ARMED": handoff.ArmedFile, "AGENT": handoff.AgentPath,
		"FACTS_LIMIT": strconv.Itoa(identity.Limit),
	}, identity.Function+body)
}
