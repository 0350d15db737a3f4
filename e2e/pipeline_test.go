package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

type run struct {
	Name, Phase, Image, Release string
	Passed                      bool
	Stages                      []struct {
		Name, Phase, Result, Why string
		Gate                     *struct {
			Command *struct {
				Environment, Instance, Output string
				Exit                          *int
			}
		}
	}
	Suites []struct {
		Name, Phase, Result, Error, Address, Image, Release string
		Passed, Failed, Try, Shard                          int
		Flaky                                               bool
		Manual                                              *struct{ Attachments []struct{ Name string } }
	}
	Blocker *struct{ Rule, Message, Action string }
	Clean   *struct {
		Seen, Left int
		Names      []string
	}
}

const pipelineText = `runs: { at_once: 7 }
pipeline:
  - stage: check
    suites:
      - { name: health, run: suites/health.sh, size: 2, timeout: 1m }
      - { name: shy, run: suites/shy.sh, size: 1, timeout: 1m, retries: 1 }
      - { name: parts, run: suites/parts.sh, size: 1, timeout: 1m, shards: 2, credentials: { SHOP_TOKEN: /shop/token } }
  - stage: look
    suites:
      - { name: page, size: 1, lease: 1h, manual: { steps: [open the page], checklist: [it says Shop] } }
  - stage: approve
    gate: { by: [nobody-of-this-name] }
  - stage: ship
    deploy: small
  - stage: ready
    gate: { command: gates/ready.sh, timeout: 1m }
`

// A pipeline from end to end on real instances: stages, a flaky suite, shards,
// a secret by file, a log that is followed, a tester, gates, a deploy of what
// was tested, and nothing left; and a run that is canceled in the middle.
func TestPipelineReal(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	if os.Geteuid() != 0 {
		t.Skip("real instances need root")
	}
	w := setup(t)
	head, _, _ := strings.Cut(w.read(t, "dayfly.yaml"), "pipeline:\n")
	w.write(t, "dayfly.yaml", head+pipelineText, 0o644)
	w.write(t, "suites/shy.sh", "#!/bin/sh\n. \"$(dirname \"$0\")/junit.sh\"\ncheck 'not at first' test \"$DAYFLY_TRY\" = 2\nfinish\n", 0o755)
	w.write(t, "suites/parts.sh", `#!/bin/sh
echo "shard $DAYFLY_SHARD of $DAYFLY_SHARDS in $DAYFLY_STAGE"
test "$(cat "$SHOP_TOKEN")" = tiger || exit 9
echo made >"$DAYFLY_RESULTS/part-$DAYFLY_SHARD.txt"
[ "$DAYFLY_SHARD" = 1 ] || exit 0
for i in 1 2 3 4 5 6; do echo "step $i"; sleep 1; done
`, 0o755)
	w.write(t, "gates/ready.sh", `#!/bin/sh -e
curl -fsS --max-time 5 "$DAYFLY_ADDRESS/" | grep '<title>'
echo "$(hostname) of $DAYFLY_ENVIRONMENT is ready"
`, 0o755)
	w.edit(t, "foundation.yaml", `              - { Effect: Allow, Action: ["s3:PutObject"]`, `              - { Effect: Allow, Action: ["ssm:GetParameter"], Resource: "*" }
              - { Effect: Allow, Action: ["s3:PutObject"]`)
	w.aws(t, "ssm", "put-parameter", "--name", "/shop/token", "--type", "SecureString", "--value", "tiger")

	var r run
	look := func() run {
		t.Helper()
		var v run
		w.json(t, &v, "run", "show", r.Name)
		return v
	}
	waits := func(rule string) {
		t.Helper()
		w.until(t, 4*time.Minute, func() error {
			v := look()
			if v.Phase == "done" {
				t.Fatalf("it is over: %+v", v)
			}
			if v.Blocker == nil || v.Blocker.Rule != rule {
				return fmt.Errorf("not waiting by %s: %+v", rule, v.Blocker)
			}
			return nil
		})
	}
	w.json(t, &r, "run", "start", w.shop, "--detach")
	w.until(t, 4*time.Minute, func() error { // its log can be read while it is written
		out, err := w.try("run", "logs", r.Name, "parts-s1")
		if v := look(); err == nil && strings.Contains(out, "step 1") && !strings.Contains(out, "step 6") {
			return nil
		} else if v.Phase == "done" {
			t.Fatalf("it is over: %+v", v)
		}
		return fmt.Errorf("no log yet: %v %s", err, out)
	})
	if out := w.must(t, "run", "logs", "--follow", r.Name, "parts-s1"); !strings.Contains(out, "shard 1 of 2 in check") || !strings.Contains(out, "step 6") {
		t.Errorf("the log is %s", out)
	}
	waits("manual-suites")
	v := look()
	for _, s := range v.Suites[:4] {
		if s.Result != "passed" || s.Image != v.Image || s.Release != v.Release || s.Flaky != (s.Name == "shy") {
			t.Errorf("%+v", s)
		}
	}
	page := v.Suites[4]
	if out, err := fetch(page.Address); err != nil || !strings.Contains(out, "Shop") {
		t.Errorf("the tester sees %q, %v", out, err)
	}
	if out := w.must(t, "why", r.Name); !strings.Contains(out, "dayfly run pass "+r.Name+" page") {
		t.Errorf("why says %s", out)
	}
	shot := filepath.Join(w.dir, "shot.png")
	if err := os.WriteFile(shot, []byte("a picture"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.fails(t, 2, []string{"it says Shop", "not checked"}, "run", "pass", r.Name, "page")
	w.must(t, "run", "pass", r.Name, "page", "--checked", "all", "--comment", "fine", "--attach", shot)
	waits("gate")
	w.fails(t, 1, []string{"nobody-of-this-name", "--override"}, "run", "approve", r.Name, "approve")
	w.must(t, "run", "approve", r.Name, "approve", "--override", "--comment", "nobody is there")
	if out, err := w.try("run", "watch", r.Name); err != nil || !strings.Contains(out, "left: 0") {
		t.Errorf("%v\n%s", err, out)
	}
	v = look()
	if !v.Passed || v.Clean == nil || v.Clean.Left != 0 || v.Clean.Seen == 0 || !strings.Contains(v.Stages[2].Why, "an administrator: nobody is there") {
		t.Errorf("%+v %+v", v, v.Clean)
	}
	if c := v.Stages[4].Gate.Command; c == nil || c.Exit == nil || *c.Exit != 0 || c.Environment != "shop-small" || !strings.Contains(c.Output, "<title>Shop</title>") || !strings.Contains(c.Output, " of shop-small is ready") {
		t.Errorf("the gate's command: %+v, %+v", v.Stages[4], c)
	}
	if out := w.must(t, "run", "show", r.Name); !strings.Contains(out, " of shop-small is ready") {
		t.Errorf("its output is not shown: %s", out)
	}
	got := filepath.Join(w.dir, "artifacts")
	w.must(t, "run", "artifacts", r.Name, "parts-s2", "--to", got)
	w.must(t, "run", "artifacts", r.Name, "page", "--to", got)
	for file, want := range map[string]string{"artifacts/part-2.txt": "made\n", "attachments/shot.png": "a picture"} {
		if raw, err := os.ReadFile(filepath.Join(got, file)); err != nil || string(raw) != want {
			t.Errorf("%s: %q, %v", file, raw, err)
		}
	}
	var e struct {
		Environment struct{ Image, Release, Phase, Address string }
	}
	w.json(t, &e, "env", "show", "shop-small")
	if e.Environment.Image != v.Image || e.Environment.Release != v.Release || e.Environment.Phase != "serving" {
		t.Errorf("deployed was %+v, tested %s %s", e, v.Image, v.Release)
	}
	w.fails(t, 1, []string{"the stage ship of the pipeline deploys this environment"}, "deploy", w.shop, "small")
	w.must(t, "env", "destroy", "shop-small")

	// Canceled while its environments come up: all of it goes.
	w.json(t, &r, "run", "start", w.shop, "--detach")
	w.until(t, time.Minute, func() error {
		if s := look().Suites[0]; s.Phase != "launching" {
			return fmt.Errorf("%+v", s)
		}
		return nil
	})
	w.must(t, "run", "cancel", r.Name)
	if v := look(); v.Passed || v.Clean == nil || v.Clean.Left != 0 || v.Suites[0].Result != "canceled" {
		t.Errorf("%+v %+v", v, v.Clean)
	}
	if raw, err := os.ReadFile(filepath.Join(w.dir, "server/server.log")); err != nil || bytes.Contains(raw, []byte("tiger")) {
		t.Errorf("the secret is in the log, or there is none: %v", err)
	}
	w.nothingLeft(t)
}

func (w *world) read(t *testing.T, file string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(w.shop, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func (w *world) write(t *testing.T, file, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(w.shop, file)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(w.shop, file), []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

// aws runs the AWS command line.
func (w *world) aws(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("/usr/bin/aws", append([]string{"--endpoint-url", "http://" + w.listen}, args...)...)
	cmd.Env = w.env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("aws %v: %v: %s", args, err, out)
	}
}
