package imds_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	sdk "github.com/aws/aws-sdk-go-v2/feature/ec2/imds"

	"github.com/dayfly-infra/dayfly/internal/region/imds"
	"github.com/dayfly-infra/dayfly/internal/region/state"
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

// cloud has instances by address.
type cloud struct {
	instances map[netip.Addr]imds.Instance
	creds     func(string) (imds.Credentials, error)
}

func (c *cloud) Instance(vpc string, a netip.Addr) (imds.Instance, bool) {
	in, ok := c.instances[a]
	return in, ok && vpc == "vpc-1"
}

func (c *cloud) Credentials(_ context.Context, id string) (imds.Credentials, error) {
	return c.creds(id)
}

var home = netip.MustParseAddr("127.0.0.1")

func instance() imds.Instance {
	return imds.Instance{
		ID: "i-0123456789abcdef0", ImageID: "ami-1", Type: "t3.small", Architecture: "x86_64", Account: "123456789012", Region: "local-1", Zone: "local-1a", ZoneID: "lcl1-az1",
		ReservationID: "r-1", LaunchTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), MAC: "02:00:00:00:00:01", InterfaceID: "eni-1",
		LocalIP: netip.MustParseAddr("10.0.0.5"), PublicIP: netip.MustParseAddr("198.18.0.5"), LocalHostname: "ip-10-0-0-5.local-1.compute.internal",
		VPC: "vpc-1", Subnet: "subnet-1", VPCCIDRs: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}, SubnetCIDR: netip.MustParsePrefix("10.0.0.0/24"),
		Groups: []imds.Group{{ID: "sg-1", Name: "web"}, {ID: "sg-2", Name: "ssh"}}, ProfileARN: "arn:aws:iam::123456789012:instance-profile/web", ProfileID: "AIPA1", Role: "webrole",
		TargetLifecycleState: "InService", UserData: []byte("#!/bin/sh\n\x00\xff"), Tags: map[string]string{"Name": "web", "a/b": "c"}, ShowTags: true, TokensRequired: true,
	}
}

type server struct {
	*httptest.Server
	cloud *cloud
	clock *testClock
}

func newServer(t *testing.T, change func(*imds.Instance), o imds.Options) *server {
	t.Helper()
	in := instance()
	if change != nil {
		change(&in)
	}
	s := &server{clock: &testClock{now: time.Now()}, cloud: &cloud{instances: map[netip.Addr]imds.Instance{home: in}}}
	s.cloud.creds = func(id string) (imds.Credentials, error) {
		return imds.Credentials{AccessKeyID: "ASIA1", SecretAccessKey: "s", SessionToken: "t " + id, Issued: s.clock.Now(), Expiration: s.clock.Now().Add(6 * time.Hour)}, nil
	}
	o.Key, o.Clock = []byte("0123456789abcdef0123456789abcdef"), s.clock
	s.Server = httptest.NewServer(imds.Handler("vpc-1", s.cloud, o))
	t.Cleanup(s.Close)
	return s
}

func (s *server) do(t *testing.T, method, path string, headers ...string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		if headers[i] == "Host" {
			r.Host = headers[i+1]
		}
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func (s *server) token(t *testing.T) string {
	t.Helper()
	status, tok := s.do(t, "PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60")
	if status != 200 {
		t.Fatalf("token: %d", status)
	}
	return tok
}

func TestSDK(t *testing.T) {
	s := newServer(t, nil, imds.Options{})
	c := sdk.New(sdk.Options{Endpoint: s.URL, EnableFallback: aws.FalseTernary, Retryer: aws.NopRetryer{}})
	ctx := t.Context()
	doc, err := c.GetInstanceIdentityDocument(ctx, nil)
	if err != nil || doc.InstanceID != "i-0123456789abcdef0" || doc.PrivateIP != "10.0.0.5" || doc.AvailabilityZone != "local-1a" || !doc.PendingTime.Equal(instance().LaunchTime) {
		t.Errorf("document: %+v, %v", doc, err)
	}
	region, err := c.GetRegion(ctx, nil)
	if err != nil || region.Region != "local-1" {
		t.Errorf("region: %+v, %v", region, err)
	}
	info, err := c.GetIAMInfo(ctx, nil)
	if err != nil || info.InstanceProfileArn != "arn:aws:iam::123456789012:instance-profile/web" {
		t.Errorf("IAM info: %+v, %v", info, err)
	}
	ud, err := c.GetUserData(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(ud.Content); string(b) != "#!/bin/sh\n\x00\xff" {
		t.Errorf("user data: %q", b)
	}
	creds, err := ec2rolecreds.New(func(o *ec2rolecreds.Options) { o.Client = c }).Retrieve(ctx)
	if err != nil || creds.AccessKeyID != "ASIA1" || creds.SessionToken != "t i-0123456789abcdef0" || !creds.CanExpire {
		t.Errorf("credentials: %+v, %v", creds, err)
	}
}

func TestTree(t *testing.T) {
	s := newServer(t, nil, imds.Options{})
	tok := s.token(t)
	for path, want := range map[string]string{
		"/":                                                    "1.0\n",
		"/latest":                                              "dynamic\nmeta-data\nuser-data",
		"/latest/":                                             "dynamic\nmeta-data\nuser-data",
		"/latest/meta-data/instance-id":                        "i-0123456789abcdef0",
		"/2021-07-15/meta-data/instance-id":                    "i-0123456789abcdef0",
		"/latest/meta-data/ami-id":                             "ami-1",
		"/latest/meta-data/instance-type":                      "t3.small",
		"/latest/meta-data/local-ipv4":                         "10.0.0.5",
		"/latest/meta-data/public-ipv4":                        "198.18.0.5",
		"/latest/meta-data/local-hostname":                     "ip-10-0-0-5.local-1.compute.internal",
		"/latest/meta-data/hostname":                           "ip-10-0-0-5.local-1.compute.internal",
		"/latest/meta-data/mac":                                "02:00:00:00:00:01",
		"/latest/meta-data/placement/":                         "availability-zone\navailability-zone-id\nregion",
		"/latest/meta-data/placement":                          "availability-zone\navailability-zone-id\nregion",
		"/latest/meta-data/placement/region":                   "local-1",
		"/latest/meta-data/security-groups":                    "web\nssh",
		"/latest/meta-data/iam":                                "info\nsecurity-credentials/",
		"/latest/meta-data/iam/security-credentials/":          "webrole",
		"/latest/meta-data/tags/":                              "instance/",
		"/latest/meta-data/tags/instance/":                     "Name\na/b",
		"/latest/meta-data/tags/instance/Name":                 "web",
		"/latest/meta-data/tags/instance/a/b":                  "c",
		"/latest/meta-data/autoscaling/target-lifecycle-state": "InService",
		"/latest/meta-data/network/interfaces/macs/":           "02:00:00:00:00:01/",
		"/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/subnet-id":                    "subnet-1",
		"/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/vpc-ipv4-cidr-blocks":         "10.0.0.0/16",
		"/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/security-group-ids":           "sg-1\nsg-2",
		"/latest/meta-data/network/interfaces/macs/02:00:00:00:00:01/ipv4-associations/198.18.0.5": "10.0.0.5",
		"/latest/dynamic/":                  "instance-identity/",
		"/latest/dynamic/instance-identity": "document",
	} {
		status, got := s.do(t, "GET", path, "X-aws-ec2-metadata-token", tok)
		if ok := got == want || path == "/" && strings.HasPrefix(got, want); status != 200 || !ok {
			t.Errorf("%s: %d %q, want %q", path, status, got, want)
		}
	}
	for _, path := range []string{"/nope", "/latest/nope", "/latest/meta-data/nope", "/latest/meta-data/instance-id/x", "/latest/meta-data/spot/instance-action", "/latest/meta-data/tags/instance/Nope", "/latest/dynamic/instance-identity/pkcs7", "//", "/latest/meta-data/iam/security-credentials/other"} {
		if status, got := s.do(t, "GET", path, "X-aws-ec2-metadata-token", tok); status != 404 {
			t.Errorf("%s: %d %q", path, status, got)
		}
	}
}

func TestWhatIsNotThere(t *testing.T) {
	s := newServer(t, func(in *imds.Instance) {
		in.ShowTags, in.UserData, in.ProfileARN, in.TargetLifecycleState, in.PublicIP, in.TokensRequired = false, nil, "", "", netip.Addr{}, false
	}, imds.Options{})
	for path, want := range map[string]int{
		"/latest/meta-data/instance-id": 200, // version 1
		"/latest/user-data":             404, "/latest/meta-data/tags": 404, "/latest/meta-data/iam/info": 404,
		"/latest/meta-data/autoscaling": 404, "/latest/meta-data/public-ipv4": 404,
	} {
		if status, got := s.do(t, "GET", path); status != want {
			t.Errorf("%s: %d %q", path, status, got)
		}
	}
}

func TestTokens(t *testing.T) {
	s := newServer(t, nil, imds.Options{})
	const path, ttl, tok = "/latest/meta-data/instance-id", "X-aws-ec2-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token"
	get := func(token string) int { status, _ := s.do(t, "GET", path, tok, token); return status }
	if status, _ := s.do(t, "GET", path); status != 401 {
		t.Errorf("without a token: %d", status)
	}
	for _, v := range []string{"", "0", "-1", "21601", "x"} {
		if status, _ := s.do(t, "PUT", "/latest/api/token", ttl, v); status != 400 {
			t.Errorf("a token for %q seconds: %d", v, status)
		}
	}
	if status, _ := s.do(t, "PUT", "/latest/api/token", ttl, "60", "X-Forwarded-For", "1.2.3.4"); status != 403 {
		t.Errorf("a token through a proxy: %d", status)
	}
	if status, _ := s.do(t, "GET", path, tok, s.token(t), "Host", "evil.example"); status != 403 {
		t.Errorf("another site's page: %d", status)
	}
	if status, _ := s.do(t, "POST", path); status != 405 {
		t.Errorf("a post: %d", status)
	}
	token := s.token(t)
	if got := get(token); got != 200 {
		t.Errorf("a good token: %d", got)
	}
	for _, bad := range []string{"x", token[:len(token)-4], "Z" + token[1:], token[:20] + "AAAA" + token[24:]} {
		if get(bad) != 401 {
			t.Errorf("the token %s was taken", bad)
		}
	}
	// A token is its instance's own.
	mine := s.cloud.instances[home]
	other := mine
	other.ID = "i-other"
	s.cloud.instances[home] = other
	if got := get(token); got != 401 {
		t.Errorf("another instance's token: %d", got)
	}
	s.cloud.instances[home] = mine
	s.clock.move(59 * time.Second)
	if got := get(token); got != 200 {
		t.Errorf("after 59 seconds: %d", got)
	}
	s.clock.move(2 * time.Second)
	if got := get(token); got != 401 {
		t.Errorf("after 61 seconds: %d", got)
	}
	delete(s.cloud.instances, home)
	if got := get(token); got != 404 {
		t.Errorf("an unknown address: %d", got)
	}
}

func TestRate(t *testing.T) {
	s := newServer(t, func(in *imds.Instance) { in.TokensRequired = false }, imds.Options{PerSecond: 2, Burst: 3})
	get := func() int { status, _ := s.do(t, "GET", "/latest/meta-data/mac"); return status }
	for i := range 3 {
		if got := get(); got != 200 {
			t.Errorf("request %d: %d", i, got)
		}
	}
	if got := get(); got != 503 {
		t.Errorf("one too many: %d", got)
	}
	s.clock.move(time.Second)
	if a, b, c := get(), get(), get(); a != 200 || b != 200 || c != 503 {
		t.Errorf("a second later: %d %d %d", a, b, c)
	}
}

func TestDisabledAndNoCredentials(t *testing.T) {
	s := newServer(t, func(in *imds.Instance) { in.Disabled = true }, imds.Options{})
	if status, _ := s.do(t, "PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "60"); status != 403 {
		t.Errorf("disabled: %d", status)
	}
	s = newServer(t, nil, imds.Options{})
	s.cloud.creds = func(string) (imds.Credentials, error) {
		return imds.Credentials{}, errors.New("AssumeRoleUnauthorizedAccess: EC2 cannot assume the role")
	}
	_, body := s.do(t, "GET", "/latest/meta-data/iam/security-credentials/webrole", "X-aws-ec2-metadata-token", s.token(t))
	var got struct{ Code string }
	if err := json.Unmarshal([]byte(body), &got); err != nil || got.Code != "AssumeRoleUnauthorizedAccess" {
		t.Errorf("no credentials: %s", body)
	}
}

func TestKeySurvives(t *testing.T) {
	file := t.TempDir() + "/db"
	var keys []string
	for range 2 {
		db, err := state.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		k, err := imds.Key(db)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, string(k))
		db.Close()
	}
	if len(keys[0]) != 32 || keys[0] != keys[1] {
		t.Error("the key changed")
	}
}
