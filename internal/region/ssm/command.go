package ssm

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/ssmapi"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const (
	document         = "AWS-RunShellScript"
	plugin           = "aws:runShellScript"
	mostScript       = 256 << 10
	mostInstances    = 50
	defaultDelivery  = 3600
	defaultExecution = 3600
	mostExecution    = 172800
	mostStdout       = 24000 // characters that GetCommandInvocation returns
	mostStderr       = 8000
	mostPlugin       = 2500 // and ListCommandInvocations
	keepCommands     = 30 * 24 * time.Hour
	mostCommands     = 5000
)

// Statuses in AWS's words.
const (
	pending    = "Pending"
	inProgress = "InProgress"
	success    = "Success"
	failed     = "Failed"
	timedOut   = "TimedOut"
	cancelled  = "Cancelled"
	cancelling = "Cancelling"
)

// command is the record of a SendCommand.
type command struct {
	ID, Comment, Version     string
	Parameters               map[string][]string
	Instances                []string
	Targets                  []*api.Target
	Requested, Expires       time.Time
	Delivery                 int64
	Concurrency, Errors      string
	Script, Dir, ServiceRole string
	Timeout                  time.Duration
	Finished                 bool
}

// invocation is a command on one instance, under "<command>/<instance>".
type invocation struct {
	Command, Instance, Name string
	Status, Details         string
	Code                    int64
	Stdout, Stderr          string
	Started, Ended          *time.Time
	Requested               time.Time
}

func (i *invocation) key() string { return i.Command + "/" + i.Instance }

func over(status string) bool {
	return status != pending && status != inProgress && status != cancelling
}

// SendCommand stores a command for instances; the loop hands it out.
func (s *Service) SendCommand(ctx context.Context, in *api.SendCommandRequest) (*api.SendCommandResult, error) {
	for what, set := range map[string]bool{
		"output of commands to S3":         in.OutputS3BucketName != "",
		"output of commands to CloudWatch": in.CloudWatchOutputConfig != nil && in.CloudWatchOutputConfig.CloudWatchOutputEnabled != nil && *in.CloudWatchOutputConfig.CloudWatchOutputEnabled,
		"notifications of commands":        in.NotificationConfig != nil && in.NotificationConfig.NotificationArn != "",
		"alarms of commands":               in.AlarmConfiguration != nil,
		"document hashes":                  in.DocumentHash != "",
	} {
		if set {
			return nil, wire.Unrealised(what)
		}
	}
	name := in.DocumentName[strings.LastIndexByte(in.DocumentName, '/')+1:]
	if name != document {
		return nil, wire.Errorf("InvalidDocument", "Document with name %s does not exist: the local region has %s alone.", in.DocumentName, document)
	}
	switch in.DocumentVersion {
	case "", "1", "$DEFAULT", "$LATEST":
	default:
		return nil, wire.Errorf("InvalidDocumentVersion", "The document version %s is not valid or does not exist.", in.DocumentVersion)
	}
	c := command{Comment: in.Comment, Version: in.DocumentVersion, Parameters: in.Parameters, Targets: in.Targets, Requested: s.now(),
		Delivery: defaultDelivery, Timeout: defaultExecution * time.Second, Concurrency: in.MaxConcurrency, Errors: in.MaxErrors, ServiceRole: in.ServiceRoleArn}
	if len(in.Comment) > 100 {
		return nil, invalid("Comment must have at most 100 characters")
	}
	if in.TimeoutSeconds != nil {
		if c.Delivery = *in.TimeoutSeconds; c.Delivery < 30 || c.Delivery > 2592000 {
			return nil, invalid("TimeoutSeconds must be between 30 and 2592000")
		}
	}
	if c.Concurrency == "" {
		c.Concurrency = "50"
	}
	if c.Errors == "" {
		c.Errors = "0"
	}
	for what, v := range map[string]string{"MaxConcurrency": c.Concurrency, "MaxErrors": c.Errors} {
		if n, err := share(v, 100); err != nil || n < 0 || what == "MaxConcurrency" && v == "0" {
			return nil, invalid("%s '%s' must be a number or a percentage", what, v)
		}
	}
	if err := c.take(in.Parameters); err != nil {
		return nil, err
	}
	names, err := s.targets(s.internal(ctx), in)
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		c.Instances = append(c.Instances, n.id)
	}
	c.ID = s.ids.UUID()
	c.Expires = c.Requested.Add(time.Duration(c.Delivery)*time.Second + c.Timeout)
	c.Finished = len(names) == 0
	err = s.c.DB.Update(func(tx *state.Tx) error {
		s.trim(tx, c.Requested)
		s.commands.Put(tx, c.ID, c)
		for _, n := range names {
			i := invocation{Command: c.ID, Instance: n.id, Name: n.name, Status: pending, Details: pending, Requested: c.Requested, Code: -1}
			s.invocations.Put(tx, i.key(), i)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.wake()
	return &api.SendCommandResult{Command: s.commandOut(c, s.invocationsOf(c))}, nil
}

// take checks the document's parameters.
func (c *command) take(p map[string][]string) error {
	one := func(k string) (string, error) {
		v, ok := p[k]
		if !ok || len(v) == 0 {
			return "", nil
		}
		if len(v) != 1 {
			return "", wire.Errorf("InvalidParameters", "Parameter \"%s\" takes one value.", k)
		}
		return v[0], nil
	}
	for k := range p {
		if !slices.Contains([]string{"commands", "workingDirectory", "executionTimeout"}, k) {
			return wire.Errorf("InvalidParameters", "Parameter \"%s\" is not defined in document %s.", k, document)
		}
	}
	if len(p["commands"]) == 0 {
		return wire.Errorf("InvalidParameters", "Document %s requires the parameter \"commands\".", document)
	}
	c.Script = strings.Join(p["commands"], "\n") + "\n"
	if len(c.Script) > mostScript {
		return wire.Errorf("MaxDocumentSizeExceeded", "The commands have %d bytes; at most %d are possible.", len(c.Script), mostScript)
	}
	var err error
	if c.Dir, err = one("workingDirectory"); err != nil {
		return err
	}
	if len(c.Dir) > 4096 {
		return wire.Errorf("InvalidParameters", "Parameter \"workingDirectory\" is too long.")
	}
	v, err := one("executionTimeout")
	if err != nil || v == "" {
		return err
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 1 || n > mostExecution {
		return wire.Errorf("InvalidParameters", "Parameter \"executionTimeout\" must be between 1 and %d.", mostExecution)
	}
	c.Timeout = time.Duration(n) * time.Second
	return nil
}

// share reads "10" or "10%" of n; a percentage is at least one.
func share(v string, n int) (int, error) {
	if p, ok := strings.CutSuffix(v, "%"); ok {
		x, err := strconv.Atoi(p)
		if err != nil || x < 0 || x > 100 {
			return 0, fmt.Errorf("percentage %q", v)
		}
		if x == 0 {
			return 0, nil
		}
		return max(1, x*n/100), nil
	}
	return strconv.Atoi(v)
}

// trim forgets commands that ended long ago, or are too many.
func (s *Service) trim(tx *state.Tx, now time.Time) {
	if s.commands.Len(tx) < mostCommands/2 {
		return
	}
	var old []command
	for _, c := range s.commands.All(tx) {
		if c.Finished {
			old = append(old, c)
		}
	}
	slices.SortFunc(old, func(a, b command) int { return a.Requested.Compare(b.Requested) })
	for i, c := range old {
		if now.Sub(c.Requested) < keepCommands && s.commands.Len(tx) < mostCommands || i == len(old) {
			return
		}
		s.commands.Delete(tx, c.ID)
		for _, id := range c.Instances {
			s.invocations.Delete(tx, c.ID+"/"+id)
		}
	}
}

func (s *Service) invocationsOf(c command) []invocation {
	var out []invocation
	s.c.DB.View(func(tx *state.Tx) {
		for _, id := range c.Instances {
			if i, ok := s.invocations.Get(tx, c.ID+"/"+id); ok {
				out = append(out, i)
			}
		}
	})
	return out
}

// summary is a command's status from those of its invocations.
func summary(list []invocation) (status, details string, done, bad, undelivered int64) {
	n := map[string]int{}
	for _, i := range list {
		n[i.Status]++
		if over(i.Status) {
			done++
		}
		switch {
		case i.Details == "DeliveryTimedOut":
			undelivered++
		case i.Status == failed || i.Status == timedOut:
			bad++
		}
	}
	switch {
	case len(list) == 0:
		return success, "NoInstancesInTag", 0, 0, 0
	case n[cancelling] > 0:
		return cancelling, cancelling, done, bad, undelivered
	case done < int64(len(list)):
		if n[inProgress] == 0 && done == 0 {
			return pending, pending, done, bad, undelivered
		}
		return inProgress, inProgress, done, bad, undelivered
	case undelivered > 0:
		return timedOut, "DeliveryTimedOut", done, bad, undelivered
	case n[timedOut] > 0:
		return timedOut, "ExecutionTimedOut", done, bad, undelivered
	case n[failed] > 0:
		return failed, failed, done, bad, undelivered
	case n[cancelled] > 0:
		return cancelled, cancelled, done, bad, undelivered
	}
	return success, success, done, bad, undelivered
}

func (s *Service) commandOut(c command, list []invocation) *api.Command {
	status, details, done, bad, undelivered := summary(list)
	return &api.Command{
		CommandId: c.ID, DocumentName: document, DocumentVersion: c.Version, Comment: c.Comment, Parameters: c.Parameters,
		InstanceIds: c.Instances, Targets: c.Targets, RequestedDateTime: new(c.Requested), ExpiresAfter: new(c.Expires),
		Status: status, StatusDetails: details, TargetCount: new(int64(len(c.Instances))), CompletedCount: new(done), ErrorCount: new(bad),
		DeliveryTimedOutCount: new(undelivered), MaxConcurrency: c.Concurrency, MaxErrors: c.Errors, TimeoutSeconds: new(c.Delivery), ServiceRole: c.ServiceRole,
	}
}

// cut keeps the first n characters, and says so.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	r := []rune(text)
	if len(r) <= n {
		return text
	}
	const mark = "\n---Output truncated---"
	return string(r[:n-len(mark)]) + mark
}

// GetCommandInvocation tells the outcome of a command on one instance.
func (s *Service) GetCommandInvocation(_ context.Context, in *api.GetCommandInvocationRequest) (*api.GetCommandInvocationResult, error) {
	if in.PluginName != "" && in.PluginName != plugin {
		return nil, wire.Errorf("InvalidPluginName", "The plugin name isn't valid.")
	}
	var c command
	var i invocation
	var ok bool
	s.c.DB.View(func(tx *state.Tx) {
		c, _ = s.commands.Get(tx, in.CommandId)
		i, ok = s.invocations.Get(tx, in.CommandId+"/"+in.InstanceId)
	})
	if !ok {
		return nil, wire.Errorf("InvocationDoesNotExist", "The command ID and managed node ID you specified did not match any invocations.")
	}
	out := &api.GetCommandInvocationResult{
		CommandId: c.ID, InstanceId: i.Instance, Comment: c.Comment, DocumentName: document, DocumentVersion: c.Version, PluginName: plugin,
		Status: i.Status, StatusDetails: i.Details, ResponseCode: new(i.Code),
		StandardOutputContent: cut(i.Stdout, mostStdout), StandardErrorContent: cut(i.Stderr, mostStderr),
	}
	const form = "2006-01-02T15:04:05.000Z"
	if i.Started != nil {
		out.ExecutionStartDateTime = i.Started.Format(form)
		if i.Ended != nil {
			out.ExecutionEndDateTime = i.Ended.Format(form)
			out.ExecutionElapsedTime = "PT" + strconv.FormatFloat(i.Ended.Sub(*i.Started).Seconds(), 'f', 3, 64) + "S"
		}
	}
	return out, nil
}

// fits says whether filters of ListCommands and ListCommandInvocations let a record through.
func fits(filters []*api.CommandFilter, status string, requested time.Time) (bool, error) {
	for _, f := range filters {
		switch f.Key {
		case "Status":
			if f.Value != status {
				return false, nil
			}
		case "DocumentName":
			if f.Value != document {
				return false, nil
			}
		case "ExecutionStage":
			if (f.Value == "Executing") == over(status) {
				return false, nil
			}
		case "InvokedAfter", "InvokedBefore":
			t, err := time.Parse(time.RFC3339, f.Value)
			if err != nil {
				return false, wire.Errorf("InvalidFilterKey", "The time '%s' is not valid.", f.Value)
			}
			if requested.After(t) != (f.Key == "InvokedAfter") {
				return false, nil
			}
		default:
			return false, wire.Errorf("InvalidFilterKey", "The specified key isn't valid: %s", f.Key)
		}
	}
	return true, nil
}

// ListCommands lists commands, the newest first.
func (s *Service) ListCommands(_ context.Context, in *api.ListCommandsRequest) (*api.ListCommandsResult, error) {
	var list []command
	s.c.DB.View(func(tx *state.Tx) {
		for _, c := range s.commands.All(tx) {
			if (in.CommandId == "" || in.CommandId == c.ID) && (in.InstanceId == "" || slices.Contains(c.Instances, in.InstanceId)) {
				list = append(list, c)
			}
		}
	})
	slices.SortFunc(list, func(a, b command) int {
		return cmp.Or(b.Requested.Compare(a.Requested), strings.Compare(a.ID, b.ID))
	})
	var all []*api.Command
	for _, c := range list {
		o := s.commandOut(c, s.invocationsOf(c))
		ok, err := fits(in.Filters, o.Status, c.Requested)
		if err != nil {
			return nil, err
		}
		if ok {
			all = append(all, o)
		}
	}
	from, to, next, err := page(len(all), in.NextToken, in.MaxResults, 50, 50)
	if err != nil {
		return nil, err
	}
	return &api.ListCommandsResult{Commands: append([]*api.Command{}, all[from:to]...), NextToken: next}, nil
}

// ListCommandInvocations lists what became of commands on each instance.
func (s *Service) ListCommandInvocations(_ context.Context, in *api.ListCommandInvocationsRequest) (*api.ListCommandInvocationsResult, error) {
	var list []invocation
	comments := map[string]string{}
	s.c.DB.View(func(tx *state.Tx) {
		for _, i := range s.invocations.All(tx) {
			if (in.CommandId == "" || in.CommandId == i.Command) && (in.InstanceId == "" || in.InstanceId == i.Instance) {
				list = append(list, i)
				c, _ := s.commands.Get(tx, i.Command)
				comments[i.Command] = c.Comment
			}
		}
	})
	slices.SortFunc(list, func(a, b invocation) int {
		return cmp.Or(b.Requested.Compare(a.Requested), strings.Compare(a.key(), b.key()))
	})
	var all []*api.CommandInvocation
	for _, i := range list {
		ok, err := fits(in.Filters, i.Status, i.Requested)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		o := &api.CommandInvocation{CommandId: i.Command, InstanceId: i.Instance, InstanceName: i.Name, DocumentName: document, Comment: comments[i.Command],
			RequestedDateTime: new(i.Requested), Status: i.Status, StatusDetails: i.Details}
		if in.Details != nil && *in.Details {
			text := i.Stdout
			if i.Stderr != "" {
				text += "\n----------ERROR-------\n" + i.Stderr
			}
			o.CommandPlugins = []*api.CommandPlugin{{Name: plugin, Status: i.Status, StatusDetails: i.Details, ResponseCode: new(i.Code),
				ResponseStartDateTime: i.Started, ResponseFinishDateTime: i.Ended, Output: cut(text, mostPlugin)}}
		}
		all = append(all, o)
	}
	from, to, next, err := page(len(all), in.NextToken, in.MaxResults, 50, 50)
	if err != nil {
		return nil, err
	}
	return &api.ListCommandInvocationsResult{CommandInvocations: append([]*api.CommandInvocation{}, all[from:to]...), NextToken: next}, nil
}

// CancelCommand stops a command where it has not ended. What runs already is
// cancelled as on AWS: without a guarantee that the script stops.
func (s *Service) CancelCommand(_ context.Context, in *api.CancelCommandRequest) (*api.CancelCommandResult, error) {
	now := s.now()
	var stop []string
	err := s.c.DB.Update(func(tx *state.Tx) error {
		c, ok := s.commands.Get(tx, in.CommandId)
		if !ok {
			return wire.Errorf("InvalidCommandId", "The specified command ID isn't valid. Verify the ID and try again.")
		}
		for _, id := range in.InstanceIds {
			if !slices.Contains(c.Instances, id) {
				return wire.Errorf("InvalidInstanceId", "Instance %s is not a target of the command", id)
			}
		}
		for _, id := range c.Instances {
			if len(in.InstanceIds) > 0 && !slices.Contains(in.InstanceIds, id) {
				continue
			}
			i, ok := s.invocations.Get(tx, c.ID+"/"+id)
			if !ok || over(i.Status) {
				continue
			}
			i.Status, i.Details, i.Ended = cancelled, cancelled, &now
			s.invocations.Put(tx, i.key(), i)
			stop = append(stop, i.key())
		}
		s.finish(tx, c)
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.runMu.Lock()
	for _, k := range stop {
		if cancel := s.runs[k]; cancel != nil {
			cancel(errCancelled)
		}
	}
	s.runMu.Unlock()
	return &api.CancelCommandResult{}, nil
}

// finish marks a command whose invocations have all ended.
func (s *Service) finish(tx *state.Tx, c command) {
	for _, id := range c.Instances {
		if i, ok := s.invocations.Get(tx, c.ID+"/"+id); ok && !over(i.Status) {
			return
		}
	}
	if !c.Finished {
		c.Finished = true
		s.commands.Put(tx, c.ID, c)
	}
}
