package blueprint

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/goccy/go-yaml/ast"
)

func TestExampleIsFine(t *testing.T) {
	for _, p := range Check(os.DirFS("../../examples/shop")) {
		t.Error(p)
	}
}

func TestScaffoldWorks(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "hello")
	if err := Scaffold(dir, "hello"); err != nil {
		t.Fatal(err)
	}
	for _, p := range Check(os.DirFS(dir)) {
		t.Error(p)
	}
	if err := Scaffold(dir, "hello"); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("a folder with files was taken: %v", err)
	}
	if err := Scaffold(t.TempDir(), "Bad Name"); err == nil {
		t.Error("a bad name was taken")
	}
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, _ error) error {
		if raw, err := os.ReadFile(p); !d.IsDir() && err == nil && strings.Contains(string(raw), "NAME") && filepath.Base(p) != "fleet.yaml" && filepath.Base(p) != "foundation.yaml" && filepath.Base(p) != "junit.sh" {
			t.Errorf("%s still holds NAME", p)
		}
		return nil
	})
}

func TestScaffoldInOddPlaces(t *testing.T) {
	for _, odd := range []string{"with space", "100%", `a"quote`, "NAME", "BOX", "a#b?c"} {
		dir := filepath.Join(t.TempDir(), odd, "hello")
		if err := Scaffold(dir, "hello"); err != nil {
			t.Fatal(err)
		}
		b, ps, err := Load(os.DirFS(dir))
		if b == nil {
			t.Errorf("%s: %v %v", odd, ps, err)
			continue
		}
		if u, err := url.Parse(b.Release.Box); err != nil || u.Path != filepath.Join(dir, "box") {
			t.Errorf("%s: the box is %s, %v", odd, b.Release.Box, err)
		}
	}
}

func TestCheckFindsWhatAFleetLacks(t *testing.T) {
	for _, c := range []struct{ name, file, from, to, want string }{
		{"no hook", "fleet.yaml", "LifecycleTransition: autoscaling:EC2_INSTANCE_LAUNCHING", "LifecycleTransition: autoscaling:EC2_INSTANCE_TERMINATING", "has no launch hook"},
		{"hook continues", "fleet.yaml", "DefaultResult: ABANDON", "DefaultResult: CONTINUE", "must not come into service"},
		{"tokens", "fleet.yaml", "HttpTokens: required, ", "", "needs HttpTokens: required"},
		{"tags", "fleet.yaml", "InstanceMetadataTags: enabled", "InstanceMetadataTags: disabled", "needs InstanceMetadataTags: enabled"},
		{"elb health", "fleet.yaml", "HealthCheckType: EC2", "HealthCheckType: ELB", "can empty a fleet"},
		{"no digest", "fleet.yaml", "  ReleaseDigest: { Type: String }\n", "", "the template has no parameter ReleaseDigest"},
		{"nobody gives it", "fleet.yaml", "  Profile: { Type: String }", "  Profile: { Type: String }\n  Subnetz: { Type: String }", "nobody gives the parameter Subnetz a value"},
		{"unknown type", "fleet.yaml", "Type: AWS::EC2::LaunchTemplate\n", "Type: AWS::EC2::LaunchTemplat\n", "LaunchTemplate"},
		{"circle", "foundation.yaml", "  Routes:\n    Type: AWS::EC2::RouteTable\n", "  Routes:\n    Type: AWS::EC2::RouteTable\n    DependsOn: RoutesA\n", "Circular"},
		{"no command", "dayfly.yaml", "\npipeline:\n", "\npipeline:\n  - { stage: first, suites: [{ name: first, run: suites/orders.sh }] }\n  - { stage: there, deploy: dev }\n  - { stage: ready, gate: { command: suites/order.sh } }\n", `did you mean "orders.sh"?`},
		{"no address", "foundation.yaml", "  Address: { Value: !Sub \"http://${Balancer.DNSName}\" }\n", "", "has no output Address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := fstest.MapFS{}
			src := os.DirFS("../../examples/shop")
			err := fs.WalkDir(src, ".", func(p string, d fs.DirEntry, err error) error {
				if err != nil || d.IsDir() {
					return err
				}
				raw, err := fs.ReadFile(src, p)
				if p == c.file {
					if !strings.Contains(string(raw), c.from) {
						t.Fatalf("%s does not hold %q", p, c.from)
					}
					raw = []byte(strings.Replace(string(raw), c.from, c.to, 1))
				}
				m[p] = &fstest.MapFile{Data: raw, Mode: 0o755}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			var all []string
			for _, p := range Check(m) {
				all = append(all, p.String())
			}
			if !strings.Contains(strings.Join(all, "\n"), c.want) {
				t.Errorf("got\n%s\nwant %s", strings.Join(all, "\n"), c.want)
			}
		})
	}
}

func TestPipelineProblems(t *testing.T) {
	for _, c := range []struct{ pipeline, want string }{
		{"[{ stage: a }]", "must have one of suites, gate and deploy, and has 0"},
		{"[{ stage: a, gate: { by: x }, deploy: dev }]", "and has 2"},
		{"[{ stage: a, deploy: dev }]", "deploys what no suite before it has tested"},
		{"[{ stage: a, gate: { by: x } }, { stage: a, gate: { by: x } }]", `two stages named "a"`},
		{"[{ stage: a, gate: {} }]", "must have one of by, results, metric and command, and has 0"},
		{"[{ stage: a, gate: { command: suites/api.sh } }]", "no stage before it deploys"},
		{"[{ stage: a, suites: [{ name: api, run: suites/api.sh }] }, { stage: b, gate: { command: suites/api.sh } }, { stage: c, deploy: dev }]", "pipeline[1].gate.command has nothing to run on"},
		{"[{ stage: a, suites: [{ name: api, run: suites/api.sh }] }, { stage: c, deploy: dev }, { stage: b, gate: { command: '' } }]", "must be a file in the folder"},
		{"[{ stage: a, suites: [{ name: api, run: suites/api.sh }] }, { stage: c, deploy: dev }, { stage: b, gate: { command: suites/api.sh, timeout: 2d } }]", "for 24h at most"},
		{"[{ stage: a, gate: { by: x, command: suites/api.sh } }]", "and has 2"},
		{"[{ stage: a, gate: { metric: { url: 'ftp://x', below: 1 } } }]", "must be an http:// or https:// address"},
		{"[{ stage: a, gate: { metric: { url: 'http://x' } } }]", "needs above or below"},
		{"[{ stage: a, gate: { metric: { url: 'http://x', below: soon } } }]", "below must be a number"},
		{"[{ stage: a, required: maybe, gate: { by: x } }]", "must be true or false"},
		{"[{ stage: a, suites: [{ name: api, run: suites/api.sh, shards: 51 }] }]", "from 1 to 50"},
		{"[{ stage: a, suites: [{ name: api, run: suites/api.sh, shards: 2 }, { name: api-s2, run: suites/api.sh }] }]", "would have the same name"},
		{"[{ stage: a, suites: [{ name: api, run: suites/api.sh, retries: 1 }, { name: api-t2, run: suites/api.sh }] }]", "would have the same name"},
		{"[{ stage: a, suites: [{ name: api, manual: '' }] }]", "must say what a person does"},
		{"[{ stage: a, suites: [{ name: api, manual: { checklist: [x] } }] }]", "must say what a person does"},
		{"[{ stage: a, suites: [{ name: api, manual: { steps: [x], chcklist: [x] } }] }]", `did you mean "checklist"?`},
		{"[{ stage: a, suites: [{ name: api, manual: look, retries: 1 }] }]", "is manual: it has no shards and no retries"},
		{"[{ stage: a, suites: [{ name: api, run: suites/api.sh, credentials: { DAYFLY_X: /a } }] }]", "cannot be the name of a variable"},
		{"[{ stage: a, suites: [{ name: api, run: suites/api.sh, credentials: { X: 'a b' } }] }]", "must be the name of an SSM parameter"},
		{"[]\nruns: { notify: [{ to: https://hooks.example/secret }] }", "must be the name of a secret of the server"},
		{"[]\nruns: { notify: [{ to: chat, on: [fail] }] }", "cannot have \"fail\""},
		{"[]\nruns: { supersede: sometimes }", "must be true or false"},
	} {
		src := "name: shop\nimage: { puppet: { code: puppet/ } }\nrelease: { box: 'https://b/x' }\nhandoff: { run: deploy/deploy, ready: 'http://:80/' }\nenvironments: { dev: { size: 1 } }\npipeline: " + c.pipeline + "\n"
		r := &reader{file: File, at: map[string]ast.Node{}}
		r.parse([]byte(src))
		var all []string
		for _, p := range r.problems {
			all = append(all, p.String())
		}
		if !strings.Contains(strings.Join(all, "\n"), c.want) {
			t.Errorf("%s: %s", c.pipeline, strings.Join(all, "\n"))
		}
	}
}
