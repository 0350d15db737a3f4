package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

// cloudFake is metadata service, box, S3 and Auto Scaling at one address.
type cloudFake struct {
	*httptest.Server
	mu       sync.Mutex
	userData string
	objects  map[string][]byte
	secrets  map[string]string // SSM parameters
	box      http.HandlerFunc
	state    string   // lifecycle state; "" = in no group
	early    int      // so many completions come before the group waits
	done     []string // results of completions
	denied   bool     // autoscaling answers AccessDenied
	noDoc    bool     // no identity document
	calls    []string
	on       func(call string)
}

func newFake(t *testing.T) *cloudFake {
	f := &cloudFake{objects: map[string][]byte{}, state: "Pending:Wait"}
	f.Server = httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(f.Close)
	return f
}

func (f *cloudFake) serve(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, r.Method+" "+r.URL.Path)
	if f.on != nil {
		f.on(r.Method + " " + r.URL.Path)
	}
	p, imds := strings.CutPrefix(r.URL.Path, "/latest/")
	switch {
	case imds && r.Method == http.MethodPut:
		io.WriteString(w, "token")
		return
	case imds && r.Header.Get("X-aws-ec2-metadata-token") != "token":
		w.WriteHeader(401)
		return
	case strings.HasPrefix(r.URL.Path, "/box/"):
		f.box(w, r)
		return
	case r.Header.Get("Authorization") == "" && !imds:
		w.WriteHeader(403)
		return
	case strings.HasPrefix(r.URL.Path, "/bucket/"):
		f.s3(w, r)
		return
	case r.Header.Get("X-Amz-Target") == "AmazonSSM.GetParameter":
		var in struct {
			Name           string
			WithDecryption bool
		}
		if json.NewDecoder(r.Body).Decode(&in) != nil || !in.WithDecryption || f.secrets[in.Name] == "" {
			w.WriteHeader(400)
			io.WriteString(w, `{"__type":"ParameterNotFound","message":"no"}`)
			return
		}
		json.NewEncoder(w).Encode(map[string]any{"Parameter": map[string]string{"Value": f.secrets[in.Name]}})
		return
	case r.URL.Path == "/":
		f.autoscaling(w, r)
		return
	}
	answers := map[string]string{
		"dynamic/instance-identity/document":      `{"instanceId":"i-0123456789abcdef0","imageId":"ami-1","instanceType":"t3.micro","region":"local-1","availabilityZone":"local-1a","privateIp":"10.0.0.7"}`,
		"meta-data/instance-id":                   "i-0123456789abcdef0",
		"meta-data/ami-id":                        "ami-1",
		"meta-data/instance-type":                 "t3.micro",
		"meta-data/placement/region":              "local-1",
		"meta-data/placement/availability-zone":   "local-1a",
		"meta-data/local-ipv4":                    "10.0.0.7",
		"meta-data/iam/security-credentials/":     "role\n",
		"meta-data/iam/security-credentials/role": `{"AccessKeyId":"AKIA1","SecretAccessKey":"s","Token":"t","Expiration":"2999-01-01T00:00:00Z"}`,
		"user-data": f.userData,
		"meta-data/tags/instance/aws:autoscaling:groupName-never": "",
	}
	if f.noDoc {
		delete(answers, "dynamic/instance-identity/document")
	}
	body, ok := answers[p]
	if !ok || body == "" {
		w.WriteHeader(404)
		return
	}
	io.WriteString(w, body)
}

func (f *cloudFake) s3(w http.ResponseWriter, r *http.Request) {
	key := strings.TrimPrefix(r.URL.Path, "/bucket/")
	body, _ := io.ReadAll(r.Body)
	if sum := sha256.Sum256(body); r.Header.Get("X-Amz-Content-Sha256") != hex.EncodeToString(sum[:]) {
		w.WriteHeader(400)
		return
	}
	if r.Method == http.MethodPut {
		f.objects[key] = body
		return
	}
	if b, ok := f.objects[key]; ok {
		w.Write(b)
		return
	}
	w.WriteHeader(404)
	io.WriteString(w, "<Error><Code>NoSuchKey</Code><Message>it is not there</Message></Error>")
}

func (f *cloudFake) autoscaling(w http.ResponseWriter, r *http.Request) {
	fail := func(code string) {
		w.WriteHeader(400)
		fmt.Fprintf(w, "<ErrorResponse><Error><Type>Sender</Type><Code>%s</Code><Message>no &amp; no</Message></Error></ErrorResponse>", code)
	}
	switch action := r.FormValue("Action"); {
	case f.denied:
		fail("AccessDenied")
	case action == "DescribeAutoScalingInstances" && f.state != "":
		fmt.Fprintf(w, "<R><AutoScalingInstances><member><AutoScalingGroupName>g</AutoScalingGroupName><LifecycleState>%s</LifecycleState></member></AutoScalingInstances></R>", f.state)
	case action == "DescribeAutoScalingInstances":
		io.WriteString(w, "<R/>")
	case action == "CompleteLifecycleAction" && (f.early > 0 || f.state != "Pending:Wait"):
		f.early--
		fail("ValidationError")
	case action == "CompleteLifecycleAction" && r.FormValue("LifecycleHookName") == "launch" && r.FormValue("InstanceId") == "i-0123456789abcdef0":
		f.done = append(f.done, r.FormValue("LifecycleActionResult"))
	default:
		fail("InvalidAction")
	}
}

func (f *cloudFake) report(t *testing.T) handoff.Report {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	var r handoff.Report
	if err := json.Unmarshal(f.objects["handoff/dev/1/i-0123456789abcdef0.json"], &r); err != nil {
		t.Fatalf("no report: %v (objects %d)", err, len(f.objects))
	}
	return r
}

// logs are what the instance sent of them; what it sends later takes its place.
func (f *cloudFake) logs(t *testing.T) handoff.Logs {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	var l handoff.Logs
	if err := json.Unmarshal(f.objects["handoff/dev/1/logs/i-0123456789abcdef0.json"], &l); err != nil {
		t.Fatalf("no logs: %v (objects %d)", err, len(f.objects))
	}
	return l
}

func (f *cloudFake) completions() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string{}, f.done...)
}

var payload = bytes.Repeat([]byte("the release "), 20000)

func digestOf(b []byte) string {
	h := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(h[:])
}

func (f *cloudFake) launch(extra ...string) {
	f.userData = "#dayfly\nDAYFLY_RELEASE_URL=" + f.URL + "/box/shop-1.tar.gz\nDAYFLY_RELEASE_DIGEST=" + digestOf(payload) +
		"\nDAYFLY_ENVIRONMENT=dev\nDAYFLY_GENERATION=1\nDAYFLY_BUCKET=bucket\n" + strings.Join(extra, "\n")
}

func goodBox(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Length", fmt.Sprint(len(payload)))
	w.Write(payload)
}

// syncBuffer is a log that tests may read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func testAgent(t *testing.T, f *cloudFake, root string) (*Agent, *syncBuffer) {
	log := &syncBuffer{}
	env := map[string]string{"AWS_EC2_METADATA_SERVICE_ENDPOINT": f.URL, "AWS_ENDPOINT_URL": f.URL}
	return &Agent{Root: root, Env: func(k string) string { return env[k] }, Now: time.Now, Log: log, jitter: func() float64 { return 0 }}, log
}

// armedRoot is an image's file system with a hand-off.
func armedRoot(t *testing.T, script string, c handoff.Config) string {
	t.Helper()
	root := t.TempDir()
	put := func(p, body string, mode os.FileMode) {
		t.Helper()
		p = filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(body), mode); err != nil {
			t.Fatal(err)
		}
	}
	c.Run, c.Role, c.Image = "/usr/lib/dayfly/handoff/deploy", "web", "img"
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	put(handoff.ArmedFile, string(raw), 0o644)
	put(c.Run, "#!/bin/sh\nset -eu\n"+script, 0o755)
	put("/etc/hosts", "127.0.0.1 localhost\n10.0.0.9 old # dayfly\n", 0o644)
	return root
}
