package cloud_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
	asg "github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	cfn "github.com/dayfly-infra/dayfly/internal/region/api/cloudformationapi"
	elb "github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	ssm "github.com/dayfly-infra/dayfly/internal/region/api/ssmapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/stsapi"
	"github.com/dayfly-infra/dayfly/internal/region/iam"
	"github.com/dayfly-infra/dayfly/internal/region/s3"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/sts"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

// The driver over the real wire protocols: object storage and identities are
// the region's own, the other services here are a few lines each, with pages of
// one so that a forgotten page shows.

type cfnService struct {
	created *cfn.CreateStackInput
}

func (s *cfnService) CreateStack(_ context.Context, in *cfn.CreateStackInput) (*cfn.CreateStackOutput, error) {
	s.created = in
	return &cfn.CreateStackOutput{StackId: "arn:aws:cloudformation:stack/" + in.StackName}, nil
}

func (s *cfnService) DescribeStackEvents(_ context.Context, in *cfn.DescribeStackEventsInput) (*cfn.DescribeStackEventsOutput, error) {
	page := map[string]string{"": "2", "2": "1"}
	return &cfn.DescribeStackEventsOutput{
		StackEvents: []*cfn.StackEvent{{LogicalResourceId: "event after " + in.NextToken, ResourceStatus: "CREATE_FAILED", ResourceStatusReason: "why"}}, NextToken: page[in.NextToken],
	}, nil
}

func (s *cfnService) ListStackResources(_ context.Context, in *cfn.ListStackResourcesInput) (*cfn.ListStackResourcesOutput, error) {
	page := map[string]string{"": "2"}
	return &cfn.ListStackResourcesOutput{
		StackResourceSummaries: []*cfn.StackResourceSummary{{LogicalResourceId: "R" + in.NextToken, ResourceType: "AWS::EC2::VPC", PhysicalResourceId: "vpc-1", ResourceStatus: "CREATE_COMPLETE"}}, NextToken: page[in.NextToken],
	}, nil
}

type asgService struct {
	groups  map[string]*asg.AutoScalingGroup
	deleted []string
}

func (s *asgService) DescribeAutoScalingGroups(_ context.Context, in *asg.AutoScalingGroupNamesType) (*asg.AutoScalingGroupsType, error) {
	out := &asg.AutoScalingGroupsType{}
	if len(in.AutoScalingGroupNames) > 0 {
		for _, n := range in.AutoScalingGroupNames {
			if g := s.groups[n]; g != nil {
				out.AutoScalingGroups = append(out.AutoScalingGroups, g)
			}
		}
		return out, nil
	}
	at := 0
	fmt.Sscan(in.NextToken, &at)
	names := []string{}
	for n := range s.groups {
		names = append(names, n)
	}
	slices.Sort(names)
	out.AutoScalingGroups = append(out.AutoScalingGroups, s.groups[names[at]])
	if at+1 < len(names) {
		out.NextToken = fmt.Sprint(at + 1)
	}
	return out, nil
}

func (s *asgService) DescribeScalingActivities(_ context.Context, in *asg.DescribeScalingActivitiesType) (*asg.ActivitiesType, error) {
	page := map[string]string{"": "2"}
	return &asg.ActivitiesType{Activities: []*asg.Activity{{ActivityId: "a" + in.NextToken, StatusCode: "Failed", StatusMessage: "no capacity"}}, NextToken: page[in.NextToken]}, nil
}

func (s *asgService) DeleteAutoScalingGroup(_ context.Context, in *asg.DeleteAutoScalingGroupType) error {
	if in.ForceDelete == nil || !*in.ForceDelete {
		return wire.Errorf("ResourceInUse", "instances")
	}
	s.deleted = append(s.deleted, in.AutoScalingGroupName)
	delete(s.groups, in.AutoScalingGroupName)
	return nil
}

type elbService struct {
	actions []*elb.Action
	changes int
}

func (s *elbService) DescribeTargetHealth(context.Context, *elb.DescribeTargetHealthInput) (*elb.DescribeTargetHealthOutput, error) {
	return &elb.DescribeTargetHealthOutput{TargetHealthDescriptions: []*elb.TargetHealthDescription{
		{Target: &elb.TargetDescription{Id: "i-1", Port: new(int64(8080))}, TargetHealth: &elb.TargetHealth{State: "unhealthy", Reason: "Target.Timeout", Description: "Request timed out"}},
	}}, nil
}

func (s *elbService) DescribeTargetGroupAttributes(_ context.Context, in *elb.DescribeTargetGroupAttributesInput) (*elb.DescribeTargetGroupAttributesOutput, error) {
	if in.TargetGroupArn != "arn:aws:tg" {
		return nil, wire.Errorf("TargetGroupNotFound", "One or more target groups not found")
	}
	return &elb.DescribeTargetGroupAttributesOutput{Attributes: []*elb.TargetGroupAttribute{{Key: "stickiness.enabled", Value: "false"}, {Key: "deregistration_delay.timeout_seconds", Value: "300"}}}, nil
}

func (s *elbService) DescribeListeners(_ context.Context, in *elb.DescribeListenersInput) (*elb.DescribeListenersOutput, error) {
	if in.ListenerArns[0] != "arn:aws:listener" {
		return nil, wire.Errorf("ListenerNotFound", "One or more listeners not found")
	}
	return &elb.DescribeListenersOutput{Listeners: []*elb.Listener{{ListenerArn: "arn:aws:listener", DefaultActions: s.actions}}}, nil
}

func (s *elbService) ModifyListener(_ context.Context, in *elb.ModifyListenerInput) (*elb.ModifyListenerOutput, error) {
	s.actions = in.DefaultActions
	s.changes++
	return &elb.ModifyListenerOutput{}, nil
}

type ssmService struct{ online bool }

func (s *ssmService) GetParameter(_ context.Context, in *ssm.GetParameterRequest) (*ssm.GetParameterResult, error) {
	if in.Name != "/aws/service/debian" {
		return nil, wire.Errorf("ParameterNotFound", "")
	}
	return &ssm.GetParameterResult{Parameter: &ssm.Parameter{Value: "ami-1"}}, nil
}

func (s *ssmService) DescribeInstanceInformation(context.Context, *ssm.DescribeInstanceInformationRequest) (*ssm.DescribeInstanceInformationResult, error) {
	out := &ssm.DescribeInstanceInformationResult{}
	if s.online {
		out.InstanceInformationList = []*ssm.InstanceInformation{{InstanceId: "i-1", PingStatus: "Online"}}
	}
	return out, nil
}

func (s *ssmService) GetCommandInvocation(_ context.Context, in *ssm.GetCommandInvocationRequest) (*ssm.GetCommandInvocationResult, error) {
	if in.InstanceId != "i-1" {
		return nil, wire.Errorf("InvocationDoesNotExist", "")
	}
	return &ssm.GetCommandInvocationResult{CommandId: in.CommandId, Status: "Failed", ResponseCode: new(int64(3)), StandardOutputContent: "out", StandardErrorContent: "err"}, nil
}

func (s *ssmService) ListCommands(_ context.Context, in *ssm.ListCommandsRequest) (*ssm.ListCommandsResult, error) {
	out := &ssm.ListCommandsResult{}
	if strings.HasPrefix(in.CommandId, "11111111") {
		out.Commands = []*ssm.Command{{CommandId: in.CommandId}}
	}
	return out, nil
}

type services struct {
	cfn cfnService
	asg asgService
	elb elbService
	ssm ssmService
	url string
}

func region(t *testing.T) (*cloud.Driver, *services) {
	t.Helper()
	dir := t.TempDir()
	db, err := state.Open(filepath.Join(dir, "region.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	identities, err := iam.New(iam.Config{Account: "123456789012", Region: "local-1", AccessKeyID: "AKIATEST", SecretAccessKey: "sesame"}, db, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := s3.New(filepath.Join(dir, "s3"), db, clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	objects.Policy = identities
	s := &services{}
	bus := wire.NewBus()
	bus.Register(stsapi.Model, sts.New(identities))
	bus.Register(cfn.Model, &s.cfn)
	bus.Register(asg.Model, &s.asg)
	bus.Register(elb.Model, &s.elb)
	bus.Register(ssm.Model, &s.ssm)
	w := wire.NewServer(bus, identities, identities, slog.New(slog.DiscardHandler), clock.Real{})
	w.Objects = objects
	server := httptest.NewServer(w)
	t.Cleanup(server.Close)
	s.url = server.URL
	st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { st.Close() })
	d, err := cloud.New(t.Context(), cloud.Config{
		Region: "local-1", Endpoint: server.URL + "/", Credentials: credentials.NewStaticCredentialsProvider("AKIATEST", "sesame", ""), Owner: "me", Store: st,
	})
	if err != nil {
		t.Fatal(err)
	}
	return d, s
}

func must[T any](t *testing.T) func(v T, err error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

func TestObjects(t *testing.T) {
	d, _ := region(t)
	ctx := t.Context()
	equal(t, d.Bucket(), "dayfly-123456789012-local-1-me")
	equal(t, len(must[[]string](t)(d.ListObjects(ctx, ""))), 0) // before there is a bucket
	if _, err := d.GetObject(ctx, "a"); !errors.Is(err, cloud.ErrNotFound) || fault.KindOf(err) != fault.NotFound {
		t.Error(err)
	}
	put := func(id, key, body string) {
		t.Helper()
		if err := d.PutObject(ctx, cloud.Intent{ID: id, Object: "o"}, key, strings.NewReader(body), int64(len(body))); err != nil {
			t.Fatal(err)
		}
	}
	read := func(key string) string {
		t.Helper()
		r := must[io.ReadCloser](t)(d.GetObject(ctx, key))
		defer r.Close()
		return string(must[[]byte](t)(io.ReadAll(r)))
	}
	put("o/1", "p/a b+ü", "hello")
	put("o/2", "p/big", strings.Repeat("0123456789", 300_000))
	put("o/3", "q", "")
	equal(t, read("p/a b+ü"), "hello")
	equal(t, len(read("p/big")), 3_000_000)
	put("o/4", "q", "new")
	put("o/3", "q", "") // done long ago: nothing happens
	equal(t, read("q"), "new")
	equal(t, must[[]string](t)(d.ListObjects(ctx, "p/")), []string{"p/a b+ü", "p/big"})
	if _, err := d.GetObject(ctx, "none"); !errors.Is(err, cloud.ErrNotFound) {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for w := range 16 { // more than one page and one request
		wg.Go(func() {
			for i := w; i < 1005; i += 16 {
				if err := d.PutObject(ctx, cloud.Intent{ID: fmt.Sprint("many/", i), Object: "many"}, fmt.Sprintf("many/%04d", i), strings.NewReader("x"), 1); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	equal(t, len(must[[]string](t)(d.ListObjects(ctx, "many/"))), 1005)
	if err := d.DeletePrefix(ctx, cloud.Intent{ID: "o/5", Object: "o"}, "many/"); err != nil {
		t.Fatal(err)
	}
	equal(t, must[[]string](t)(d.ListObjects(ctx, "")), []string{"p/a b+ü", "p/big", "q"})
	if err := d.DeletePrefix(ctx, cloud.Intent{ID: "o/6", Object: "o"}, ""); fault.KindOf(err) != fault.Invalid {
		t.Error(err)
	}
}

func TestStackOverTheWire(t *testing.T) {
	d, s := region(t)
	ctx := t.Context()
	big := "# " + strings.Repeat("x", 60_000)
	id := must[string](t)(d.CreateStack(ctx, cloud.Intent{ID: "bake/1/stack/1", Object: "bake/1"}, cloud.StackInput{
		Name: "dayfly-me-a", Template: big, Parameters: map[string]string{"B": "2", "A": ""}, Tags: cloud.Tags{"team": "shop"}, KeepOnFailure: true,
	}))
	equal(t, id, "arn:aws:cloudformation:stack/dayfly-me-a")
	in := s.cfn.created
	equal(t, in.TemplateBody, "")
	if !strings.HasPrefix(in.TemplateURL, s.url+"/dayfly-123456789012-local-1-me/templates/") {
		t.Error(in.TemplateURL)
	}
	key := strings.TrimPrefix(in.TemplateURL, s.url+"/dayfly-123456789012-local-1-me/")
	r := must[io.ReadCloser](t)(d.GetObject(ctx, key))
	equal(t, string(must[[]byte](t)(io.ReadAll(r))), big)
	r.Close()
	equal(t, in.Capabilities, []string{"CAPABILITY_NAMED_IAM"})
	equal(t, in.OnFailure, "DO_NOTHING")
	equal(t, len(in.ClientRequestToken), 64)
	equal(t, []string{in.Parameters[0].ParameterKey, in.Parameters[1].ParameterKey, in.Parameters[1].ParameterValue}, []string{"A", "B", "2"})
	tags := map[string]string{}
	for _, t := range in.Tags {
		tags[t.Key] = t.Value
	}
	equal(t, tags, map[string]string{"team": "shop", cloud.TagOwner: "me", cloud.TagIntent: "bake/1/stack/1", cloud.TagObject: "bake/1"})
	if _, err := d.CreateStack(ctx, cloud.Intent{ID: "x/1", Object: "x"}, cloud.StackInput{Name: "x", Template: strings.Repeat("x", 2_000_000)}); fault.KindOf(err) != fault.Invalid {
		t.Error(err)
	}
	events := must[[]cloud.StackEvent](t)(d.StackEvents(ctx, "a"))
	equal(t, []string{events[0].Resource, events[1].Resource, events[2].Resource, events[0].Reason}, []string{"event after 1", "event after 2", "event after ", "why"})
	equal(t, must[[]cloud.StackResource](t)(d.StackResources(ctx, "a")), []cloud.StackResource{
		{Logical: "R", Type: "AWS::EC2::VPC", Physical: "vpc-1", Status: "CREATE_COMPLETE"}, {Logical: "R2", Type: "AWS::EC2::VPC", Physical: "vpc-1", Status: "CREATE_COMPLETE"},
	})
	// An operation that the region does not have is said to be so.
	if _, err := d.Stack(ctx, "a"); fault.CodeOf(err) != "NotImplemented" || fault.KindOf(err) != fault.Failed || fault.HintOf(err) == "" {
		t.Error(err)
	}
}

func TestGroups(t *testing.T) {
	d, s := region(t)
	ctx := t.Context()
	group := func(name, owner string) *asg.AutoScalingGroup {
		return &asg.AutoScalingGroup{
			AutoScalingGroupName: name, MinSize: new(int64(1)), MaxSize: new(int64(9)), DesiredCapacity: new(int64(3)), TargetGroupARNs: []string{"tg"},
			Instances: []*asg.Instance{{InstanceId: "i-1", AvailabilityZone: "local-1a", LifecycleState: "InService", HealthStatus: "HEALTHY", ProtectedFromScaleIn: new(true)}},
			Tags:      []*asg.TagDescription{{Key: cloud.TagOwner, Value: owner}},
		}
	}
	s.asg.groups = map[string]*asg.AutoScalingGroup{"a": group("a", "me"), "b": group("b", "them"), "c": group("c", "me")}
	want := cloud.Group{
		Name: "a", Min: 1, Max: 9, Desired: 3, TargetGroups: []string{"tg"}, Tags: map[string]string{cloud.TagOwner: "me"},
		Members: []cloud.Member{{Instance: "i-1", Zone: "local-1a", Lifecycle: "InService", Healthy: true, Protected: true}},
	}
	equal(t, must[cloud.Group](t)(d.Group(ctx, "a")), want)
	all := must[[]cloud.Group](t)(d.Groups(ctx))
	equal(t, []string{all[0].Name, all[1].Name, fmt.Sprint(len(all))}, []string{"a", "c", "2"})
	activities := must[[]cloud.Activity](t)(d.Activities(ctx, "a"))
	equal(t, []string{activities[0].ID, activities[1].ID, activities[0].Message}, []string{"a", "a2", "no capacity"})
	if err := d.DeleteGroup(ctx, cloud.Intent{ID: "g/1", Object: "g"}, "b"); fault.KindOf(err) != fault.Denied {
		t.Error(err)
	}
	for i := range 2 { // the second finds it gone
		if err := d.DeleteGroup(ctx, cloud.Intent{ID: fmt.Sprint("g/a", i), Object: "g"}, "a"); err != nil {
			t.Error(err)
		}
	}
	equal(t, s.asg.deleted, []string{"a"})
	if _, err := d.Group(ctx, "a"); !errors.Is(err, cloud.ErrNotFound) {
		t.Error(err)
	}
}

func TestTraffic(t *testing.T) {
	d, s := region(t)
	ctx := t.Context()
	equal(t, must[time.Duration](t)(d.DrainDelay(ctx, "arn:aws:tg")), 5*time.Minute)
	if _, err := d.DrainDelay(ctx, "another"); fault.KindOf(err) != fault.NotFound {
		t.Error(err)
	}
	equal(t, must[[]cloud.Target](t)(d.Targets(ctx, "tg")), []cloud.Target{{Instance: "i-1", Port: 8080, State: "unhealthy", Reason: "Request timed out"}})
	equal(t, len(must[[]cloud.Weight](t)(d.ListenerWeights(ctx, "arn:aws:listener"))), 0)
	weights := []cloud.Weight{{TargetGroup: "blue", Weight: 0}, {TargetGroup: "green", Weight: 100}}
	for range 2 {
		if err := d.SetListener(ctx, cloud.Intent{ID: "l/1", Object: "l"}, "arn:aws:listener", weights); err != nil {
			t.Fatal(err)
		}
	}
	equal(t, must[[]cloud.Weight](t)(d.ListenerWeights(ctx, "arn:aws:listener")), weights)
	equal(t, s.elb.changes, 1)
	s.elb.actions = []*elb.Action{{Type: "forward", TargetGroupArn: "one"}}
	equal(t, must[[]cloud.Weight](t)(d.ListenerWeights(ctx, "arn:aws:listener")), []cloud.Weight{{TargetGroup: "one", Weight: 1}})
	if _, err := d.ListenerWeights(ctx, "none"); !errors.Is(err, cloud.ErrNotFound) {
		t.Error(err)
	}
}

func TestCommandsOverTheWire(t *testing.T) {
	d, s := region(t)
	ctx := t.Context()
	equal(t, must[string](t)(d.Parameter(ctx, "/aws/service/debian")), "ami-1")
	if _, err := d.Parameter(ctx, "none"); !errors.Is(err, cloud.ErrNotFound) {
		t.Error(err)
	}
	equal(t, must[bool](t)(d.CommandReady(ctx, "i-1")), false)
	s.ssm.online = true
	equal(t, must[bool](t)(d.CommandReady(ctx, "i-1")), true)
	equal(t, must[bool](t)(d.CommandReady(ctx, "i-2")), false)
	const id, unknown = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
	r := must[cloud.CommandResult](t)(d.CommandResult(ctx, "i-1", id))
	equal(t, r, cloud.CommandResult{ID: id, Status: "Failed", ExitCode: 3, Stdout: "out", Stderr: "err"})
	equal(t, r.Finished(), true)
	r = must[cloud.CommandResult](t)(d.CommandResult(ctx, "i-2", id)) // sent a moment ago
	equal(t, r.Finished(), false)
	if _, err := d.CommandResult(ctx, "i-2", unknown); !errors.Is(err, cloud.ErrNotFound) {
		t.Error(err)
	}
}

func TestConfiguration(t *testing.T) {
	st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	t.Setenv("AWS_REGION", "")
	t.Setenv("AWS_DEFAULT_REGION", "")
	t.Setenv("AWS_CONFIG_FILE", "/nonexistent")
	for name, c := range map[string]cloud.Config{
		"no owner":  {Region: "r", Store: st},
		"bad owner": {Region: "r", Store: st, Owner: "Me!"},
		"no store":  {Region: "r", Owner: "me"},
		"endpoint":  {Region: "r", Owner: "me", Store: st, Endpoint: "localhost:80"},
		"no region": {Owner: "me", Store: st},
	} {
		if _, err := cloud.New(t.Context(), c); fault.KindOf(err) != fault.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	d, err := cloud.New(t.Context(), cloud.Config{
		Region: "local-1", Endpoint: "http://127.0.0.1:1", Credentials: credentials.NewStaticCredentialsProvider("a", "b", ""), Owner: "me", Store: st,
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = d.Identity(t.Context())
	f, ok := errors.AsType[*fault.Error](err)
	if !ok || f.Kind != fault.Unavailable || !strings.Contains(f.Hint, "dayfly region status") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("%v, %+v", err, f)
	}
	equal(t, d.Bucket(), "")
	body := bytes.NewReader([]byte("x"))
	if err := d.PutObject(t.Context(), cloud.Intent{ID: "a/1", Object: "a"}, "k", body, 1); fault.KindOf(err) != fault.Unavailable {
		t.Error(err)
	}
}

func TestDenied(t *testing.T) {
	_, s := region(t)
	st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	d, err := cloud.New(t.Context(), cloud.Config{Region: "local-1", Endpoint: s.url, Credentials: credentials.NewStaticCredentialsProvider("AKIATEST", "wrong", ""), Owner: "me", Store: st})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := d.Identity(t.Context()); fault.KindOf(err) != fault.Denied || fault.HintOf(err) == "" {
		t.Error(err)
	}
}
