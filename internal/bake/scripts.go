package bake

import (
	_ "embed"

	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/puppet"
	"github.com/dayfly-infra/dayfly/internal/shell"
)

// unit starts the agent where systemd is PID 1, runit where services are
// supervised folders. Both are in every image; an image has one init.
var (
	//go:embed dayfly-agent.service
	unit string
	//go:embed dayfly-agent.run
	runit string
	//go:embed fetch.sh
	fetch string
	//go:embed builder.yaml
	builderTemplate string
)

// fetchScript makes the builder fetch its inputs with its own role.
func fetchScript(bucket, key, region string) string {
	return shell.Render(map[string]string{
		"DIR": puppet.Dir, "BUCKET": bucket, "KEY": key, "REGION": region,
		"AGENT": handoff.AgentPath, "SETTINGS": handoff.Settings, "SCRIPTS": handoff.ScriptDir,
	}, fetch)
}
