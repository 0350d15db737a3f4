package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

// keep adds a line to what the agent remembers of its own words.
func (a *Agent) keep(line string) {
	a.said = append(a.said, line...)
	if over := len(a.said) - handoff.LogLimit; over > handoff.LogLimit {
		a.said = append([]byte(nil), a.said[over:]...)
	}
}

// send gives Dayfly the ends of this instance's logs. They are for people:
// whether they arrive decides nothing.
func (a *Agent) send(ctx context.Context, b *boot) {
	if b.Launch.Bucket == "" || b.Launch.Environment == "" || b.Launch.Generation == "" {
		return
	}
	a.logMu.Lock()
	said := string(a.said[max(0, len(a.said)-handoff.LogLimit):])
	a.logMu.Unlock()
	body, err := json.Marshal(handoff.Logs{
		Instance: b.ID.Instance, At: a.Now().UTC(), Agent: said,
		Puppet: a.tailOf(puppetLog, handoff.LogLimit), Deploy: a.tailOf(scriptLog, handoff.LogLimit), Service: a.tailOf(serviceLog, handoff.LogLimit),
	})
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	key := handoff.LogsKey(b.Launch.Environment, b.Launch.Generation, b.ID.Instance)
	if err := a.aws.put(ctx, "s3://"+b.Launch.Bucket+"/"+key, bytes.NewReader(body)); err != nil {
		a.say("its logs could not be sent: %v", err)
	}
}
