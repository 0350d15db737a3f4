package blueprint

import (
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
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
