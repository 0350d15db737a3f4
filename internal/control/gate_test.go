package control

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/store"
)

const commandText = `
  - stage: check
    suites:
      - { name: api, run: suites/api.sh, size: 1 }
  - stage: staging
    deploy: short
  - stage: ready
    gate: { command: suites/web.sh, timeout: 5m }
  - stage: after
    suites:
      - { name: load, run: suites/web.sh, size: 1 }
`

func (w *world) ready(run string) pipeline.Command {
	r := w.runOf(run)
	return *r.Stage("ready").Gate.Command
}

// A gate by the team's own command, on an instance of what a stage before it
// deployed.
func TestCommandGate(t *testing.T) {
	type answer = func(w *world, n int, cmd cloud.Command) (cloud.CommandResult, time.Duration)
	ends := func(r cloud.CommandResult, took time.Duration) answer {
		return func(*world, int, cloud.Command) (cloud.CommandResult, time.Duration) { return r, took }
	}
	good := cloud.CommandResult{Status: "Success", Stdout: "all is well\n"}
	for _, c := range []struct {
		name   string
		answer answer
		during func(w *world, run string)
		passed bool
		why    string
		asked  int
	}{
		{"it passes", ends(good, 20*time.Second), nil, true, "suites/web.sh ended with exit code 0 on i-", 1},
		{"it fails", ends(cloud.CommandResult{Status: "Failed", ExitCode: 3, Stdout: "looks", Stderr: "too many orders are lost"}, time.Second), nil, false, "exit code 3: looks\ntoo many orders are lost", 1},
		{"it takes too long", ends(cloud.CommandResult{Status: "TimedOut", ExitCode: -1, Stdout: "still here"}, 5*time.Minute), nil, false, "did not end within 5m0s: still here", 1},
		{"nobody knows its end", ends(good, time.Hour), nil, false, "did not end within 5m0s", 1},
		{"its instance ends", func(w *world, n int, cmd cloud.Command) (cloud.CommandResult, time.Duration) {
			if n == 1 {
				return good, time.Hour
			}
			return good, time.Second
		}, func(w *world, run string) {
			w.wait("the command runs", func() bool { return w.ready(run).CommandID != "" })
			w.cloud.EndInstance(w.ready(run).Instance)
		}, true, "exit code 0", 2},
		{"its instance falls ill", func(w *world, n int, cmd cloud.Command) (cloud.CommandResult, time.Duration) {
			if n == 1 {
				return good, time.Hour // and nobody says that it ended
			}
			return good, time.Second
		}, func(w *world, run string) {
			w.cloud.Silent = true
			w.wait("the command runs", func() bool { return w.ready(run).CommandID != "" })
			w.cloud.Sicken(w.ready(run).Instance, true)
		}, true, "exit code 0", 2},
		{"something else is deployed meanwhile", ends(good, time.Hour), func(w *world, run string) {
			w.wait("the command runs", func() bool { return w.ready(run).CommandID != "" })
			e, v, err := store.Get[environment.Environment](w.t.Context(), w.store, environment.Kind, "shop-short")
			if err == nil {
				e.Destroy = true
				err = w.store.Apply(w.t.Context(), store.NoEpoch, store.Put(environment.Kind, e.Name, v, e))
			}
			if err != nil {
				w.t.Error(err)
			}
		}, false, "has nothing to run on: the environment is being destroyed", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.limit = 8 * time.Hour
				asked, on := 0, map[string]bool{}
				var mu sync.Mutex
				w.gate = func(cmd cloud.Command) (cloud.CommandResult, time.Duration) {
					mu.Lock()
					defer mu.Unlock()
					asked++
					on[cmd.Instance] = true
					for _, want := range []string{"DAYFLY_ADDRESS='http", "DAYFLY_ENVIRONMENT='shop-short'", "DAYFLY_STAGE='ready'", "DAYFLY_RELEASE='"} {
						if !strings.Contains(cmd.Script, want) || cmd.Timeout != 5*time.Minute {
							t.Errorf("%s is not in %s for %s", want, cmd.Script, cmd.Timeout)
						}
					}
					return c.answer(w, asked, cmd)
				}
				defer w.start(w.store)()
				name := w.pipeline(piped("", commandText))
				if c.during != nil {
					c.during(w, name)
				}
				r := w.ended(name)
				s := r.Stage("ready")
				if r.Passed != c.passed || (s.Result == pipeline.Passed) != c.passed || !strings.Contains(s.Why, c.why) || (r.Stage("after").Result == pipeline.Passed) != c.passed {
					t.Errorf("%+v %+v", s, s.Gate.Command)
				}
				if got := *s.Gate.Command; asked != c.asked || len(on) != c.asked || !on[got.Instance] || got.Environment != "shop-short" || got.Try != c.asked || (c.passed && (*got.Exit != 0 || got.Output != "all is well")) {
					t.Errorf("asked %d times: %+v", asked, got)
				}
				// Who looks at what the instance was sent finds that it was no stranger.
				sent, err := w.store.List(t.Context(), cloud.IntentKind, "run/"+name+"/gate/ready/")
				if err != nil || len(sent) != c.asked {
					t.Errorf("%d intents of its command are left, %v", len(sent), err)
				}
				if _, err := w.api.Destroy(t.Context(), "shop-short"); err != nil {
					t.Fatal(err)
				}
				w.wait("it is gone", func() bool {
					return get[environment.Environment](w, environment.Kind, "shop-short").Phase == environment.Gone
				})
				w.nothingLeft()
			})
		})
	}
}

// A gate whose command ended well opens itself, and not the one behind it.
func TestCommandGatesInARow(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.limit = 8 * time.Hour
		var mu sync.Mutex
		var stages []string
		w.gate = func(cmd cloud.Command) (cloud.CommandResult, time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if strings.Contains(cmd.Script, "DAYFLY_STAGE='ready'") {
				stages = append(stages, "ready")
				return cloud.CommandResult{Status: "Success", Stdout: "all is well"}, time.Second
			}
			stages = append(stages, "closed")
			return cloud.CommandResult{Status: "Failed", ExitCode: 3, Stdout: "not so"}, time.Second
		}
		defer w.start(w.store)()
		r := w.ended(w.pipeline(piped("", strings.Replace(commandText, "  - stage: after\n", "  - stage: closed\n    gate: { command: suites/api.sh, timeout: 5m }\n  - stage: after\n", 1))))
		closed := r.Stage("closed")
		mu.Lock()
		defer mu.Unlock()
		if c := closed.Gate.Command; r.Passed || closed.Result != pipeline.Failed || c.Exit == nil || *c.Exit != 3 || c.Output != "not so" || c.Instance == "" || fmt.Sprint(stages) != "[ready closed]" {
			t.Errorf("%v: %+v %+v", stages, closed, c)
		}
	})
}

// Killed at whatever write, the command is sent once.
func TestCommandGateDies(t *testing.T) {
	for _, before := range []bool{true, false} {
		t.Run(fmt.Sprint("before the write ", before), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.limit = 24 * time.Hour
				sent := 0
				w.gate = func(cloud.Command) (cloud.CommandResult, time.Duration) {
					sent++ // the cloud holds its lock
					return cloud.CommandResult{Status: "Success", Stdout: "fine"}, 10 * time.Second
				}
				stop := w.start(w.store)
				name := w.pipeline(piped("", commandText))
				w.wait("it is deployed", func() bool { r := w.runOf(name); return r.Stage("staging").Phase == pipeline.Running })
				stop()
				n := int64(0)
				mortal := w.startMortal(before, func() int64 { n++; return 1 + n%4 })
				w.wait("the gate is decided", func() bool { r := w.runOf(name); return r.Stage("ready").Phase == pipeline.Done })
				if deaths := mortal(); deaths < 5 {
					t.Errorf("it died %d times only", deaths)
				}
				// What comes after has its own tests.
				defer w.start(w.store)()
				r := w.ended(name)
				if c := r.Stage("ready").Gate.Command; !r.Passed || sent != 1 || c.Output != "fine" {
					t.Errorf("sent %d times: %+v %+v", sent, r.Stages, c)
				}
				if twice := w.cloud.Twice(); len(twice) > 0 {
					t.Error(twice)
				}
			})
		})
	}
}
