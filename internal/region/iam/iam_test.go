package iam_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsiam "github.com/aws/aws-sdk-go-v2/service/iam"
	iamtypes "github.com/aws/aws-sdk-go-v2/service/iam/types"
	awssts "github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"

	"github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/cloudwatchapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/api/iamapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ssmapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/stsapi"
	"github.com/dayfly-infra/dayfly/internal/region/iam"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/sts"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

type testClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *testClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}
func (c *testClock) After(time.Duration) <-chan time.Time { return nil }
func (c *testClock) move(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

const (
	account  = "123456789012"
	trustEC2 = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}]}`
)

var config = iam.Config{Account: account, Region: "local-1", AccessKeyID: "AKIATEST", SecretAccessKey: "sesame"}

type world struct {
	file  string
	db    *state.DB
	svc   *iam.Service
	clock *testClock
	url   string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{file: filepath.Join(t.TempDir(), "state.db"), clock: &testClock{now: time.Now()}}
	w.open(t)
	bus := wire.NewBus()
	bus.Register(iamapi.Model, w.svc)
	bus.Register(stsapi.Model, sts.New(w.svc))
	srv := httptest.NewServer(wire.NewServer(bus, w.svc, w.svc, slog.New(slog.NewTextHandler(io.Discard, nil)), w.clock))
	t.Cleanup(srv.Close)
	w.url = srv.URL
	return w
}

func (w *world) open(t *testing.T) {
	t.Helper()
	var err error
	if w.db, err = state.Open(w.file); err != nil {
		t.Fatal(err)
	}
	db := w.db
	t.Cleanup(func() { db.Close() })
	if w.svc, err = iam.New(config, w.db, w.clock); err != nil {
		t.Fatal(err)
	}
}

func (w *world) as(id, secret, token string) aws.Config {
	return aws.Config{Region: "local-1", BaseEndpoint: aws.String(w.url), Retryer: func() aws.Retryer { return aws.NopRetryer{} },
		Credentials: aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
			return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: token}, nil
		})}
}

func (w *world) root() aws.Config { return w.as(config.AccessKeyID, config.SecretAccessKey, "") }

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Code
	}
	return ""
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

func TestRolesOverTheSDK(t *testing.T) {
	w := newWorld(t)
	c, ctx := awsiam.NewFromConfig(w.root()), t.Context()
	inline := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:*","Resource":"*"}]}`
	r := must[*awsiam.CreateRoleOutput](t)(c.CreateRole(ctx, &awsiam.CreateRoleInput{RoleName: aws.String("web"), Path: aws.String("/a/"), AssumeRolePolicyDocument: aws.String(trustEC2),
		Tags: []iamtypes.Tag{{Key: aws.String("k"), Value: aws.String("")}}}))
	if *r.Role.Arn != "arn:aws:iam::123456789012:role/a/web" || !strings.HasPrefix(*r.Role.RoleId, "AROA") || len(*r.Role.RoleId) != 21 {
		t.Errorf("got %s %s", *r.Role.Arn, *r.Role.RoleId)
	}
	_, err := c.CreateRole(ctx, &awsiam.CreateRoleInput{RoleName: aws.String("WEB"), AssumeRolePolicyDocument: aws.String(trustEC2)})
	if _, ok := errors.AsType[*iamtypes.EntityAlreadyExistsException](err); !ok {
		t.Errorf("the same role again: %v", err)
	}
	if _, err = c.CreateRole(ctx, &awsiam.CreateRoleInput{RoleName: aws.String("bad"), AssumeRolePolicyDocument: aws.String("{}")}); code(err) != "MalformedPolicyDocument" {
		t.Errorf("a bad trust policy: %v", err)
	}
	_, err = c.PutRolePolicy(ctx, &awsiam.PutRolePolicyInput{RoleName: aws.String("web"), PolicyName: aws.String("p"), PolicyDocument: aws.String(inline)})
	if err != nil {
		t.Fatal(err)
	}
	got := must[*awsiam.GetRolePolicyOutput](t)(c.GetRolePolicy(ctx, &awsiam.GetRolePolicyInput{RoleName: aws.String("web"), PolicyName: aws.String("p")}))
	if !strings.HasPrefix(*got.PolicyDocument, "%7B%22Version%22%3A%222012-10-17%22") {
		t.Errorf("the document came as %s", *got.PolicyDocument)
	}
	const core = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
	if _, err = c.AttachRolePolicy(ctx, &awsiam.AttachRolePolicyInput{RoleName: aws.String("web"), PolicyArn: aws.String(core)}); err != nil {
		t.Fatal(err)
	}
	if _, err = c.AttachRolePolicy(ctx, &awsiam.AttachRolePolicyInput{RoleName: aws.String("web"), PolicyArn: aws.String("arn:aws:iam::aws:policy/Nope")}); code(err) != "NoSuchEntity" {
		t.Errorf("an unknown policy: %v", err)
	}
	if l := must[*awsiam.ListAttachedRolePoliciesOutput](t)(c.ListAttachedRolePolicies(ctx, &awsiam.ListAttachedRolePoliciesInput{RoleName: aws.String("web")})); len(l.AttachedPolicies) != 1 || *l.AttachedPolicies[0].PolicyArn != core {
		t.Errorf("attached: %+v", l.AttachedPolicies)
	}
	must[*awsiam.CreateInstanceProfileOutput](t)(c.CreateInstanceProfile(ctx, &awsiam.CreateInstanceProfileInput{InstanceProfileName: aws.String("prof")}))
	must[*awsiam.AddRoleToInstanceProfileOutput](t)(c.AddRoleToInstanceProfile(ctx, &awsiam.AddRoleToInstanceProfileInput{InstanceProfileName: aws.String("prof"), RoleName: aws.String("web")}))
	p := must[*awsiam.GetInstanceProfileOutput](t)(c.GetInstanceProfile(ctx, &awsiam.GetInstanceProfileInput{InstanceProfileName: aws.String("prof")}))
	if len(p.InstanceProfile.Roles) != 1 || *p.InstanceProfile.Roles[0].RoleName != "web" {
		t.Errorf("profile: %+v", p.InstanceProfile)
	}
	for _, action := range []string{"ssm:GetParameter", "ec2messages:GetMessages", "sts:AssumeRole"} {
		if !w.svc.RoleAllows(ctx, "prof", action, "*") || !w.svc.RoleAllows(ctx, *p.InstanceProfile.Arn, action, "*") {
			t.Errorf("%s is not allowed", action)
		}
	}
	if w.svc.RoleAllows(ctx, "prof", "ssm:PutParameter", "*") || w.svc.RoleAllows(ctx, "nope", "ssm:GetParameter", "*") {
		t.Error("too much is allowed")
	}
	// Nothing goes while it is in use.
	drop := func() error {
		_, err := c.DeleteRole(ctx, &awsiam.DeleteRoleInput{RoleName: aws.String("web")})
		return err
	}
	steps := []func() error{
		func() error {
			_, err := c.RemoveRoleFromInstanceProfile(ctx, &awsiam.RemoveRoleFromInstanceProfileInput{InstanceProfileName: aws.String("prof"), RoleName: aws.String("web")})
			return err
		},
		func() error {
			_, err := c.DetachRolePolicy(ctx, &awsiam.DetachRolePolicyInput{RoleName: aws.String("web"), PolicyArn: aws.String(core)})
			return err
		},
		func() error {
			_, err := c.DeleteRolePolicy(ctx, &awsiam.DeleteRolePolicyInput{RoleName: aws.String("web"), PolicyName: aws.String("p")})
			return err
		},
	}
	for i, step := range steps {
		if err := drop(); code(err) != "DeleteConflict" {
			t.Errorf("step %d: the role was deleted: %v", i, err)
		}
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	if err := drop(); err != nil {
		t.Fatal(err)
	}
	if err := drop(); code(err) != "NoSuchEntity" {
		t.Errorf("deleted twice: %v", err)
	}
}

func TestPages(t *testing.T) {
	w := newWorld(t)
	c := awsiam.NewFromConfig(w.root())
	names := map[string]bool{}
	pages := 0
	for p := awsiam.NewListPoliciesPaginator(c, &awsiam.ListPoliciesInput{MaxItems: aws.Int32(2), Scope: iamtypes.PolicyScopeTypeAws}); p.HasMorePages(); pages++ {
		out, err := p.NextPage(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, x := range out.Policies {
			names[*x.PolicyName] = true
		}
	}
	if len(names) != 7 || pages != 4 || !names["ReadOnlyAccess"] {
		t.Errorf("%d pages with %v", pages, names)
	}
}

// makeRole makes a role that EC2 and the account may assume, with a profile of its name.
func (w *world) makeRole(t *testing.T, name, policies string) {
	t.Helper()
	ctx := t.Context()
	trust := strings.Replace(trustEC2, `{"Service":"ec2.amazonaws.com"}`, `{"Service":"ec2.amazonaws.com","AWS":"arn:aws:iam::123456789012:root"}`, 1)
	if _, err := w.svc.CreateRole(ctx, &iamapi.CreateRoleRequest{RoleName: name, AssumeRolePolicyDocument: trust}); err != nil {
		t.Fatal(err)
	}
	if policies != "" {
		if err := w.svc.PutRolePolicy(ctx, &iamapi.PutRolePolicyRequest{RoleName: name, PolicyName: "p", PolicyDocument: policies}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.svc.CreateInstanceProfile(ctx, &iamapi.CreateInstanceProfileRequest{InstanceProfileName: name}); err != nil {
		t.Fatal(err)
	}
	if err := w.svc.AddRoleToInstanceProfile(ctx, &iamapi.AddRoleToInstanceProfileRequest{InstanceProfileName: name, RoleName: name}); err != nil {
		t.Fatal(err)
	}
}

func TestInstanceCredentials(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	w.makeRole(t, "web", `{"Statement":{"Effect":"Allow","Action":"iam:GetRole","Resource":"arn:aws:iam::123456789012:role/web"}}`)
	get := func() iam.Credentials {
		return must[iam.Credentials](t)(w.svc.InstanceCredentials(ctx, "web", "i-0123"))
	}
	c := get()
	if left := c.Expiration.Sub(w.clock.Now()); left < time.Hour-time.Second || left > 6*time.Hour {
		t.Errorf("valid for %v", left)
	}
	other := must[iam.Credentials](t)(w.svc.InstanceCredentials(ctx, "web", "i-0124"))
	if other.AccessKeyID == c.AccessKeyID || other.SecretAccessKey == c.SecretAccessKey {
		t.Error("two instances have the same credentials")
	}
	me := must[*awssts.GetCallerIdentityOutput](t)(awssts.NewFromConfig(w.as(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)).GetCallerIdentity(ctx, nil))
	if *me.Arn != "arn:aws:sts::123456789012:assumed-role/web/i-0123" || !strings.HasSuffix(*me.UserId, ":i-0123") {
		t.Errorf("I am %s, %s", *me.Arn, *me.UserId)
	}
	asRole := awsiam.NewFromConfig(w.as(c.AccessKeyID, c.SecretAccessKey, c.SessionToken))
	if _, err := asRole.GetRole(ctx, &awsiam.GetRoleInput{RoleName: aws.String("web")}); err != nil {
		t.Errorf("what is allowed: %v", err)
	}
	_, err := asRole.GetRole(ctx, &awsiam.GetRoleInput{RoleName: aws.String("db")})
	if code(err) != "AccessDenied" || !strings.Contains(err.Error(), "User: arn:aws:sts::123456789012:assumed-role/web/i-0123 is not authorized to perform: iam:GetRole on resource: arn:aws:iam::123456789012:role/db because no identity-based policy allows the iam:GetRole action") {
		t.Errorf("what is not allowed: %v", err)
	}
	// A mix of one instance's key and another's token is nobody.
	if _, err := awssts.NewFromConfig(w.as(c.AccessKeyID, c.SecretAccessKey, other.SessionToken)).GetCallerIdentity(ctx, nil); code(err) != "InvalidClientTokenId" {
		t.Errorf("a mixed pair: %v", err)
	}
	// The same until an hour before the end, also after a restart.
	w.db.Close()
	w.open(t)
	if again := get(); again != c {
		t.Error("a restart changed the credentials")
	}
	w.clock.move(c.Expiration.Sub(w.clock.Now()) - time.Hour - time.Second)
	if get() != c {
		t.Error("they changed too early")
	}
	w.clock.move(2 * time.Second)
	if get() == c {
		t.Error("they did not change an hour before their end")
	}
	if _, _, err := w.svc.Secret(ctx, c.AccessKeyID, c.SessionToken); err != nil {
		t.Errorf("the old ones were to be valid still: %v", err)
	}
	w.clock.move(time.Hour)
	if _, _, err := w.svc.Secret(ctx, c.AccessKeyID, c.SessionToken); code(err) != "ExpiredToken" {
		t.Errorf("expired ones: %v", err)
	}
	// A role that was made again is another role.
	c = get()
	for _, err := range []error{
		w.svc.RemoveRoleFromInstanceProfile(ctx, &iamapi.RemoveRoleFromInstanceProfileRequest{InstanceProfileName: "web", RoleName: "web"}),
		w.svc.DeleteInstanceProfile(ctx, &iamapi.DeleteInstanceProfileRequest{InstanceProfileName: "web"}),
		w.svc.DeleteRolePolicy(ctx, &iamapi.DeleteRolePolicyRequest{RoleName: "web", PolicyName: "p"}),
		w.svc.DeleteRole(ctx, &iamapi.DeleteRoleRequest{RoleName: "web"}),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	w.makeRole(t, "web", "")
	if _, _, err := w.svc.Secret(ctx, c.AccessKeyID, c.SessionToken); code(err) != "InvalidClientTokenId" {
		t.Errorf("credentials of a deleted role: %v", err)
	}
	// EC2 must be trusted.
	if err := w.svc.UpdateAssumeRolePolicy(ctx, &iamapi.UpdateAssumeRolePolicyRequest{RoleName: "web", PolicyDocument: strings.ReplaceAll(trustEC2, "ec2.", "ssm.")}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.svc.InstanceCredentials(ctx, "web", "i-0123"); code(err) != "AssumeRoleUnauthorizedAccess" {
		t.Errorf("a role that does not trust EC2: %v", err)
	}
}

func TestAssumeRole(t *testing.T) {
	w := newWorld(t)
	ctx := t.Context()
	all := `{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`
	w.makeRole(t, "admin", all)
	w.makeRole(t, "nobody", "")
	assume := func(cfg aws.Config, role string, in awssts.AssumeRoleInput) (aws.Config, error) {
		in.RoleArn, in.RoleSessionName = aws.String("arn:aws:iam::123456789012:role/"+role), aws.String("test")
		out, err := awssts.NewFromConfig(cfg).AssumeRole(ctx, &in)
		if err != nil {
			return cfg, err
		}
		c := out.Credentials
		return w.as(*c.AccessKeyId, *c.SecretAccessKey, *c.SessionToken), nil
	}
	list := func(cfg aws.Config) error {
		_, err := awsiam.NewFromConfig(cfg).ListRoles(ctx, nil)
		return err
	}
	admin, err := assume(w.root(), "admin", awssts.AssumeRoleInput{})
	if err != nil {
		t.Fatal(err)
	}
	if err := list(admin); err != nil {
		t.Errorf("an administrator: %v", err)
	}
	for name, in := range map[string]awssts.AssumeRoleInput{
		"policy": {Policy: aws.String(`{"Statement":{"Effect":"Allow","Action":"s3:*","Resource":"*"}}`)},
		"arn":    {PolicyArns: []ststypes.PolicyDescriptorType{{Arn: aws.String("arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess")}}},
	} {
		narrow, err := assume(w.root(), "admin", in)
		if err != nil {
			t.Fatal(err)
		}
		if err := list(narrow); code(err) != "AccessDenied" {
			t.Errorf("a session policy by %s did not narrow: %v", name, err)
		}
	}
	nobody, err := assume(w.root(), "nobody", awssts.AssumeRoleInput{})
	if err != nil {
		t.Fatal(err)
	}
	if err := list(nobody); code(err) != "AccessDenied" {
		t.Errorf("nobody may list: %v", err)
	}
	if _, err := assume(nobody, "admin", awssts.AssumeRoleInput{}); code(err) != "AccessDenied" {
		t.Errorf("nobody became administrator: %v", err)
	}
	if _, err := assume(admin, "nobody", awssts.AssumeRoleInput{}); err != nil {
		t.Errorf("an administrator could not become nobody: %v", err)
	}
	if _, err := assume(w.root(), "missing", awssts.AssumeRoleInput{}); code(err) != "AccessDenied" {
		t.Errorf("a role that is not there: %v", err)
	}
	if _, err := assume(w.root(), "admin", awssts.AssumeRoleInput{DurationSeconds: aws.Int32(7200)}); code(err) != "ValidationError" {
		t.Errorf("too long: %v", err)
	}
	if _, err := assume(w.root(), "admin", awssts.AssumeRoleInput{ExternalId: aws.String("x"), SourceIdentity: aws.String("me")}); code(err) != "NotImplemented" {
		t.Errorf("a source identity: %v", err)
	}
}

func TestNeeds(t *testing.T) {
	w := newWorld(t)
	w.makeRole(t, "web", "")
	caller := wire.Caller{Account: account, ARN: "arn:aws:sts::123456789012:assumed-role/web/i-1", Role: "web"}
	const ec2 = "arn:aws:ec2:local-1:123456789012:"
	for _, tt := range []struct {
		service, op string
		in          any
		want        string
	}{
		{"ec2", "DescribeInstances", &ec2api.DescribeInstancesRequest{InstanceIds: []string{"i-1"}}, "DescribeInstances []"},
		{"ec2", "TerminateInstances", &ec2api.TerminateInstancesRequest{InstanceIds: []string{"i-1", "i-2"}}, "TerminateInstances [" + ec2 + "instance/i-1 " + ec2 + "instance/i-2]"},
		{"ec2", "RunInstances", &ec2api.RunInstancesRequest{ImageId: "ami-1", SubnetId: "subnet-1", IamInstanceProfile: &ec2api.IamInstanceProfileSpecification{Name: "web"},
			TagSpecifications: []*ec2api.TagSpecification{{Tags: []*ec2api.Tag{{Key: "k", Value: "v"}}}}},
			"RunInstances [" + ec2 + "instance/* " + ec2 + "network-interface/* " + ec2 + "volume/* " + ec2 + "subnet/subnet-1 arn:aws:ec2:local-1::image/ami-1]" +
				" CreateTags [" + ec2 + "instance/* " + ec2 + "network-interface/* " + ec2 + "volume/*] iam:PassRole [arn:aws:iam::123456789012:role/web]"},
		{"ec2", "CreateTags", &ec2api.CreateTagsRequest{Resources: []string{"vpc-1", "ami-2"}}, "CreateTags [" + ec2 + "vpc/vpc-1 arn:aws:ec2:local-1::image/ami-2]"},
		{"autoscaling", "CompleteLifecycleAction", &autoscalingapi.CompleteLifecycleActionType{AutoScalingGroupName: "g"}, "CompleteLifecycleAction [arn:aws:autoscaling:local-1:123456789012:autoScalingGroup:*:autoScalingGroupName/g]"},
		{"ssm", "GetParameter", &ssmapi.GetParameterRequest{Name: "/a/b"}, "GetParameter [arn:aws:ssm:local-1:123456789012:parameter/a/b]"},
		{"ssm", "GetParameters", &ssmapi.GetParametersRequest{Names: []string{"x", "/aws/service/y"}}, "GetParameters [arn:aws:ssm:local-1:123456789012:parameter/x arn:aws:ssm:local-1::parameter/aws/service/y]"},
		{"ssm", "SendCommand", &ssmapi.SendCommandRequest{DocumentName: "AWS-RunShellScript", InstanceIds: []string{"i-1"}}, "SendCommand [arn:aws:ssm:local-1::document/AWS-RunShellScript " + ec2 + "instance/i-1]"},
		{"monitoring", "GetMetricData", &cloudwatchapi.GetMetricDataInput{}, "cloudwatch:GetMetricData []"},
		{"sts", "GetCallerIdentity", &stsapi.GetCallerIdentityRequest{}, ""},
		{"iam", "AddRoleToInstanceProfile", &iamapi.AddRoleToInstanceProfileRequest{InstanceProfileName: "web", RoleName: "web"}, "AddRoleToInstanceProfile [arn:aws:iam::123456789012:instance-profile/web] iam:PassRole [arn:aws:iam::123456789012:role/web]"},
	} {
		var got []string
		for _, n := range w.svc.Needs(t.Context(), caller, tt.service, tt.op, tt.in) {
			name := n.Action
			if n.Service != "" {
				name = n.Service + ":" + name
			}
			got = append(got, name+" ["+strings.Join(n.Resources, " ")+"]")
		}
		if g := strings.Join(got, " "); g != tt.want {
			t.Errorf("%s:%s\n got %s\nwant %s", tt.service, tt.op, g, tt.want)
		}
	}
}

// The AWS command line is another implementation of the protocol.
func TestAWSCommandLine(t *testing.T) {
	cli, err := exec.LookPath("aws")
	if err != nil || testing.Short() {
		t.Skip("the AWS command line is not installed, or the test is to be short")
	}
	w := newWorld(t)
	dir := t.TempDir()
	run := func(want string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), cli, args...)
		cmd.Env = append(os.Environ(), "AWS_ENDPOINT_URL="+w.url, "AWS_REGION=local-1", "AWS_DEFAULT_REGION=local-1", "AWS_ACCESS_KEY_ID=AKIATEST", "AWS_SECRET_ACCESS_KEY=sesame",
			"AWS_CONFIG_FILE="+dir+"/config", "AWS_SHARED_CREDENTIALS_FILE="+dir+"/credentials", "AWS_EC2_METADATA_DISABLED=true")
		out, _ := cmd.CombinedOutput()
		if !strings.Contains(string(out), want) {
			t.Errorf("aws %v: want %q in %s", args, want, out)
		}
	}
	run(`"Arn": "arn:aws:iam::123456789012:root"`, "sts", "get-caller-identity", "--output", "json")
	run(`"RoleName": "cli"`, "iam", "create-role", "--role-name", "cli", "--assume-role-policy-document", trustEC2, "--tags", "Key=a,Value=b", "--output", "json")
	run(`"Service": "ec2.amazonaws.com"`, "iam", "get-role", "--role-name", "cli", "--output", "json")
	run("EntityAlreadyExists", "iam", "create-role", "--role-name", "cli", "--assume-role-policy-document", trustEC2)
	run("NotImplemented", "iam", "list-users")
}
