package bake

import (
	"io/fs"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
)

func sample() (*blueprint.Blueprint, fstest.MapFS) {
	b := &blueprint.Blueprint{Name: "shop"}
	b.Image = blueprint.Image{Base: "debian-12", Role: "web", Type: "t3.medium", Verify: []string{"verify/a.sh", "verify/b.sh"}}
	b.Image.Puppet = blueprint.Puppet{Code: "puppet/", Environment: "production", Role: "web", MaxRuns: 5, Deadline: time.Hour}
	b.Handoff = blueprint.Handoff{Run: "deploy/deploy", Service: "/srv/shop", User: "shop", Ready: "http://:8080/", Deadline: time.Minute}
	files := fstest.MapFS{}
	for _, p := range []string{"puppet/a", "puppet/b", "deploy/deploy", "verify/a.sh", "verify/b.sh", "fleet.yaml", "suites/api.sh", "dayfly.yaml"} {
		files[p] = &fstest.MapFile{Data: []byte(p), Mode: 0o644}
	}
	return b, files
}

// Whatever changes an image, or what proves it, makes it another one; whatever
// does not, does not.
func TestDigest(t *testing.T) {
	type inputs struct {
		b       *blueprint.Blueprint
		files   fstest.MapFS
		base    string
		agent   string
		version string
		probe   string
	}
	of := func(t *testing.T, change func(*inputs)) string {
		t.Helper()
		in := inputs{base: "ami-1", agent: "agent"}
		in.b, in.files = sample()
		if change != nil {
			change(&in)
		}
		d, err := digest(in.b, in.files, in.base, in.version, []byte(in.agent), []byte(in.probe))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	body := func(file, s string) func(*inputs) {
		return func(in *inputs) { in.files[file] = &fstest.MapFile{Data: []byte(s), Mode: 0o644} }
	}
	plain := of(t, nil)
	seen := map[string]string{plain: "nothing"}
	for name, change := range map[string]func(*inputs){
		"base image":            func(in *inputs) { in.base = "ami-2" },
		"agent":                 func(in *inputs) { in.agent = "another" },
		"blueprint's name":      func(in *inputs) { in.b.Name = "market" },
		"Puppet code":           body("puppet/a", "changed"),
		"new Puppet file":       body("puppet/c", ""),
		"Puppet file gone":      func(in *inputs) { delete(in.files, "puppet/b") },
		"Puppet file elsewhere": func(in *inputs) { in.files["deploy/b"] = in.files["puppet/b"]; delete(in.files, "puppet/b") },
		"Puppet file's mode":    func(in *inputs) { in.files["puppet/a"].Mode = fs.FileMode(0o755) },
		"Puppet environment":    func(in *inputs) { in.b.Image.Puppet.Environment = "test" },
		"Puppet role":           func(in *inputs) { in.b.Image.Puppet.Role = "db" },
		"Puppet server":         func(in *inputs) { in.b.Image.Puppet.Code, in.b.Image.Puppet.Server = "", "puppet.corp.example" },
		"server's version": func(in *inputs) {
			in.b.Image.Puppet.Code, in.b.Image.Puppet.Server, in.version = "", "puppet.corp.example", "2"
		},
		"server's CA": func(in *inputs) {
			in.b.Image.Puppet.Code, in.b.Image.Puppet.Server, in.b.Image.Puppet.Fingerprint = "", "puppet.corp.example", "AB"
		},
		"role":                 func(in *inputs) { in.b.Image.Role = "db" },
		"deploy script":        body("deploy/deploy", "changed"),
		"file beside it":       body("deploy/lib", ""),
		"deploy script's name": func(in *inputs) { in.b.Handoff.Run = "deploy/other"; in.files["deploy/other"] = &fstest.MapFile{} },
		"service":              func(in *inputs) { in.b.Handoff.Service = "/srv/other" },
		"service's user":       func(in *inputs) { in.b.Handoff.User = "root" },
		"readiness":            func(in *inputs) { in.b.Handoff.Ready = "tcp://:1" },
		"hand-off's deadline":  func(in *inputs) { in.b.Handoff.Deadline = time.Hour },
		"check":                body("verify/a.sh", "changed"),
		"a check less":         func(in *inputs) { in.b.Image.Verify = in.b.Image.Verify[:1] },
		"order of checks":      func(in *inputs) { in.b.Image.Verify = []string{"verify/b.sh", "verify/a.sh"} },
	} {
		d := of(t, change)
		if other, ok := seen[d]; ok {
			t.Errorf("%s: the same image as with %s changed", name, other)
		}
		seen[d] = name
	}
	for name, change := range map[string]func(*inputs){
		"templates":            body("fleet.yaml", "changed"),
		"suites":               body("suites/api.sh", "changed"),
		"the rest of the file": body("dayfly.yaml", "changed"),
		"builder's type":       func(in *inputs) { in.b.Image.Type = "t3.large" },
		"patience":             func(in *inputs) { in.b.Image.Puppet.Deadline, in.b.Image.Puppet.MaxRuns = time.Minute, 9 },
		"keeping failures":     func(in *inputs) { in.b.Image.KeepFailed = time.Hour },
		"name of the base":     func(in *inputs) { in.b.Image.Base = "/aws/service/x" },
		"what a release is":    func(in *inputs) { in.b.Release.Box = "https://box" },
		"sizes":                func(in *inputs) { in.b.Environments = map[string]blueprint.Environment{"dev": {Size: 9}} },
		"bits of the mode":     func(in *inputs) { in.files["puppet/a"].Mode = fs.FileMode(0o600) },
		"once more":            nil,
	} {
		if of(t, change) != plain {
			t.Errorf("%s made another image", name)
		}
	}
	if _, err := digest(&blueprint.Blueprint{Image: blueprint.Image{Verify: []string{"nowhere"}}}, fstest.MapFS{}, "", "", nil, nil); err == nil {
		t.Error("a check that is not there has a digest")
	}
}

// A commit that does not touch the agent must not make every image anew: no
// version is stamped into it.
func TestAgentHasNoStamp(t *testing.T) {
	out, err := exec.Command("make", "-C", "../..", "-n", "build", "VERSION=stamp-of-this-commit").CombinedOutput()
	if err != nil {
		t.Skipf("make: %v: %s", err, out)
	}
	stamped, agents := false, 0
	for line := range strings.Lines(string(out)) {
		stamp := strings.Contains(line, "stamp-of-this-commit")
		stamped = stamped || stamp
		if strings.Contains(line, "./cmd/dayfly-agent") {
			agents++
			if stamp || !strings.Contains(line, "-trimpath") || !strings.Contains(line, "-buildvcs=false") {
				t.Errorf("the agent depends on the commit or the folder: %s", line)
			}
		}
	}
	if !stamped || agents != 1 {
		t.Errorf("this is not how things are built: %s", out)
	}
}
