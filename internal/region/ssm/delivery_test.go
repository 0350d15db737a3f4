package ssm

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/ssmapi"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// fickle is a guest whose answers a test sets.
type fickle struct {
	*ground
	mu         sync.Mutex
	ready, run error
}

func (f *fickle) set(ready, run error) { f.mu.Lock(); defer f.mu.Unlock(); f.ready, f.run = ready, run }

func (f *fickle) Ready(ctx context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ready != nil {
		return f.ready
	}
	return f.ground.Ready(ctx, id)
}

func (f *fickle) Run(ctx context.Context, id string, c hypervisor.Command) (hypervisor.Result, error) {
	f.mu.Lock()
	err := f.run
	f.mu.Unlock()
	if err != nil {
		return hypervisor.Result{}, err
	}
	return f.ground.Run(ctx, id, c)
}

// ran counts how often commands were run on instances.
func (g *ground) ran() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for _, k := range g.runs {
		n += k
	}
	return n
}

// bubble is a world in virtual time with a fickle guest.
func bubble(t *testing.T, f func(t *testing.T, w *world, g *fickle)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		g := &fickle{ground: w.g}
		w.s.c.Guest = g // before the first command
		f(t, w, g)
		w.stop()
		w.stop = func() {}
	})
}

// details waits without the limit that real time has.
func (w *world) details(id, instance string, after time.Duration) *api.GetCommandInvocationResult {
	w.t.Helper()
	time.Sleep(after)
	out, err := w.s.GetCommandInvocation(w.t.Context(), &api.GetCommandInvocationRequest{CommandId: id, InstanceId: instance})
	if err != nil {
		w.t.Fatal(err)
	}
	return out
}

func TestDelivery(t *testing.T) {
	for _, c := range []struct {
		name       string
		ready, run error
		before     string        // after 59 s
		at         time.Duration // of the end
		want       string
		stderr     string
	}{
		{"the guest goes away", hypervisor.ErrNotReady, nil, "Pending", 61 * time.Second, "DeliveryTimedOut", "did not answer in time"},
		{"the instance goes away", hypervisor.ErrNoInstance, nil, "Undeliverable", time.Second, "Undeliverable", "not there"},
		{"the guest never tells the result", nil, hypervisor.ErrNotReady, "InProgress", 92 * time.Second, "ExecutionTimedOut", "did not answer in time"},
		{"the instance ends while it runs", nil, hypervisor.ErrNoInstance, "Failed", time.Second, "Failed", "ended while the command ran"},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world, g *fickle) {
				if _, err := w.s.DescribeInstanceInformation(t.Context(), &api.DescribeInstanceInformationRequest{}); err != nil {
					t.Fatal(err) // they answered a moment ago
				}
				g.set(c.ready, c.run)
				id := w.send(func(in *api.SendCommandRequest) {
					in.TimeoutSeconds = new(int64(60))
					in.Parameters["executionTimeout"] = []string{"30"}
				})
				if got := w.details(id, "i-1", 59*time.Second).StatusDetails; got != c.before {
					t.Errorf("%s after 59 s", got)
				}
				if out := w.details(id, "i-1", max(0, c.at-59*time.Second)); out.StatusDetails != c.want || !strings.Contains(out.StandardErrorContent, c.stderr) {
					t.Errorf("%s: %s", out.StatusDetails, out.StandardErrorContent)
				}
				g.set(nil, nil) // what ended does not begin again
				time.Sleep(time.Minute)
				if n := g.ran(); n != 0 {
					t.Errorf("ran %d times", n)
				}
			})
		})
	}
}

func TestDeliveredLate(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, g *fickle) {
		if _, err := w.s.DescribeInstanceInformation(t.Context(), &api.DescribeInstanceInformationRequest{}); err != nil {
			t.Fatal(err)
		}
		g.set(hypervisor.ErrNotReady, nil)
		id := w.send(nil)
		if got := w.details(id, "i-1", time.Minute).Status; got != pending {
			t.Fatal(got)
		}
		g.set(nil, nil)
		if got := w.details(id, "i-1", time.Second).Status; got != success || g.ran() != 1 {
			t.Errorf("%s, ran %d times", got, g.ran())
		}
	})
}

func TestCancelBeforeDelivery(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, g *fickle) {
		if _, err := w.s.DescribeInstanceInformation(t.Context(), &api.DescribeInstanceInformationRequest{}); err != nil {
			t.Fatal(err)
		}
		g.set(hypervisor.ErrNotReady, nil)
		id := w.send(func(in *api.SendCommandRequest) { in.InstanceIds = []string{"i-1", "i-2"} })
		time.Sleep(time.Second)
		if _, err := w.s.CancelCommand(t.Context(), &api.CancelCommandRequest{CommandId: id, InstanceIds: []string{"i-2"}}); err != nil {
			t.Fatal(err)
		}
		g.set(nil, nil)
		if a, b := w.details(id, "i-1", time.Second).Status, w.details(id, "i-2", 0).Status; a != success || b != cancelled || g.ran() != 1 {
			t.Errorf("%s and %s, ran %d times", a, b, g.ran())
		}
		for _, c := range []struct{ id, instance, code string }{{"x", "", "InvalidCommandId"}, {id, "i-3", "InvalidInstanceId"}} {
			in := &api.CancelCommandRequest{CommandId: c.id}
			if c.instance != "" {
				in.InstanceIds = []string{c.instance}
			}
			if _, err := w.s.CancelCommand(t.Context(), in); wire.CodeOf(err) != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
		}
	})
}

// One at a time, and none after the first failure.
func TestMaxErrors(t *testing.T) {
	bubble(t, func(t *testing.T, w *world, g *fickle) {
		g.play = func(hypervisor.Command) hypervisor.Result { return hypervisor.Result{ExitCode: 2} }
		id := w.send(func(in *api.SendCommandRequest) {
			in.InstanceIds, in.MaxConcurrency, in.MaxErrors = []string{"i-1", "i-2"}, "1", "0"
		})
		if a, b := w.details(id, "i-1", 5*time.Second), w.details(id, "i-2", 0); a.Status != failed || b.StatusDetails != "Terminated" || g.ran() != 1 {
			t.Errorf("%s and %s, ran %d times", a.StatusDetails, b.StatusDetails, g.ran())
		}
	})
}

// What ended before a restart is not handed out again.
func TestEndedSurvivesRestart(t *testing.T) {
	w := newWorld(t)
	id := w.send(nil)
	w.until(id, "i-1", "Success")
	w.stop()
	w.start()
	time.Sleep(50 * time.Millisecond)
	w.until(id, "i-1", "Success")
	if n := w.g.ran(); n != 1 {
		t.Errorf("ran %d times", n)
	}
}

func TestPages(t *testing.T) {
	w := newWorld(t)
	var want, got []string
	for range 5 {
		want = append(want, w.send(nil))
	}
	in := &api.ListCommandsRequest{MaxResults: new(int64(2))}
	for pages := 0; ; pages++ {
		out, err := w.s.ListCommands(t.Context(), in)
		if err != nil || pages > 3 {
			t.Fatal(pages, err)
		}
		for _, c := range out.Commands {
			got = append(got, c.CommandId)
		}
		if in.NextToken = out.NextToken; in.NextToken == "" {
			break
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, c := range []struct {
		in   api.ListCommandsRequest
		code string
	}{
		{api.ListCommandsRequest{MaxResults: new(int64(0))}, "ValidationException"},
		{api.ListCommandsRequest{MaxResults: new(int64(51))}, "ValidationException"},
		{api.ListCommandsRequest{NextToken: "nonsense"}, "InvalidNextToken"},
		{api.ListCommandsRequest{NextToken: "p-1"}, "InvalidNextToken"},
		{api.ListCommandsRequest{NextToken: "p1 or so"}, "InvalidNextToken"},
		{api.ListCommandsRequest{Filters: []*api.CommandFilter{{Key: "Color", Value: "x"}}}, "InvalidFilterKey"},
	} {
		if _, err := w.s.ListCommands(t.Context(), &c.in); wire.CodeOf(err) != c.code {
			t.Errorf("%+v: %v, want %s", c.in, err, c.code)
		}
	}
	for i := range 12 {
		if _, err := w.s.PutParameter(t.Context(), &api.PutParameterRequest{Name: fmt.Sprintf("/p/%02d", i), Type: "String", Value: "v"}); err != nil {
			t.Fatal(err)
		}
	}
	first, err := w.s.GetParametersByPath(t.Context(), &api.GetParametersByPathRequest{Path: "/p"})
	if err != nil || len(first.Parameters) != 10 || first.NextToken == "" {
		t.Fatalf("%v %v", first, err)
	}
	rest, err := w.s.GetParametersByPath(t.Context(), &api.GetParametersByPathRequest{Path: "/p", NextToken: first.NextToken})
	if err != nil || len(rest.Parameters) != 2 || rest.NextToken != "" || rest.Parameters[0].Name == first.Parameters[0].Name {
		t.Errorf("%v %v", rest, err)
	}
}

func TestSendCommandRefuses(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		code string
		f    func(*api.SendCommandRequest)
	}{
		{"InvalidDocument", func(in *api.SendCommandRequest) { in.DocumentName = "AWS-Other" }},
		{"InvalidDocumentVersion", func(in *api.SendCommandRequest) { in.DocumentVersion = "7" }},
		{"InvalidParameters", func(in *api.SendCommandRequest) { in.Parameters = nil }},
		{"InvalidParameters", func(in *api.SendCommandRequest) { in.Parameters["color"] = []string{"x"} }},
		{"InvalidParameters", func(in *api.SendCommandRequest) { in.Parameters["executionTimeout"] = []string{"0"} }},
		{"InvalidParameters", func(in *api.SendCommandRequest) { in.Parameters["executionTimeout"] = []string{"1", "2"} }},
		{"MaxDocumentSizeExceeded", func(in *api.SendCommandRequest) {
			in.Parameters["commands"] = []string{strings.Repeat("x", mostScript)}
		}},
		{"ValidationException", func(in *api.SendCommandRequest) { in.TimeoutSeconds = new(int64(29)) }},
		{"ValidationException", func(in *api.SendCommandRequest) { in.Comment = strings.Repeat("x", 101) }},
		{"ValidationException", func(in *api.SendCommandRequest) { in.InstanceIds = nil }},
		{"ValidationException", func(in *api.SendCommandRequest) { in.MaxConcurrency = "0" }},
		{"ValidationException", func(in *api.SendCommandRequest) { in.MaxErrors = "many" }},
		{"NotImplemented", func(in *api.SendCommandRequest) { in.OutputS3BucketName = "b" }},
	} {
		in := &api.SendCommandRequest{DocumentName: document, InstanceIds: []string{"i-1"}, Parameters: map[string][]string{"commands": {"a"}}}
		c.f(in)
		if _, err := w.s.SendCommand(t.Context(), in); wire.CodeOf(err) != c.code {
			t.Errorf("%v, want %s", err, c.code)
		}
	}
	if n := w.g.ran(); n != 0 {
		t.Errorf("ran %d times", n)
	}
}

func TestParameterRefusals(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct{ name, kind, value, code string }{
		{"/aws/x", "String", "v", "AccessDeniedException"},
		{"AWSome", "String", "v", "AccessDeniedException"},
		{"/Ssm/x", "String", "v", "ValidationException"},
		{"a/b", "String", "v", "ValidationException"},
		{"/a/", "String", "v", "ValidationException"},
		{"/a b", "String", "v", "ValidationException"},
		{"", "String", "v", "ValidationException"},
		{strings.Repeat("/a", 16), "String", "v", "HierarchyLevelLimitExceededException"},
		{"/a", "", "v", "ValidationException"},
		{"/a", "Number", "v", "UnsupportedParameterType"},
		{"/a", "String", "", "ValidationException"},
		{"/a", "String", strings.Repeat("x", mostStandard+1), "ValidationException"},
	} {
		if _, err := w.s.PutParameter(t.Context(), &api.PutParameterRequest{Name: c.name, Type: c.kind, Value: c.value}); wire.CodeOf(err) != c.code {
			t.Errorf("%q %s: %v, want %s", c.name, c.kind, err, c.code)
		}
	}
	out, err := w.s.GetParameters(t.Context(), &api.GetParametersRequest{Names: []string{"/a", "/b"}})
	if err != nil || len(out.Parameters) != 0 || len(out.InvalidParameters) != 2 {
		t.Errorf("%v %v", out, err)
	}
	if _, err := w.s.GetParameter(t.Context(), &api.GetParameterRequest{Name: "/a"}); wire.CodeOf(err) != "ParameterNotFound" {
		t.Error(err)
	}
	if _, err := w.s.PutParameter(t.Context(), &api.PutParameterRequest{Name: "/s", Type: "SecureString", Value: "secret"}); err != nil {
		t.Fatal(err)
	}
	if out, err := w.s.GetParameter(t.Context(), &api.GetParameterRequest{Name: "/s"}); err != nil || strings.Contains(out.Parameter.Value, "secret") {
		t.Errorf("in clear without decryption: %v %v", out, err)
	}
	if _, err := w.s.GetParameter(t.Context(), &api.GetParameterRequest{Name: "/s:9", WithDecryption: new(true)}); wire.CodeOf(err) != "ParameterVersionNotFound" {
		t.Error(err)
	}
	if _, err := w.s.PutParameter(t.Context(), &api.PutParameterRequest{Name: "/s", Type: "String", Value: "x", Overwrite: new(true)}); wire.CodeOf(err) != "HierarchyTypeMismatchException" {
		t.Error(err)
	}
	if err := w.s.SetPublic(t.Context(), "/aws/x", "1"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.s.DeleteParameter(t.Context(), &api.DeleteParameterRequest{Name: "/aws/x"}); wire.CodeOf(err) != "AccessDeniedException" {
		t.Error(err)
	}
	// With another key the secret is lost, and nothing pretends otherwise.
	w.stop()
	if err := os.WriteFile(w.dir+"/ssm.key", make([]byte, keySize), 0o600); err != nil {
		t.Fatal(err)
	}
	w.start()
	if _, err := w.s.GetParameter(t.Context(), &api.GetParameterRequest{Name: "/s", WithDecryption: new(true)}); wire.CodeOf(err) != "InvalidKeyId" {
		t.Error(err)
	}
}
