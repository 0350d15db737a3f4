package control

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// maxLogs is the largest object that an instance's logs are read from.
const maxLogs = 1 << 20

// InstanceLogs implements server.Instances. What an instance sent lies in
// Dayfly's bucket as long as its generation; its console is asked of the cloud.
func (c *Control) InstanceLogs(ctx context.Context, id string) (server.InstanceLogs, error) {
	i, err := c.byID(ctx, id)
	if err != nil {
		return server.InstanceLogs{}, err
	}
	out := server.InstanceLogs{Instance: i.Name(), State: string(i.State), Why: i.Why, Logs: []server.InstanceLog{}}
	var r handoff.Report
	if there, err := c.sent(ctx, handoff.ReportKey(i.Environment, strconv.Itoa(i.Generation), i.ID), &r); err != nil {
		return out, err
	} else if there {
		h := &server.HandOffSaid{OK: r.OK, Reason: r.Reason, ExitCode: r.ExitCode, Source: r.Source, Phases: []server.HandOffPhase{}}
		for _, p := range r.Phases {
			h.Phases = append(h.Phases, server.HandOffPhase{Name: p.Name, Seconds: p.Seconds})
		}
		out.HandOff = h
	}
	var l handoff.Logs
	sent, err := c.sent(ctx, handoff.LogsKey(i.Environment, strconv.Itoa(i.Generation), i.ID), &l)
	if err != nil {
		return out, err
	}
	none := ""
	switch {
	case sent:
	case i.State == instance.Gone:
		none = "its logs went with its generation"
	case i.State == instance.Launching:
		none = "it sends its logs once its hand-off is over"
	default:
		none = "it sends its logs some seconds after it came into service"
	}
	add := func(name, text, empty string, at time.Time) {
		v := server.InstanceLog{Name: name, Text: text}
		switch {
		case text != "":
			v.At = at
		case none != "":
			v.Note = none
		default:
			v.Note = empty
		}
		out.Logs = append(out.Logs, v)
	}
	add("boot", l.Agent, "the agent said nothing", l.At)
	out.Logs = append(out.Logs, c.consoleOf(ctx, i))
	add("puppet", l.Puppet, "Puppet did not run at this boot: it ran when "+i.Image+" was baked, whose report the image has", l.At)
	switch { // what is left where the log is not there, or not yet
	case l.Deploy != "":
		add("deploy", l.Deploy, "", l.At)
	case r.Output != "":
		add("deploy", r.Output, "", r.Ended)
	default:
		add("deploy", i.Said, "the deploy script printed nothing", i.Ended)
	}
	add("service", l.Service, "the service printed nothing", l.At)
	return out, nil
}

// sent reads what an instance wrote to the bucket.
func (c *Control) sent(ctx context.Context, key string, v any) (bool, error) {
	raw, err := c.cloud.Object(ctx, key, maxLogs)
	if fault.KindOf(err) == fault.NotFound {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return false, fmt.Errorf("what the instance wrote to %s cannot be read: %w", key, err)
	}
	return true, nil
}

// consoleOf is the end of what the machine printed.
func (c *Control) consoleOf(ctx context.Context, i instance.Instance) server.InstanceLog {
	v := server.InstanceLog{Name: "console"}
	if i.State == instance.Gone {
		v.Note = "the machine is gone, and its console with it"
		return v
	}
	text, err := c.cloud.Console(ctx, i.ID)
	switch {
	case err != nil: // the rest is worth reading all the same
		v.Note = "the cloud does not give it: " + err.Error()
	case text == "":
		v.Note = "the machine printed nothing, or the cloud has not written it down yet"
	default:
		v.Text, v.At = text, c.clock.Now()
	}
	return v
}

// byID is the record of the instance of an id, or of a whole name.
func (c *Control) byID(ctx context.Context, id string) (instance.Instance, error) {
	all, err := store.List[instance.Instance](ctx, c.store, instance.Kind, "")
	if err != nil {
		return instance.Instance{}, err
	}
	for _, i := range all {
		if i.ID == id || (strings.Contains(id, "/") && i.Name() == id) {
			return i, nil
		}
	}
	return instance.Instance{}, &fault.Error{Kind: fault.NotFound, Object: "instance " + id, Message: "there is no such instance", Hint: "dayfly instance list ENVIRONMENT --all lists those of the last day"}
}
