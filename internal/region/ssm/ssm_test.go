package ssm

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	api "github.com/dayfly-infra/dayfly/internal/region/api/ssmapi"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// ground is EC2, guests and roles in one: i-1 and i-2 are managed, i-3 has a
// role without rights, i-4 has no guest, i-5 is stopped.
type ground struct {
	mu   sync.Mutex
	runs map[string]int // by command and instance
	hold chan struct{}
	play func(c hypervisor.Command) hypervisor.Result
}

func (g *ground) DescribeInstances(_ context.Context, in *ec2api.DescribeInstancesRequest) (*ec2api.DescribeInstancesResult, error) {
	r := &ec2api.Reservation{}
	for i := range 5 {
		id, st, profile := fmt.Sprintf("i-%d", i+1), "running", "arn:aws:iam::1:instance-profile/good"
		if i == 2 {
			profile = "arn:aws:iam::1:instance-profile/bad"
		}
		if i == 4 {
			st = "stopped"
		}
		ok := true
		for _, f := range in.Filters {
			switch f.Name {
			case "instance-state-name":
				ok = ok && slices.Contains(f.Values, st)
			case "instance-id":
				ok = ok && slices.Contains(f.Values, id)
			case "tag:role":
				ok = ok && slices.Contains(f.Values, "web")
			}
		}
		if ok {
			r.Instances = append(r.Instances, &ec2api.Instance{InstanceId: id, State: &ec2api.InstanceState{Name: st}, IamInstanceProfile: &ec2api.IamInstanceProfile{Arn: profile}})
		}
	}
	return &ec2api.DescribeInstancesResult{Reservations: []*ec2api.Reservation{r}}, nil
}

func (g *ground) RoleAllows(_ context.Context, profile, action, _ string) bool {
	return strings.HasSuffix(profile, "/good") && action == "ssm:UpdateInstanceInformation"
}

func (g *ground) Ready(_ context.Context, id string) error {
	if id == "i-4" {
		return hypervisor.ErrNotReady
	}
	return nil
}

func (g *ground) Run(ctx context.Context, id string, c hypervisor.Command) (hypervisor.Result, error) {
	g.mu.Lock()
	g.runs[c.ID+"/"+id]++
	hold := g.hold
	g.mu.Unlock()
	if hold != nil {
		select {
		case <-ctx.Done():
			return hypervisor.Result{}, ctx.Err()
		case <-hold:
		}
	}
	res := g.play(c)
	res.Started, res.Ended = time.Now(), time.Now()
	return res, nil
}

type world struct {
	t    *testing.T
	g    *ground
	s    *Service
	dir  string
	stop func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir(), g: &ground{runs: map[string]int{}, play: func(c hypervisor.Command) hypervisor.Result {
		return hypervisor.Result{Stdout: []byte("ran " + string(c.Script))}
	}}}
	w.start()
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *world) start() {
	w.t.Helper()
	db, err := state.Open(w.dir + "/r.db")
	if err != nil {
		w.t.Fatal(err)
	}
	bus := wire.NewBus()
	bus.Register(ec2api.Model, w.g)
	s, err := New(Config{Account: "1", Region: "local-1", DB: db, Bus: bus, Guest: w.g, Roles: w.g, KeyFile: w.dir + "/ssm.key"})
	if err != nil {
		w.t.Fatal(err)
	}
	bus.Register(api.Model, s)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	w.s, w.stop = s, func() { cancel(); <-done; db.Close() }
}

func (w *world) send(f func(*api.SendCommandRequest)) string {
	w.t.Helper()
	in := &api.SendCommandRequest{DocumentName: document, InstanceIds: []string{"i-1"}, Parameters: map[string][]string{"commands": {"a", "b"}}}
	if f != nil {
		f(in)
	}
	out, err := w.s.SendCommand(w.t.Context(), in)
	if err != nil {
		w.t.Fatal(err)
	}
	return out.Command.CommandId
}

func (w *world) until(id, instance, want string) *api.GetCommandInvocationResult {
	w.t.Helper()
	got := ""
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		out, err := w.s.GetCommandInvocation(w.t.Context(), &api.GetCommandInvocationRequest{CommandId: id, InstanceId: instance})
		if err != nil {
			w.t.Fatal(err)
		}
		if got = out.StatusDetails; got == want {
			return out
		}
	}
	w.t.Fatalf("%s on %s is %s, never %s", id, instance, got, want)
	return nil
}

func TestOutcomes(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		code       int64
		res        hypervisor.Result
	}{
		{"success", "Success", 0, hypervisor.Result{}},
		{"failure", "Failed", 3, hypervisor.Result{ExitCode: 3}},
		{"timeout", "ExecutionTimedOut", 137, hypervisor.Result{TimedOut: true}},
		{"long output", "Success", 0, hypervisor.Result{Stdout: []byte(strings.Repeat("é", 30000))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.g.play = func(hypervisor.Command) hypervisor.Result { return tt.res }
			begun := time.Now()
			out := w.until(w.send(nil), "i-1", tt.want)
			t.Logf("visible after %v", time.Since(begun))
			if *out.ResponseCode != tt.code {
				t.Errorf("code %d, want %d", *out.ResponseCode, tt.code)
			}
			if n := len([]rune(out.StandardOutputContent)); n > mostStdout {
				t.Errorf("%d characters of output", n)
			}
		})
	}
}

func TestCommandSurvivesRestart(t *testing.T) {
	w := newWorld(t)
	w.g.hold = make(chan struct{})
	id := w.send(nil)
	w.until(id, "i-1", "InProgress")
	w.stop()
	w.g.mu.Lock()
	w.g.hold = nil
	w.g.mu.Unlock()
	w.start()
	w.until(id, "i-1", "Success")
	if n := w.g.runs[id+"/i-1"]; n != 2 {
		t.Errorf("handed out %d times with one id, want 2", n)
	}
}

func TestCancel(t *testing.T) {
	w := newWorld(t)
	w.g.hold = make(chan struct{})
	id := w.send(nil)
	w.until(id, "i-1", "InProgress")
	if _, err := w.s.CancelCommand(t.Context(), &api.CancelCommandRequest{CommandId: id}); err != nil {
		t.Fatal(err)
	}
	w.until(id, "i-1", "Cancelled")
	close(w.g.hold)
	time.Sleep(20 * time.Millisecond)
	w.until(id, "i-1", "Cancelled")
}

func TestTargetsAndErrors(t *testing.T) {
	w := newWorld(t)
	id := w.send(func(in *api.SendCommandRequest) {
		in.InstanceIds, in.Targets = nil, []*api.Target{{Key: "tag:role", Values: []string{"web"}}}
	})
	w.until(id, "i-1", "Success")
	w.until(id, "i-2", "Success")
	list, err := w.s.ListCommandInvocations(t.Context(), &api.ListCommandInvocationsRequest{CommandId: id, Details: new(true)})
	if err != nil || len(list.CommandInvocations) != 2 {
		t.Errorf("%v invocations, %v; only the managed ones are targets", list, err)
	}
	for _, bad := range []string{"i-3", "i-4", "i-5", "i-9"} {
		_, err := w.s.SendCommand(t.Context(), &api.SendCommandRequest{DocumentName: document, InstanceIds: []string{bad}, Parameters: map[string][]string{"commands": {"a"}}})
		if wire.CodeOf(err) != "InvalidInstanceId" {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := w.s.GetCommandInvocation(t.Context(), &api.GetCommandInvocationRequest{CommandId: "x", InstanceId: "i-1"}); wire.CodeOf(err) != "InvocationDoesNotExist" {
		t.Error(err)
	}
	info, err := w.s.DescribeInstanceInformation(t.Context(), &api.DescribeInstanceInformationRequest{})
	if err != nil || len(info.InstanceInformationList) != 2 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestParameters(t *testing.T) {
	w := newWorld(t)
	put := func(name, kind, value string, over bool) error {
		_, err := w.s.PutParameter(t.Context(), &api.PutParameterRequest{Name: name, Type: kind, Value: value, Overwrite: new(over)})
		return err
	}
	for _, e := range []error{put("/a/x", "String", "1", false), put("/a/b/y", "SecureString", "secret", false), put("/a/x", "", "2", true)} {
		if e != nil {
			t.Fatal(e)
		}
	}
	if err := w.s.SetPublic(t.Context(), "/aws/service/debian/release/12/latest/amd64", "ami-1"); err != nil {
		t.Fatal(err)
	}
	w.stop()
	raw, err := os.ReadFile(w.dir + "/r.db")
	if err != nil || strings.Contains(string(raw), "secret") {
		t.Errorf("the secret is on disk in clear (%v)", err)
	}
	if st, _ := os.Stat(w.dir + "/ssm.key"); st.Mode().Perm() != 0o600 {
		t.Errorf("key file is %v", st.Mode())
	}
	w.start()
	for name, want := range map[string]string{"/a/x": "2", "/a/x:1": "1", "/a/b/y": "secret", "/aws/service/debian/release/12/latest/amd64": "ami-1"} {
		out, err := w.s.GetParameter(t.Context(), &api.GetParameterRequest{Name: name, WithDecryption: new(true)})
		if err != nil || out.Parameter.Value != want {
			t.Errorf("%s: %v, %v", name, out, err)
		}
	}
	for recursive, want := range map[bool]int{false: 1, true: 2} {
		out, err := w.s.GetParametersByPath(t.Context(), &api.GetParametersByPathRequest{Path: "/a", Recursive: new(recursive)})
		if err != nil || len(out.Parameters) != want {
			t.Errorf("by path, recursive %v: %v, %v", recursive, out, err)
		}
	}
	for _, tt := range []struct {
		code string
		err  error
	}{{"ParameterAlreadyExists", put("/a/x", "String", "3", false)}, {"AccessDeniedException", put("/aws/x", "String", "3", false)}, {"ValidationException", put("/a//x", "String", "3", false)}} {
		if wire.CodeOf(tt.err) != tt.code {
			t.Errorf("%v, want %s", tt.err, tt.code)
		}
	}
}
