package wire_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/autoscaling"
	astypes "github.com/aws/aws-sdk-go-v2/service/autoscaling/types"
	"github.com/aws/aws-sdk-go-v2/service/ssm"
	ssmtypes "github.com/aws/aws-sdk-go-v2/service/ssm/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go"

	"github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/api/ssmapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/stsapi"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// testClock is a clock that only a test moves.
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
	keyID  = "AKIAIOSFODNN7EXAMPLE"
	secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
)

// oneKey knows one access key, and one temporary one.
type oneKey struct{}

func (oneKey) Secret(_ context.Context, id, token string) (string, wire.Caller, error) {
	switch {
	case id == keyID && token == "":
		return secret, wire.Caller{Account: "123456789012", ARN: "arn:aws:iam::123456789012:root"}, nil
	case id == "ASIATEMPORARY" && token == "good/token+==":
		return "temporary", wire.Caller{Account: "123456789012", ARN: "arn:aws:sts::123456789012:assumed-role/web/i-1", Role: "web"}, nil
	case token == "old":
		return "", wire.Caller{}, &wire.Error{Code: "ExpiredToken", Message: "The security token included in the request is expired", Status: 403}
	}
	return "", wire.Caller{}, &wire.Error{Code: "InvalidClientTokenId", Message: "The security token included in the request is invalid.", Status: 403}
}

// rootOnly lets the root do everything.
type rootOnly struct{}

func (rootOnly) Authorize(_ context.Context, c wire.Caller, service, action string, resources []string, _ map[string]string) error {
	if c.Role == "" {
		return nil
	}
	return &wire.Error{Code: "AccessDenied", Message: "User: " + c.ARN + " is not authorized to perform: " + service + ":" + action, Status: 403}
}

// echo implements some operations by remembering and returning.
type echo struct {
	group *autoscalingapi.CreateAutoScalingGroupType
	send  *ssmapi.SendCommandRequest
	run   *ec2api.RunInstancesRequest
}

func (e *echo) CreateAutoScalingGroup(_ context.Context, in *autoscalingapi.CreateAutoScalingGroupType) error {
	if in.AutoScalingGroupName == "taken" {
		return wire.Errorf("AlreadyExists", "AutoScalingGroup by this name already exists")
	}
	e.group = in
	return nil
}

var born = time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)

func (e *echo) DescribeAutoScalingGroups(_ context.Context, in *autoscalingapi.AutoScalingGroupNamesType) (*autoscalingapi.AutoScalingGroupsType, error) {
	out := &autoscalingapi.AutoScalingGroupsType{}
	for _, n := range in.AutoScalingGroupNames {
		switch n {
		case "panic":
			panic("boom")
		case "error":
			return nil, errors.New("secret detail")
		}
		out.AutoScalingGroups = append(out.AutoScalingGroups, &autoscalingapi.AutoScalingGroup{
			AutoScalingGroupName: n, CreatedTime: new(born), MinSize: new(int64(1)), AvailabilityZones: []string{"a", "b"},
			Tags: []*autoscalingapi.TagDescription{{Key: "k <&>\n", Value: "", PropagateAtLaunch: new(true)}},
		})
	}
	return out, nil
}

func (e *echo) RunInstances(_ context.Context, in *ec2api.RunInstancesRequest) (*ec2api.Reservation, error) {
	e.run = in
	return &ec2api.Reservation{ReservationId: "r-1", Instances: []*ec2api.Instance{{InstanceId: "i-1", LaunchTime: new(born), State: &ec2api.InstanceState{Name: "pending", Code: new(int64(0))}, Tags: []*ec2api.Tag{{Key: "k"}}}}}, nil
}

func (e *echo) DeleteVpc(context.Context, *ec2api.DeleteVpcRequest) error { return nil }

func (e *echo) SendCommand(_ context.Context, in *ssmapi.SendCommandRequest) (*ssmapi.SendCommandResult, error) {
	e.send = in
	return &ssmapi.SendCommandResult{Command: &ssmapi.Command{CommandId: "c-1", Parameters: in.Parameters, RequestedDateTime: new(born), TargetCount: new(int64(2))}}, nil
}

func (e *echo) GetParameter(_ context.Context, in *ssmapi.GetParameterRequest) (*ssmapi.GetParameterResult, error) {
	return nil, &wire.Error{Code: "ParameterNotFound", Message: "no " + in.Name}
}

type whoami struct{}

func (whoami) GetCallerIdentity(ctx context.Context, _ *stsapi.GetCallerIdentityRequest) (*stsapi.GetCallerIdentityResponse, error) {
	c, _ := wire.CallerFrom(ctx)
	return &stsapi.GetCallerIdentityResponse{Account: c.Account, Arn: c.ARN, UserId: c.RequestID}, nil
}

type endpoint struct {
	*httptest.Server
	wire  *wire.Server
	echo  *echo
	clock *testClock
	cfg   aws.Config
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{echo: &echo{}, clock: &testClock{now: time.Now()}}
	bus := wire.NewBus()
	bus.Register(autoscalingapi.Model, e.echo)
	bus.Register(ssmapi.Model, e.echo)
	bus.Register(ec2api.Model, e.echo)
	bus.Register(stsapi.Model, whoami{})
	e.wire = wire.NewServer(bus, oneKey{}, rootOnly{}, slog.New(slog.NewTextHandler(io.Discard, nil)), e.clock)
	e.wire.Region = "local-1"
	e.Server = httptest.NewServer(e.wire)
	t.Cleanup(e.Close)
	e.cfg = aws.Config{
		Region: "local-1", BaseEndpoint: aws.String(e.URL), Credentials: static(keyID, secret, ""),
		Retryer: func() aws.Retryer { return aws.NopRetryer{} },
	}
	return e
}

func static(id, secret, token string) aws.CredentialsProvider {
	return aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: id, SecretAccessKey: secret, SessionToken: token}, nil
	})
}

func code(err error) string {
	if e, ok := errors.AsType[smithy.APIError](err); ok {
		return e.ErrorCode()
	}
	return ""
}

func TestQueryRoundTrip(t *testing.T) {
	e := newEndpoint(t)
	c := autoscaling.NewFromConfig(e.cfg)
	_, err := c.CreateAutoScalingGroup(t.Context(), &autoscaling.CreateAutoScalingGroupInput{
		AutoScalingGroupName: aws.String("web"), MinSize: aws.Int32(0), MaxSize: aws.Int32(45),
		TargetGroupARNs: []string{"arn:1", "arn:2"}, NewInstancesProtectedFromScaleIn: aws.Bool(true), AvailabilityZones: []string{},
		LaunchTemplate: &astypes.LaunchTemplateSpecification{LaunchTemplateId: aws.String("lt-1"), Version: aws.String("1")},
		Tags:           []astypes.Tag{{Key: aws.String("a=b&c"), Value: aws.String("ü %20+"), PropagateAtLaunch: aws.Bool(false)}},
		LifecycleHookSpecificationList: []astypes.LifecycleHookSpecification{
			{LifecycleHookName: aws.String("h"), LifecycleTransition: aws.String("autoscaling:EC2_INSTANCE_LAUNCHING"), HeartbeatTimeout: aws.Int32(60)},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	g := e.echo.group
	if g.AutoScalingGroupName != "web" || *g.MinSize != 0 || *g.MaxSize != 45 || !slices.Equal(g.TargetGroupARNs, []string{"arn:1", "arn:2"}) ||
		!*g.NewInstancesProtectedFromScaleIn || g.LaunchTemplate.Version != "1" || g.Tags[0].Key != "a=b&c" || g.Tags[0].Value != "ü %20+" ||
		*g.Tags[0].PropagateAtLaunch || *g.LifecycleHookSpecificationList[0].HeartbeatTimeout != 60 || g.DesiredCapacity != nil {
		t.Errorf("decoded %+v", g)
	}
	if g.AvailabilityZones == nil || len(g.AvailabilityZones) != 0 {
		t.Errorf("an empty list became %#v", g.AvailabilityZones)
	}
	out, err := c.DescribeAutoScalingGroups(t.Context(), &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{"x", "y"}})
	if err != nil {
		t.Fatal(err)
	}
	got := out.AutoScalingGroups[1]
	if len(out.AutoScalingGroups) != 2 || *got.AutoScalingGroupName != "y" || !got.CreatedTime.Equal(born) || *got.MinSize != 1 ||
		!slices.Equal(got.AvailabilityZones, []string{"a", "b"}) || *got.Tags[0].Key != "k <&>\n" || got.Tags[0].Value == nil || !*got.Tags[0].PropagateAtLaunch {
		t.Errorf("encoded %+v", got)
	}
}

func TestErrorsReachClients(t *testing.T) {
	e := newEndpoint(t)
	as, sm := autoscaling.NewFromConfig(e.cfg), ssm.NewFromConfig(e.cfg)
	create := func(name string) error {
		_, err := as.CreateAutoScalingGroup(t.Context(), &autoscaling.CreateAutoScalingGroupInput{AutoScalingGroupName: &name, MinSize: aws.Int32(0), MaxSize: aws.Int32(1)})
		return err
	}
	describe := func(name string) error {
		_, err := as.DescribeAutoScalingGroups(t.Context(), &autoscaling.DescribeAutoScalingGroupsInput{AutoScalingGroupNames: []string{name}})
		return err
	}
	if err := create("taken"); code(err) != "AlreadyExists" {
		t.Errorf("a service's error came as %v", err)
	} else if _, ok := errors.AsType[*astypes.AlreadyExistsFault](err); !ok {
		t.Errorf("it is not typed: %v", err)
	}
	for _, name := range []string{"panic", "error"} {
		if err := describe(name); code(err) != "InternalFailure" || strings.Contains(err.Error(), "secret detail") {
			t.Errorf("%s came as %v", name, err)
		}
	}
	_, err := as.StartInstanceRefresh(t.Context(), &autoscaling.StartInstanceRefreshInput{AutoScalingGroupName: aws.String("x")})
	if code(err) != "NotImplemented" || !strings.Contains(err.Error(), "autoscaling:StartInstanceRefresh") {
		t.Errorf("an operation that is not there came as %v", err)
	}
	_, err = sm.GetParameter(t.Context(), &ssm.GetParameterInput{Name: aws.String("/x")})
	if nf, ok := errors.AsType[*ssmtypes.ParameterNotFound](err); !ok || nf.ErrorMessage() != "no /x" {
		t.Errorf("a JSON error came as %v", err)
	}
	_, err = sm.ListDocuments(t.Context(), &ssm.ListDocumentsInput{})
	if code(err) != "NotImplemented" {
		t.Errorf("a JSON operation that is not there came as %v", err)
	}
}

func TestJSONRoundTrip(t *testing.T) {
	e := newEndpoint(t)
	out, err := ssm.NewFromConfig(e.cfg).SendCommand(t.Context(), &ssm.SendCommandInput{
		DocumentName: aws.String("AWS-RunShellScript"), InstanceIds: []string{"i-1", "i-2"}, TimeoutSeconds: aws.Int32(60),
		Parameters: map[string][]string{"commands": {"echo \"<é>\"", ""}}, Targets: []ssmtypes.Target{{Key: aws.String("tag:a"), Values: []string{"b"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	in := e.echo.send
	if in.DocumentName != "AWS-RunShellScript" || len(in.InstanceIds) != 2 || *in.TimeoutSeconds != 60 || in.Parameters["commands"][0] != "echo \"<é>\"" || in.Targets[0].Values[0] != "b" {
		t.Errorf("decoded %+v", in)
	}
	if c := out.Command; *c.CommandId != "c-1" || len(c.Parameters["commands"]) != 2 || !c.RequestedDateTime.Equal(born) || c.TargetCount != 2 {
		t.Errorf("encoded %+v", c)
	}
}

func TestAuthentication(t *testing.T) {
	e := newEndpoint(t)
	e.clock.now = time.Now()
	tests := []struct {
		name           string
		id, secret, tk string
		skew           time.Duration
		query, json    string // error codes
	}{
		{"right", keyID, secret, "", 0, "", ""},
		{"fourteen minutes late", keyID, secret, "", 14 * time.Minute, "", ""},
		{"wrong secret", keyID, "x", "", 0, "SignatureDoesNotMatch", "InvalidSignatureException"},
		{"unknown key", "AKIAX", secret, "", 0, "InvalidClientTokenId", "UnrecognizedClientException"},
		{"sixteen minutes late", keyID, secret, "", 16 * time.Minute, "SignatureDoesNotMatch", "InvalidSignatureException"},
		{"sixteen minutes early", keyID, secret, "", -16 * time.Minute, "SignatureDoesNotMatch", "InvalidSignatureException"},
		{"old token", "ASIAX", "x", "old", 0, "ExpiredToken", "ExpiredTokenException"},
		{"wrong token", "ASIATEMPORARY", "temporary", "bad", 0, "InvalidClientTokenId", "UnrecognizedClientException"},
		{"denied", "ASIATEMPORARY", "temporary", "good/token+==", 0, "AccessDenied", "AccessDeniedException"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e.clock.move(tt.skew)
			defer e.clock.move(-tt.skew)
			cfg := e.cfg.Copy()
			cfg.Credentials = static(tt.id, tt.secret, tt.tk)
			// The SDK corrects its clock after a skew; once must be enough here.
			cfg.Retryer = func() aws.Retryer { return retry.AddWithMaxAttempts(aws.NopRetryer{}, 1) }
			_, err := sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
			if code(err) != tt.query || err != nil && tt.query == "" {
				t.Errorf("query: got %v, want %q", err, tt.query)
			}
			_, err = ssm.NewFromConfig(cfg).SendCommand(t.Context(), &ssm.SendCommandInput{DocumentName: aws.String("x")})
			if code(err) != tt.json || err != nil && tt.json == "" {
				t.Errorf("json: got %v, want %q", err, tt.json)
			}
		})
	}
}

// send signs a request by hand, so that the parts can be spoiled after.
func (e *endpoint) send(t *testing.T, service, contentType, body string, spoil func(*http.Request)) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, e.URL+"/", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	if err := v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: keyID, SecretAccessKey: secret}, r, sum(body), service, "local-1", e.clock.Now()); err != nil {
		t.Fatal(err)
	}
	if spoil != nil {
		spoil(r)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	if resp.Header.Get("X-Amzn-Requestid") == "" {
		t.Error("the answer has no request id")
	}
	return resp.StatusCode, string(b)
}

func TestRequestsThatMustFail(t *testing.T) {
	e := newEndpoint(t)
	const form = "application/x-www-form-urlencoded"
	const who = "Action=GetCallerIdentity&Version=2011-06-15"
	tests := []struct {
		name, service, contentType, body string
		spoil                            func(*http.Request)
		status                           int
		want                             string
	}{
		{"good", "sts", form, who, nil, 200, "<GetCallerIdentityResult>"},
		{"other body", "sts", form, who, func(r *http.Request) {
			r.Body = io.NopCloser(strings.NewReader(who + "&"))
			r.ContentLength++
		}, 403, "SignatureDoesNotMatch"},
		{"no signature", "sts", form, who, func(r *http.Request) { r.Header.Del("Authorization") }, 403, "MissingAuthenticationToken"},
		{"other algorithm", "sts", form, who, func(r *http.Request) { r.Header.Set("Authorization", "AWS "+keyID+":x") }, 400, "IncompleteSignature"},
		{"no date", "sts", form, who, func(r *http.Request) { r.Header.Del("X-Amz-Date") }, 400, "IncompleteSignature"},
		{"unsigned header", "sts", form, who, func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "t") }, 403, "not signed"},
		{"other path", "sts", form, who, func(r *http.Request) { r.URL.Path = "/x" }, 403, "SignatureDoesNotMatch"},
		{"other query", "sts", form, who, func(r *http.Request) { r.URL.RawQuery = "a=b" }, 403, "SignatureDoesNotMatch"},
		{"other method", "sts", form, who, func(r *http.Request) { r.Method = "PUT" }, 403, "SignatureDoesNotMatch"},
		{"unknown service", "sqs", form, "Action=X", nil, 501, "does not implement the service sqs"},
		{"unknown action", "sts", form, "Action=Nope&Version=2011-06-15", nil, 400, "InvalidAction"},
		{"no action", "sts", form, "Version=2011-06-15", nil, 400, "MissingAction"},
		{"other version", "sts", form, "Action=GetCallerIdentity&Version=2010-01-01", nil, 400, "NoSuchVersion"},
		{"unknown parameter", "sts", form, who + "&Foo.1.Bar=x", nil, 400, "The parameter Foo.1.Bar is not recognized"},
		{"twice", "autoscaling", form, "Action=CreateAutoScalingGroup&Version=2011-01-01&MinSize=1&MinSize=2", nil, 400, "more than once"},
		{"missing", "autoscaling", form, "Action=CreateAutoScalingGroup&Version=2011-01-01&MinSize=1&MaxSize=1", nil, 400, "Value null at &#39;autoScalingGroupName&#39;"},
		{"no number", "autoscaling", form, "Action=CreateAutoScalingGroup&Version=2011-01-01&AutoScalingGroupName=a&MinSize=x&MaxSize=1", nil, 400, "is not an integer"},
		{"not a form", "sts", "text/plain", who, nil, 400, "MalformedQueryString"},
		{"too long", "sts", form, who + "&X=" + strings.Repeat("x", 1<<20), nil, 413, "RequestEntityTooLarge"},
		{"ec2 not there", "ec2", form, "Action=DescribeVpcs&Version=2016-11-15", nil, 501, "ec2:DescribeVpcs"},
		{"ec2 unknown", "ec2", form, "Action=Nope&Version=2016-11-15", nil, 400, "<Response><Errors><Error><Code>InvalidAction</Code>"},
		{"ec2 spoiled", "ec2", form, "Action=DescribeVpcs&Version=2016-11-15", func(r *http.Request) { r.Method = "PUT" }, 401, "AuthFailure"},
		{"no S3", "s3", form, "", func(r *http.Request) {}, 400, "x-amz-content-sha256"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, body := e.send(t, tt.service, tt.contentType, tt.body, tt.spoil)
			if status != tt.status || !strings.Contains(body, tt.want) {
				t.Errorf("got %d %.500s, want %d with %q", status, body, tt.status, tt.want)
			}
		})
	}
	// The region of the scope.
	r, _ := http.NewRequest(http.MethodPost, e.URL, strings.NewReader(""))
	v4.NewSigner().SignHTTP(t.Context(), aws.Credentials{AccessKeyID: keyID, SecretAccessKey: secret}, r, sum(""), "ec2", "us-east-1", e.clock.Now())
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if !strings.Contains(string(b), "this one is &#39;local-1&#39;") {
		t.Errorf("another region's request got %s", b)
	}
}

func TestEC2RoundTrip(t *testing.T) {
	e := newEndpoint(t)
	status, body := e.send(t, "ec2", "application/x-www-form-urlencoded; charset=utf-8", "Action=RunInstances&Version=2016-11-15&MinCount=1&MaxCount=45&ImageId=ami-1&UserData=aGk%3D"+
		"&SecurityGroupId.1=sg-1&SecurityGroupId.2=sg-2&BlockDeviceMapping.1.Ebs.VolumeSize=8&BlockDeviceMapping.1.DeviceName=%2Fdev%2Fxvda&MetadataOptions.HttpTokens=required"+
		"&IamInstanceProfile.Name=web&LaunchTemplate.LaunchTemplateId=lt-1&NetworkInterface.1.SubnetId=subnet-1&NetworkInterface.1.SecurityGroupId.1=sg-3"+
		"&TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=k&TagSpecification.1.Tag.1.Value=&ClientToken=x", nil)
	if status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	in := e.echo.run
	if *in.MaxCount != 45 || in.ImageId != "ami-1" || in.UserData != "aGk=" || !slices.Equal(in.SecurityGroupIds, []string{"sg-1", "sg-2"}) || *in.BlockDeviceMappings[0].Ebs.VolumeSize != 8 ||
		in.MetadataOptions.HttpTokens != "required" || in.IamInstanceProfile.Name != "web" || in.LaunchTemplate.LaunchTemplateId != "lt-1" || in.NetworkInterfaces[0].Groups[0] != "sg-3" ||
		in.TagSpecifications[0].Tags[0].Key != "k" || in.ClientToken != "x" {
		t.Errorf("decoded %+v", in)
	}
	for _, want := range []string{
		`<RunInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15"><requestId>`, "<instancesSet><item>", "<instanceId>i-1</instanceId>", "<launchTime>2026-01-02T03:04:05.678Z</launchTime>",
		"<instanceState><code>0</code><name>pending</name></instanceState>", "<tagSet><item><key>k</key><value></value></item></tagSet>", "<reservationId>r-1</reservationId>", "<groupSet/>",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("no %s in %s", want, body)
		}
	}
	if _, body := e.send(t, "ec2", "application/x-www-form-urlencoded", "Action=DeleteVpc&Version=2016-11-15&VpcId=vpc-1", nil); !strings.Contains(body, "<return>true</return></DeleteVpcResponse>") {
		t.Errorf("an answer without a body: %s", body)
	}
	if _, body := e.send(t, "ec2", "application/x-www-form-urlencoded", "Action=RunInstances&Version=2016-11-15&MinCount=1", nil); !strings.Contains(body, "<Code>MissingParameter</Code><Message>The request must contain the parameter MaxCount</Message>") {
		t.Errorf("a missing parameter: %s", body)
	}
}

type limit struct{}

func (limit) Allow(_ wire.Caller, service, op string, _ any) error {
	return &wire.Error{Code: "Throttling", Message: service + ":" + op}
}

func TestLimiterAndPresigned(t *testing.T) {
	e := newEndpoint(t)
	p := sts.NewPresignClient(sts.NewFromConfig(e.cfg))
	req, err := p.PresignGetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	if err != nil {
		t.Fatal(err)
	}
	get := func(url string) (int, string) {
		r, _ := http.NewRequestWithContext(t.Context(), req.Method, url, nil)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(b)
	}
	url := req.URL
	if status, body := get(url); status != 200 {
		t.Errorf("presigned: %d %s", status, body)
	}
	if status, body := get(url + "&Foo=1"); status != 403 {
		t.Errorf("presigned and changed: %d %s", status, body)
	}
	e.clock.move(24 * time.Hour)
	if status, body := get(url); status != 403 || !strings.Contains(body, "expired") {
		t.Errorf("presigned and late: %d %s", status, body)
	}
	e.clock.move(-24 * time.Hour)
	e.wire.Limiter = limit{}
	if _, err := sts.NewFromConfig(e.cfg).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{}); code(err) != "Throttling" {
		t.Errorf("limited: %v", err)
	}
}
