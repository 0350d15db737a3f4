package control

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// piped is the description with another pipeline.
func piped(runs, pipeline string) string {
	head, _, _ := strings.Cut(description, "pipeline:\n")
	return head + runs + "pipeline:\n" + pipeline
}

const stagesText = `
  - stage: quick
    suites:
      - { name: api, run: suites/api.sh, size: 2, timeout: 2m }
  - stage: slow
    suites:
      - { name: load, run: suites/web.sh, size: 3, timeout: 2m }
      - { name: looks, manual: { steps: [log in, order], checklist: [it is blue, it is fast] }, size: 1, lease: 40m, lease_max: 70m }
  - stage: approve
    gate: { by: [ops], timeout: 20m }
  - stage: ship
    deploy: short
`

func (w *world) pipeline(description string) string {
	w.t.Helper()
	r, err := w.api.Test(w.t.Context(), server.Test{Files: w.pack(description), Full: true})
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Name
}

// as is what an administrator of that name asks.
func as(t *testing.T, name string) context.Context {
	return access.With(t.Context(), access.Principal{Name: name, Role: access.Admin})
}

func (w *world) runOf(name string) pipeline.Run { return get[pipeline.Run](w, pipeline.Kind, name) }

// until waits until a suite is in a phase.
func (w *world) until(run, suite string, phase pipeline.Phase) {
	w.t.Helper()
	w.wait(suite+" is "+string(phase), func() bool { r := w.runOf(run); return r.Suite(suite).Phase == phase })
}

func (w *world) blocked(run, rule string) {
	w.t.Helper()
	w.wait("the run waits by "+rule, func() bool { b := w.runOf(run).Blocker; return b != nil && b.Rule == rule })
}

func denied(t *testing.T, what string, err error, kind fault.Kind, want string) {
	t.Helper()
	if fault.KindOf(err) != kind || !strings.Contains(err.Error()+fault.HintOf(err), want) {
		t.Errorf("%s: %v", what, err)
	}
}

func TestPipeline(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		name := w.pipeline(piped("", stagesText))
		judge := func(d server.Decision) error {
			_, err := w.api.Judge(as(t, "eve"), name, "looks", d)
			return err
		}
		decide := func(by string, d server.Decision) error {
			_, err := w.api.Decide(as(t, by), name, "approve", d)
			return err
		}
		denied(t, "the stage is not there yet", judge(server.Decision{Passed: true}), fault.Conflict, "is not up")
		denied(t, "nor the gate", decide("ops", server.Decision{Passed: true}), fault.Conflict, "has not come to the gate")
		w.until(name, "api", pipeline.Running)
		if r := w.runOf(name); r.Suite("load").Phase != pipeline.Pending {
			t.Errorf("the second stage began beside the first: %+v", r.Suites)
		}
		w.until(name, "looks", pipeline.Waiting)
		w.blocked(name, "manual-suites")
		looks := w.runOf(name).Suites[2]
		if looks.Address == "" || looks.Manual.Until.IsZero() || len(looks.Manual.Steps) != 2 {
			t.Errorf("%+v %+v", looks, looks.Manual)
		}
		if why, err := w.api.Why(t.Context(), name); err != nil || !strings.Contains(fmt.Sprint(why), "dayfly run pass "+name+" looks") {
			t.Errorf("why: %v %v", why, err)
		}
		if _, err := w.api.Attach(t.Context(), name, "looks", "../x.png", []byte("x")); fault.KindOf(err) != fault.Invalid {
			t.Errorf("a path was taken: %v", err)
		}
		for _, body := range []string{"one", "two", "one"} {
			time.Sleep(time.Second)
			if _, err := w.api.Attach(t.Context(), name, "looks", "shot 1.png", []byte(body)); err != nil {
				t.Fatal(err)
			}
			if raw, err := w.api.Results(t.Context(), name, "looks", "attachments/shot 1.png"); err != nil || string(raw) != body {
				t.Errorf("%q, %v", raw, err)
			}
		}
		denied(t, "half a checklist", judge(server.Decision{Passed: true, Checked: []string{"it is blue"}}), fault.Invalid, `"it is fast" of the checklist is not checked`)
		denied(t, "another checklist", judge(server.Decision{Passed: true, Checked: []string{"it is red"}}), fault.Invalid, "no point")
		denied(t, "a failure without a word", judge(server.Decision{}), fault.Invalid, "needs a comment")
		if err := judge(server.Decision{Passed: true, Comment: "fine", Checked: []string{"it is blue", "it is fast"}}); err != nil {
			t.Fatal(err)
		}
		denied(t, "twice", judge(server.Decision{Passed: true}), fault.Conflict, "has its result")

		w.blocked(name, "gate")
		w.wait("the suites' instances and their foundation go while the gate waits", func() bool {
			f := get[environment.Foundation](w, environment.FoundationKind, name)
			return f.Phase == environment.Gone
		})
		r := w.runOf(name)
		for _, s := range r.Suites {
			if !s.OK() || s.Image != r.Image || s.Release != r.Release {
				t.Errorf("%+v", s)
			}
		}
		if e := get[environment.Environment](w, environment.Kind, "shop-short"); e.Name != "" {
			t.Errorf("it was deployed before anybody approved: %+v", e)
		}
		denied(t, "for others", decide("me", server.Decision{Passed: true}), fault.Denied, "--override")
		// A newer release and image come by: they are not what was tested.
		w.box.set(func(b *fakeBox) { b.body = "two" })
		if err := decide("ops", server.Decision{Passed: true, Comment: "go"}); err != nil {
			t.Fatal(err)
		}
		r = w.ended(name)
		if !r.Passed || r.Stage("approve").Why != "approved by ops: go" || r.Stage("ship").Result != pipeline.Passed {
			t.Errorf("%+v", r.Stages)
		}
		if r.Clean == nil || r.Clean.Left != 0 || r.Clean.Seen == 0 {
			t.Errorf("clean: %+v", r.Clean)
		}
		e := get[environment.Environment](w, environment.Kind, "shop-short")
		if e.Image != r.Image || e.Release != r.Release || e.Phase != environment.Serving || e.Size != 2 {
			t.Errorf("%+v", e)
		}
		_, err := w.api.Deploy(t.Context(), server.Deploy{Files: r.Files, Purpose: "short"})
		denied(t, "past the pipeline", err, fault.Denied, "--untested")
		if _, err := w.api.Deploy(t.Context(), server.Deploy{Files: r.Files, Purpose: "short", Untested: true}); err != nil {
			t.Error(err)
		}
		if _, err := w.api.Destroy(t.Context(), "shop-short"); err != nil {
			t.Fatal(err)
		}
		w.wait("it is gone", func() bool {
			return get[environment.Environment](w, environment.Kind, "shop-short").Phase == environment.Gone
		})
		w.nothingLeft()
	})
}

// How a pipeline can stop, and what is left undone.
func TestPipelineStops(t *testing.T) {
	pass := func(w *world, name string) {
		w.until(name, "looks", pipeline.Waiting)
		if _, err := w.api.Judge(w.t.Context(), name, "looks", server.Decision{Passed: true, Checked: []string{"it is blue", "it is fast"}}); err != nil {
			w.t.Fatal(err)
		}
	}
	fails := func(suite string) func(string) (string, cloud.CommandResult, time.Duration) {
		return func(name string) (string, cloud.CommandResult, time.Duration) {
			if name == suite {
				return `<testsuite><testcase name="a"><failure message="no"/></testcase></testsuite>`, cloud.CommandResult{Status: "Failed", ExitCode: 1}, time.Second
			}
			return passes, cloud.CommandResult{Status: "Success"}, time.Second
		}
	}
	for _, c := range []struct {
		name string
		do   func(w *world, run string)
		at   string
		why  string
		skip []string
	}{
		{"the first stage fails", func(w *world, _ string) { w.suite = fails("api") }, "quick", "failed: api", []string{"slow", "approve", "ship"}},
		{"the tester says no", func(w *world, run string) {
			w.until(run, "looks", pipeline.Waiting)
			if _, err := w.api.Judge(w.t.Context(), run, "looks", server.Decision{Comment: "it is red"}); err != nil {
				w.t.Fatal(err)
			}
		}, "slow", "failed: looks", []string{"approve", "ship"}},
		{"the tester goes home", func(w *world, run string) {
			w.until(run, "looks", pipeline.Waiting)
			w.wait("a warning", func() bool { return strings.Contains(w.runOf(run).Suites[2].Waits, "dayfly env extend") })
			if _, err := w.api.Extend(w.t.Context(), run+"-looks", server.Extend{Minutes: 40}); err != nil {
				w.t.Fatal(err)
			}
			w.wait("the longer lease shows", func() bool { return time.Until(w.runOf(run).Suites[2].Manual.Until) > 30*time.Minute })
		}, "slow", "failed: looks", []string{"approve", "ship"}},
		{"the gate is closed", func(w *world, run string) {
			pass(w, run)
			w.blocked(run, "gate")
			if _, err := w.api.Decide(as(w.t, "me"), run, "approve", server.Decision{Override: true, Comment: "not on Friday"}); err != nil {
				w.t.Fatal(err)
			}
		}, "approve", "rejected by me, an administrator: not on Friday", []string{"ship"}},
		{"nobody comes to the gate", pass, "approve", "nobody decided within 20m", []string{"ship"}},
		{"the environment belongs to others", func(w *world, run string) {
			pass(w, run)
			w.blocked(run, "gate")
			w.putEnv(environment.Environment{Name: "shop-short", Blueprint: "other", Phase: environment.Serving, Want: 1, Serving: 1})
			if _, err := w.api.Decide(as(w.t, "ops"), run, "approve", server.Decision{Passed: true}); err != nil {
				w.t.Fatal(err)
			}
		}, "ship", "belongs to the blueprint other", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.limit = 8 * time.Hour
				defer w.start(w.store)()
				name := w.pipeline(piped("", stagesText))
				c.do(w, name)
				r := w.ended(name)
				s := r.Stage(c.at)
				if r.Passed || s.Result != pipeline.Failed || !strings.Contains(s.Why, c.why) {
					t.Errorf("%+v", s)
				}
				for _, n := range c.skip {
					if s := r.Stage(n); s.Result != pipeline.NotReached || s.Why != "the stage "+c.at+" failed" {
						t.Errorf("%+v", s)
					}
				}
				if c.name == "the tester goes home" && !strings.Contains(r.Suites[2].Error, "its lease ended at") {
					t.Errorf("%+v", r.Suites[2])
				}
				w.nothingLeft()
			})
		})
	}
}

func (w *world) putEnv(e environment.Environment) {
	w.t.Helper()
	if err := w.store.Apply(w.t.Context(), store.NoEpoch, store.Put(environment.Kind, e.Name, 0, e)); err != nil {
		w.t.Fatal(err)
	}
}

func TestAutomaticGates(t *testing.T) {
	metric := "0.9"
	var mu sync.Mutex
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(rw, `{"data":{"result":[{"value":[1,%q]}]}}`, metric)
	}))
	defer s.Close()
	c := &Control{cfg: Config{MetricAddresses: []string{strings.TrimPrefix(s.URL, "http://")}}}
	m := pipeline.Metric{URL: s.URL, Path: "data.result.0.value.1"}
	if v, err := c.Measure(t.Context(), m); err != nil || v != 0.9 {
		t.Errorf("%v %v", v, err)
	}
	metric = "NaN"
	if _, err := c.Measure(t.Context(), m); err == nil {
		t.Error("NaN is a number")
	}
	for _, address := range []string{"http://127.0.0.1:1/", "http://169.254.169.254/latest/meta-data/", "http://localhost/"} {
		if _, err := c.Measure(t.Context(), pipeline.Metric{URL: address}); fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v", address, err)
		}
	}
	inWorld(t, func(t *testing.T, w *world) {
		_, err := w.api.Test(t.Context(), server.Test{Full: true, Files: w.pack(piped("", `
  - { stage: check, suites: [{ name: api, run: suites/api.sh, size: 1 }] }
  - { stage: enough, gate: { metric: { url: "http://prometheus.corp.example:9090/", below: 1 } } }
`))})
		denied(t, "a metric that no operator allows", err, fault.Denied, "dayfly server start --metric-addresses prometheus.corp.example:9090")
	})
	for name, c := range map[string]struct {
		gate string
		want bool
	}{
		"results":   {"{ results: { min_passed: 4, max_failed: 0 } }", true},
		"too few":   {"{ results: { min_passed: 5 } }", false},
		"no metric": {`{ metric: { url: "http://127.0.0.1:1/", below: 1 }, timeout: 1m }`, false},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				defer w.start(w.store)()
				r := w.ended(w.pipeline(piped("", `
  - stage: check
    suites:
      - { name: api, run: suites/api.sh, size: 1 }
      - { name: web, run: suites/web.sh, size: 1 }
  - stage: enough
    gate: `+c.gate+"\n")))
				if r.Passed != c.want || (r.Stages[1].Result == pipeline.Passed) != c.want || r.Stages[1].Why == "" {
					t.Errorf("%+v", r.Stages)
				}
				w.nothingLeft()
			})
		})
	}
}

// A suite that fails is tried again in a new environment; one that passes then
// is flaky.
func TestRetriesAndShards(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		var mu sync.Mutex
		tries := map[string]int{}
		w.suite = func(name string) (string, cloud.CommandResult, time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			tries[name]++
			if (name == "web-s2" && tries[name] == 1) || name == "api" {
				return `<testsuite><testcase name="x"><failure message="now and then"/></testcase></testsuite>`, cloud.CommandResult{Status: "Failed", ExitCode: 1}, time.Second
			}
			return passes, cloud.CommandResult{Status: "Success"}, time.Second
		}
		name := w.pipeline(piped("", `
  - stage: check
    suites:
      - { name: api, run: suites/api.sh, size: 1, retries: 2 }
      - { name: web, run: suites/web.sh, size: 2, retries: 1, shards: 3 }
`))
		r := w.ended(name)
		var got []string
		for _, s := range r.Suites {
			got = append(got, fmt.Sprintf("%s %s try %d of %d flaky %v, shard %d of %d", s.Name, s.Result, s.Try, len(s.Tries)+1, s.Flaky, s.Shard, s.Shards))
		}
		want := []string{
			"api failed try 3 of 3 flaky false, shard 0 of 0", "web-s1 passed try 1 of 1 flaky false, shard 1 of 3",
			"web-s2 passed try 2 of 2 flaky true, shard 2 of 3", "web-s3 passed try 1 of 1 flaky false, shard 3 of 3",
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s", strings.Join(got, "\n"))
		}
		if s := r.Suites[2]; s.Tries[0].Failures[0].Message != "now and then" || s.Tries[0].Environment == s.Environment || s.Results == s.Tries[0].Results {
			t.Errorf("%+v", s)
		}
		w.nothingLeft()
	})
}

// Runs share the quota; whoever waits says why, and it is never exceeded.
func TestQuota(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.quota = 5
		stop := w.start(w.store)
		defer func() { stop() }()
		w.suite = func(string) (string, cloud.CommandResult, time.Duration) {
			return passes, cloud.CommandResult{Status: "Success"}, 20 * time.Second
		}
		text := piped("runs: { team: %s, at_once: 4 }\n", `
  - stage: check
    suites:
      - { name: api, run: suites/api.sh, size: 2 }
      - { name: web, run: suites/web.sh, size: 2 }
      - { name: more, run: suites/web.sh, size: 1 }
`)
		names := []string{w.pipeline(fmt.Sprintf(text, "red")), w.pipeline(fmt.Sprintf(text, "red")), w.pipeline(fmt.Sprintf(text, "blue"))}
		told := map[string]bool{}
		most := 0
		for n := 0; ; n++ {
			used, over := 0, 0
			for _, name := range names {
				r := w.runOf(name)
				mine := 0
				for _, c := range r.Claims() {
					if c.Held {
						mine += c.Size
					}
				}
				if mine > 4 {
					t.Fatalf("%s has %d", name, mine)
				}
				used += mine
				for _, s := range r.Suites {
					if s.Phase == pipeline.Queued && s.Waits != "" {
						told[strings.Fields(s.Waits)[0]] = true
					}
				}
				if r.Phase == pipeline.Done {
					over++
					if !r.Passed {
						t.Errorf("%+v", r)
					}
				}
			}
			if most = max(most, used); used > 5 {
				t.Fatalf("%d instances at once", used)
			}
			if over == len(names) {
				break
			}
			if n%200 == 100 { // the ledger is read anew
				stop()
				stop = w.start(w.store)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if most != 5 || !told["runs"] {
			t.Errorf("at most %d at once; said %v", most, told)
		}
		w.api.cfg.TestInstances = 5
		_, err := w.api.Test(t.Context(), server.Test{Files: w.pack(piped("", "\n  - { stage: x, suites: [{ name: big, run: suites/api.sh, size: 6 }] }\n"))})
		denied(t, "more than the quota", err, fault.Invalid, "this server allows 5")
		w.nothingLeft()
	})
}

func TestSuperseded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.suite = func(string) (string, cloud.CommandResult, time.Duration) {
			return passes, cloud.CommandResult{Status: "Success"}, time.Minute
		}
		text := piped("runs: { supersede: true }\n", "\n  - { stage: x, suites: [{ name: api, run: suites/api.sh, size: 1 }] }\n")
		first := w.pipeline(text)
		w.until(first, "api", pipeline.Running)
		second := w.pipeline(text)
		if r := w.ended(first); !r.Cancel || r.Suites[0].Result != pipeline.Canceled || !strings.Contains(r.Stages[0].Why, "superseded by "+second) {
			t.Errorf("%+v", r)
		}
		if r := w.ended(second); !r.Passed {
			t.Errorf("%+v", r)
		}
		w.nothingLeft()
	})
}

// A process may die at any write: the run goes on, launches nothing twice and
// leaves nothing.
func TestPipelineKilled(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprint("before ", before), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				n := int64(0)
				stop := w.startMortal(before, func() int64 { n++; return 3 + n%7 })
				name := w.pipeline(piped("", `
  - stage: check
    suites:
      - { name: api, run: suites/api.sh, size: 1 }
      - { name: web, run: suites/web.sh, size: 1, shards: 2 }
  - { stage: go, gate: { by: ops } }
  - { stage: ship, deploy: short }
`))
				w.blocked(name, "gate")
				if _, err := w.api.Decide(as(t, "ops"), name, "go", server.Decision{Passed: true}); err != nil {
					t.Fatal(err)
				}
				if r := w.ended(name); !r.Passed {
					t.Errorf("%+v", r)
				}
				if _, err := w.api.Destroy(t.Context(), "shop-short"); err != nil {
					t.Fatal(err)
				}
				w.wait("it is gone", func() bool {
					return get[environment.Environment](w, environment.Kind, "shop-short").Phase == environment.Gone
				})
				if deaths := stop(); deaths < 10 {
					t.Errorf("only %d deaths", deaths)
				}
				w.nothingLeft()
			})
		})
	}
}
