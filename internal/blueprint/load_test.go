package blueprint

import (
	"bytes"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/dayfly-infra/dayfly/internal/environment"
)

const good = `name: shop
image:
  base: debian-12-slim
  puppet: { code: puppet/ }
  verify: [verify/smoke.sh]
release: { box: "http://box.example/shop" }
handoff: { run: deploy/deploy, service: /srv/shop/bin/shop, ready: "http://:8080/healthz", deadline: 2m }
environments:
  dev: { size: 45, lease: 24h }
  production: { size: 45, zones: 3, lease: 7d, parameters: { InstanceType: t3.small, Debug: true, Port: 80 } }
pipeline:
  - stage: check
    suites:
      - { name: api, run: suites/api.sh, size: 4 }
      - { name: looks, manual: "log in, place an order", lease: 8h }
  - stage: approve
    gate: { by: release-managers }
  - stage: production
    deploy: production
`

func folder(yaml string) fstest.MapFS {
	f := fstest.MapFS{}
	for _, n := range []string{"puppet/manifests/site.pp", "verify/smoke.sh", "deploy/deploy", "suites/api.sh", "fleet.yaml", "foundation.yaml"} {
		f[n] = &fstest.MapFile{Data: []byte(n), Mode: 0o644}
	}
	f["deploy/deploy"].Mode = 0o755
	f[File] = &fstest.MapFile{Data: []byte(yaml), Mode: 0o644}
	return f
}

func TestLoad(t *testing.T) {
	b, ps, err := Load(folder(good))
	if err != nil || len(ps) != 0 {
		t.Fatal(err, ps)
	}
	if e := b.Environments["production"]; e.Size != 45 || e.Lease != 7*24*time.Hour || e.Parameters["Debug"] != "true" || e.Parameters["Port"] != "80" {
		t.Errorf("production is %+v", e)
	}
	if b.Foundation != "foundation.yaml" || b.Image.Role != "shop" || b.Image.Puppet.MaxRuns != 5 {
		t.Errorf("defaults are wrong: %+v", b)
	}
	if len(b.Pipeline) != 3 || b.Pipeline[0].Suites[0].Size != 4 || b.Pipeline[1].Gate.By[0] != "release-managers" {
		t.Errorf("pipeline is %+v", b.Pipeline)
	}
	f := folder(good)
	delete(f, "foundation.yaml")
	if b, ps, _ := Load(f); b == nil || b.Foundation != "" {
		t.Errorf("a blueprint with one template must be fine: %v", ps)
	}
}

func TestStrategies(t *testing.T) {
	for yaml, want := range map[string]environment.Strategy{
		"lease: 24h":                 {Replace: "recreate"},
		"replace: recreate":          {Replace: "recreate"},
		"replace: blue-green":        {Replace: "blue-green", Steps: []int{1, 10, 50, 100}, Pause: 2 * time.Minute, Soak: 10 * time.Minute},
		"replace: rolling, soak: 0s": {Replace: "rolling", Steps: []int{25, 50, 75, 100}, Pause: 2 * time.Minute},
		"replace: { steps: [5, 100], pause: 1m, check: deploy/deploy, rollback: manual }, soak: 1h": {
			Replace: "blue-green", Steps: []int{5, 100}, Pause: time.Minute, Soak: time.Hour, Check: "deploy/deploy", Manual: true},
	} {
		b, ps, err := Load(folder(strings.Replace(good, "lease: 24h", yaml, 1)))
		if err != nil || len(ps) > 0 {
			t.Errorf("%s: %v %v", yaml, err, ps)
		} else if got := b.Environments["dev"].Strategy; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v", yaml, got)
		}
	}
	b, ps, err := Load(folder(strings.Replace(good, "lease: 24h", "lease: standing", 1)))
	if err != nil || len(ps) > 0 || !b.Environments["dev"].Standing {
		t.Errorf("standing: %v %v", err, ps)
	}
	f := folder(strings.Replace(good, "lease: 24h", "replace: rolling", 1))
	delete(f, "foundation.yaml")
	if b, ps, _ := Load(f); b != nil || len(ps) != 1 || !strings.Contains(ps[0].Message, "only recreate is possible") || ps[0].Line != 9 {
		t.Errorf("one template and rolling: %v", ps)
	}
}

func TestSurvive(t *testing.T) {
	for yaml, want := range map[string]int{
		"size: 45":                             45,
		"size: 45, survive: none":              45,
		"size: 45, zones: 3, survive: 1 zone":  69,
		"size: 46, zones: 3, survive: 1 zone":  69,
		"size: 1, zones: 2, survive: 1 zone":   2,
		"size: 45, zones: 3, survive: 2 zones": 135,
		"size: 45, zones: 6, survive: 1 zone":  54,
	} {
		b, ps, err := Load(folder(strings.Replace(good, "size: 45, lease: 24h", yaml, 1)))
		if err != nil || len(ps) > 0 || b.Environments["dev"].Instances() != want {
			t.Errorf("%s: %v %v", yaml, ps, err)
			continue
		}
		// What is left is enough, wherever they are.
		if e := b.Environments["dev"]; e.Instances()-e.Survive*((e.Instances()+e.Zones-1)/e.Zones) < e.Size {
			t.Errorf("%s: %d instances do not survive", yaml, e.Instances())
		}
	}
}

func TestLoadProblems(t *testing.T) {
	for _, c := range []struct{ name, from, to, want string }{
		{"strategy", "size: 45, lease: 24h", "size: 45, replace: green", `dayfly.yaml:9:29: environments.dev.replace cannot be "green"; valid: recreate, blue-green, rolling`},
		{"surviving with Puppet at boot", good, strings.Replace(strings.Replace(good, "code: puppet/ }", "server: p, role: web }\n  boot: puppet", 1), "size: 45, lease: 24h", "size: 45, survive: 1 zone", 1), `environments.dev.survive: with image.boot: puppet every instance needs the Puppet server`},
		{"nothing survives", "size: 45, lease: 24h", "size: 45, zones: 1, survive: 1 zone", `environments.dev.survive: 1 zone of 1 cannot be lost`},
		{"soak of recreate", "size: 45, lease: 24h", "size: 45, soak: 5m", `dayfly.yaml:9:20: environments.dev.soak: recreate deletes what served at once (replace: blue-green)`},
		{"check of recreate", "size: 45, lease: 24h", "size: 45, replace: { strategy: recreate, check: deploy/deploy }", `environments.dev.replace.check: recreate moves all traffic at once`},
		{"steps that fall", "size: 45, lease: 24h", "size: 45, replace: { steps: [50, 10, 100] }", `dayfly.yaml:9:38: environments.dev.replace.steps must rise, and end with 100 (such as [1, 10, 50, 100])`},
		{"steps without an end", "size: 45, lease: 24h", "size: 45, replace: { steps: [1, 10] }", `must rise, and end with 100`},
		{"a step of nothing", "size: 45, lease: 24h", "size: 45, replace: { steps: [0, 100] }", `environments.dev.replace.steps must be numbers from 1 to 100, not 0`},
		{"errors", "size: 45, lease: 24h", "size: 45, replace: { max_error_rate: many }", `environments.dev.replace.max_error_rate must be a share of 0.01 to 100 per cent`},
		{"a check that is not there", "size: 45, lease: 24h", "size: 45, replace: { check: suites/apis.sh }", `environments.dev.replace.check: there is no suites/apis.sh (did you mean "api.sh"?)`},
		{"unknown key of a strategy", "size: 45, lease: 24h", "size: 45, replace: { wait: 5m }", `there is no key "wait" in environments.dev.replace`},
		{"unknown key", "handoff: { run:", "handoff: { runs: x, run:", `dayfly.yaml:7:12: there is no key "runs" in handoff; valid: run, service, user, ready, deadline (did you mean "run"?)`},
		{"unknown top key", "release: {", "releases: {", `dayfly.yaml:6:1: there is no key "releases" here`},
		{"wrong type", "size: 45, lease: 24h", "size: many, lease: 24h", `dayfly.yaml:9:16: environments.dev.size must be a number, not a string`},
		{"out of range", "size: 45, lease: 24h", "size: 0, lease: 24h", `environments.dev.size must be from 1 to 1000, not 0`},
		{"bad duration", "lease: 24h", "lease: soon", `dayfly.yaml:9:27: environments.dev.lease must be a duration (write 30s, 10m, 24h or 7d)`},
		{"missing file", "deploy/deploy", "deploy/deplox", `dayfly.yaml:7:17: handoff.run: there is no deploy/deplox (did you mean "deploy"?)`},
		{"missing suite", "suites/api.sh", "suites/apis.sh", `dayfly.yaml:14:27: pipeline[0].suites[0].run: there is no suites/apis.sh (did you mean "api.sh"?)`},
		{"escape", "verify/smoke.sh", "../smoke.sh", `leads out of the folder`},
		{"bad box", `"http://box.example/shop"`, `box.example`, `release.box must be an address that begins with one of https:// http:// s3:// file:// git+https://`},
		{"a box's password", `"http://box.example/shop"`, `"git+https://me:secret@git.example/shop.git"`, `release.box holds a password`},
		{"a repository's flag", `"http://box.example/shop"`, `"git+https://git.example/shop.git", follow: --upload-pack=x`, `release.follow is latest, a branch, a tag or a whole commit`},
		{"a folder's branch", `"http://box.example/shop"`, `"http://box.example/shop", follow: release/1`, `release.follow is latest or the name of an artifact`},
		{"server's port", "code: puppet/", `server: "p:x"`, `image.puppet.server must be the name of the Puppet server`},
		{"server and code", "code: puppet/", `code: puppet/, server: p`, `has both code and server`},
		{"server's address", "code: puppet/", `server: p, address: here`, `image.puppet.address must be an IP address`},
		{"boot without a server", "code: puppet/ }", "code: puppet/ }\n  boot: puppet", `image.puppet has none`},
		{"boot with a role that no certname can have", "code: puppet/ }", "server: p, role: \"web::x\" }\n  boot: puppet", `which have no colon`},
		{"an exception without a reason", "code: puppet/ }", "code: puppet/ }\n  secrets_allow: [{ path: /etc/x.pem }]", `the exception for /etc/x.pem has no reason`},
		{"an exception for everything", "code: puppet/ }", "code: puppet/ }\n  secrets_allow: [{ path: /etc/, reason: x }]", `/etc/ is too much for an exception`},
		{"an exception as it was before", "code: puppet/ }", "code: puppet/ }\n  secrets_allow: [/etc/x.pem]", `must be a mapping`},
		{"server's CA", "code: puppet/", `server: p, ca_fingerprint: "00:11"`, `image.puppet.ca_fingerprint must be the SHA-256`},
		{"server's environment", "code: puppet/", `server: p, environment: "x y"`, `image.puppet.environment must be a Puppet environment's name`},
		{"server's role", "code: puppet/", `server: p, role: "a b"`, `image.puppet.role becomes pp_role`},
		{"server's versions", "code: puppet/", `server: p, version: "1", version_url: "http://box/VERSION"`, `has both version and version_url`},
		{"a version of code", "code: puppet/", `code: puppet/, version: "1"`, `image.puppet.version is for bakes with a server`},
		{"unknown environment", "deploy: production", "deploy: prod", `pipeline[2].deploy names "prod"`},
		{"twice", "name: shop\n", "name: shop\nname: shop\n", `already defined`},
		{"not yaml", "image:\n", "image: [\n", `this is not YAML`},
		{"not a mapping", good, "- 1\n", `the file must be a mapping, not a list`},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, ps, err := Load(folder(strings.Replace(good, c.from, c.to, 1)))
			if err != nil || b != nil {
				t.Fatal(b, err)
			}
			var all []string
			for _, p := range ps {
				all = append(all, p.String())
			}
			if !strings.Contains(strings.Join(all, "\n"), c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(all, "\n"), c.want)
			}
		})
	}
	if b, ps, err := Load(fstest.MapFS{}); b != nil || err != nil || len(ps) != 1 || !strings.Contains(ps[0].Hint, "dayfly init") {
		t.Error("an empty folder", ps, err)
	}
}

func TestPackIsDeterministicAndUnpacks(t *testing.T) {
	var a, b bytes.Buffer
	d1, err := Pack(folder(good), &a)
	if err != nil {
		t.Fatal(err)
	}
	f := folder(good)
	f[".git/x"] = &fstest.MapFile{Data: []byte("x")}
	f["deploy/deploy"].ModTime = time.Now()
	d2, err := Pack(f, &b)
	if err != nil || d1 != d2 {
		t.Fatalf("%s, %s: %v", d1, d2, err)
	}
	f["deploy/deploy"].Data = []byte("other")
	if d3, _ := Pack(f, &b); d3 == d1 {
		t.Error("another content has the same digest")
	}
	dir := t.TempDir()
	if err := Unpack(&a, dir); err != nil {
		t.Fatal(err)
	}
	if bp, ps, err := Load(os.DirFS(dir)); bp == nil {
		t.Error(ps, err)
	}
	if st, err := os.Stat(dir + "/deploy/deploy"); err != nil || st.Mode().Perm() != 0o755 {
		t.Error(st, err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(good)
	f.Add("a: &x {b: *x}")
	f.Add("name: !!str 1\nimage: ~")
	f.Fuzz(func(t *testing.T, s string) {
		b, ps, err := Load(folder(s))
		if err == nil && b == nil && len(ps) == 0 {
			t.Error("refused without a reason")
		}
	})
}

func TestFollow(t *testing.T) {
	load := func(image string) (*Blueprint, []Problem) {
		b, ps, err := Load(folder(strings.Replace(good, "size: 45, lease: 24h", "size: 45, lease: 24h, image: "+image, 1)))
		if err != nil {
			t.Fatal(err)
		}
		return b, ps
	}
	b, ps := load("shop/stable")
	if len(ps) > 0 || b.Environments["dev"].Image != "shop/stable" || b.Environments["dev"].Follow.Channel != "shop/stable" {
		t.Errorf("%v", ps)
	}
	b, ps = load(`{ channel: shop/stable, within: 2h, windows: ["mon-fri 09:00-16:00 Europe/Berlin"] }`)
	if f := b.Environments["dev"].Follow; len(ps) > 0 || f.Channel != "shop/stable" || f.Within != 2*time.Hour || len(f.Windows) != 1 || b.Environments["dev"].Image != "shop/stable" {
		t.Errorf("%+v %v", f, ps)
	}
	for image, want := range map[string]string{
		"other/stable":                           "must be a channel of this blueprint",
		`""`:                                     "must be a channel of this blueprint",
		"{ after: [dev] }":                       "must be a channel of this blueprint",
		"{ channel: shop/stable, wait: 1h }":     "no environment in which it could have run",
		"{ channel: shop/stable, after: [dev] }": "no other environment",
		"{ channel: shop/stable, after: [staging] }":          "no other environment",
		"{ channel: shop/stable, windows: [\"whenever\"] }":   "is not a window",
		"{ channel: shop/stable, windows: \"mon 9-10 UTC\" }": "are no hours",
		"{ channel: shop/stable, within: 1s }":                "must be from",
		"{ channel: shop/stable, afte: [x] }":                 `did you mean "after"`,
	} {
		_, ps := load(image)
		found := false
		for _, p := range ps {
			found = found || strings.Contains(p.String(), want) && p.Line > 0
		}
		if !found {
			t.Errorf("%s: %v, want %q", image, ps, want)
		}
	}
	circle := strings.Replace(good, "  dev: { size: 45, lease: 24h", "  one: { size: 1, image: { channel: shop/stable, after: [two] } }\n  two: { size: 1, image: { channel: shop/stable, after: [one] } }\n  dev: { size: 45, lease: 24h", 1)
	if _, ps, _ := Load(folder(circle)); len(ps) != 2 || !strings.Contains(ps[0].Message, "would wait for itself") {
		t.Errorf("%v", ps)
	}
}
