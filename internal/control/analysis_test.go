package control

import (
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/environment"
)

const watched = "dev: { size: 3, lease: standing, replace: { strategy: blue-green, steps: [10, 50, 100], pause: 30s, max_error_rate: 1%, max_latency: 200ms }, soak: 10m }"

// tenth is an error rate of a tenth: where a period is cut off by a death, it is
// not quite that.
var tenth = regexp.MustCompile(`(9\.\d+|10(\.\d+)?) % of its`)

// errs lets a share of the requests to a generation's instances fail.
func (w *world) errs(generation string, share float64) {
	w.cloud.Plan = func(s cloud.StackInput) cloudtest.Plan {
		if s.Tags[cloud.TagGeneration] == generation {
			return cloudtest.Plan{Errors: share}
		}
		return cloudtest.Plan{}
	}
}

// watched is a first generation that serves.
func (w *world) watched() {
	w.t.Helper()
	w.as(watched)
	w.mustDeploy()
	w.wait("it is settled", func() bool { return len(w.env().Good) == 1 })
	w.box.set(func(b *fakeBox) { b.body = "two" })
}

// A release whose answers fail goes back by itself, by the figures of the load
// balancer alone, whoever dies meanwhile.
func TestErrorsGoBack(t *testing.T) {
	for _, kills := range []bool{false, true} {
		t.Run(map[bool]string{false: "undisturbed", true: "killed"}[kills], func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				stop := func() int { return 30 }
				if kills {
					stop = w.startMortal(false, cycle(1, 2, 1, 3, 5))
				} else {
					defer w.start(w.store)()
				}
				w.cloud.Rate = 50
				w.watched()
				w.errs("2", 0.1)
				w.mustDeploy()
				most := 0
				w.wait("it goes back", func() bool {
					most = max(most, w.weights()[2])
					e := w.env()
					return e.LastBack != nil && !e.LastBack.Done.IsZero()
				})
				if e := w.env(); e.Serving != 1 || !tenth.MatchString(e.Error) || !strings.Contains(e.Error, "max_error_rate: 1 %") || w.weights()[1] != 100 {
					t.Errorf("%+v", e)
				}
				if most != 10 {
					t.Errorf("it had %d %% of the traffic before its errors were known", most)
				}
				w.wait("generation 2 is gone", func() bool { return w.gen(2).Phase == environment.Gone })
				w.destroy()
				if n := stop(); n < 30 {
					t.Errorf("only %d deaths", n)
				}
				w.nothingLeft()
			})
		})
	}
}

// Where nothing is wrong, or nobody asks anything, a deploy comes through.
func TestFiguresThatSayNothingBad(t *testing.T) {
	for _, rate := range []float64{0, 50} {
		inWorld(t, func(t *testing.T, w *world) {
			defer w.start(w.store)()
			w.cloud.Rate = rate
			w.watched()
			begun := time.Now()
			w.mustDeploy()
			waited, noted := false, false
			w.wait("generation 2 is settled", func() bool {
				if b := w.env().Blocker; b != nil {
					waited = waited || b.Rule == "analysis" && strings.Contains(b.Message, "figures of it come by")
					noted = noted || rate > 0 && strings.Contains(b.Message, "0 % of its requests failed") || rate == 0 && strings.Contains(b.Message, "too few to tell")
				}
				return len(w.env().Good) == 2
			})
			if !waited || !noted {
				t.Errorf("at a rate of %.0f: it waited for figures: %t, and told them: %t", rate, waited, noted)
			}
			if took := time.Since(begun); took > 25*time.Minute {
				t.Errorf("at a rate of %.0f it took %s", rate, took)
			}
			if n := w.cloud.Calls("cloudwatch:GetMetricData"); n > 100 {
				t.Errorf("it asked %d times", n)
			}
			w.destroy()
			w.nothingLeft()
		})
	}
}

// Errors that begin in the soak go back as well.
func TestErrorsInTheSoak(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.cloud.Rate = 50
		w.watched()
		w.mustDeploy()
		w.wait("the soak", func() bool { s := w.env().Shift; return s != nil && s.To == 2 && !s.Soak.IsZero() })
		time.Sleep(5 * time.Minute)
		w.cloud.Replan(w.gen(2).Stack, func(p *cloudtest.Plan) { p.Errors = 0.5 })
		w.wait("it goes back", func() bool { e := w.env(); return e.LastBack != nil && !e.LastBack.Done.IsZero() })
		if e := w.env(); e.Serving != 1 || !strings.Contains(e.Error, "were answered with 5xx") {
			t.Errorf("%+v", e)
		}
		w.destroy()
		w.nothingLeft()
	})
}

// Figures that cannot be read hold the deploy, say so, and keep nobody from
// going back.
func TestFiguresThatCannotBeRead(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.cloud.Rate = 50
		w.cloud.Fail = func(op, _ string) error {
			if op == "cloudwatch:GetMetricData" {
				return errors.New("AccessDenied: not allowed to read metrics")
			}
			return nil
		}
		w.watched()
		w.mustDeploy()
		w.wait("it waits", func() bool {
			b := w.env().Blocker
			return b != nil && b.Rule == "analysis" && strings.Contains(b.Message, "AccessDenied")
		})
		time.Sleep(20 * time.Minute)
		if w.weights()[2] != 10 || w.env().Shift == nil {
			t.Fatalf("it goes on unjudged: %v", w.weights())
		}
		if err := w.rollback(); err != nil {
			t.Fatal(err)
		}
		w.wait("all traffic is back", func() bool { return w.weights()[1] == 100 && w.gen(2).Phase == environment.Gone })
		w.destroy()
		w.nothingLeft()
	})
}

// Answers that take too long go back as well.
func TestSlowAnswersGoBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.cloud.Rate = 50
		w.watched()
		w.cloud.Plan = func(s cloud.StackInput) cloudtest.Plan {
			if s.Tags[cloud.TagGeneration] == "2" {
				return cloudtest.Plan{Latency: 300 * time.Millisecond}
			}
			return cloudtest.Plan{Latency: 20 * time.Millisecond}
		}
		w.mustDeploy()
		w.wait("it goes back", func() bool { e := w.env(); return e.LastBack != nil && !e.LastBack.Done.IsZero() })
		if e := w.env(); e.Serving != 1 || !strings.Contains(e.Error, "took 300ms on average (max_latency: 200ms)") || w.weights()[1] != 100 {
			t.Errorf("%+v", e)
		}
		w.destroy()
		w.nothingLeft()
	})
}

// While a rolling deploy grows for its next step, the traffic that it has is
// judged all the same.
func TestErrorsWhileItGrows(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.cloud.Rate = 50
		w.as("dev: { size: 10, lease: 24h, replace: { strategy: rolling, steps: [20, 50, 100], pause: 30s, max_error_rate: 1% }, soak: 5m }")
		w.mustDeploy()
		w.wait("it is settled", func() bool { return len(w.env().Good) == 1 })
		w.box.set(func(b *fakeBox) { b.body = "two" })
		w.mustDeploy()
		w.wait("a fifth of the traffic", func() bool { return w.weights()[2] == 20 })
		w.cloud.Replan(w.gen(2).Stack, func(p *cloudtest.Plan) { p.Boot = 6 * time.Minute })
		w.wait("it grows", func() bool { s := w.env().Shift; return s != nil && s.Step == 1 && s.Since.IsZero() })
		w.cloud.Replan(w.gen(2).Stack, func(p *cloudtest.Plan) { p.Errors = 0.5 })
		begun := time.Now()
		w.wait("it goes back", func() bool { return w.env().Back != nil || w.env().LastBack != nil })
		if took := time.Since(begun); took > 5*time.Minute {
			t.Errorf("it took %s", took)
		}
		w.wait("all traffic is back", func() bool { e := w.env(); return e.LastBack != nil && !e.LastBack.Done.IsZero() })
		if e := w.env(); e.Serving != 1 || !strings.Contains(e.Error, "were answered with 5xx") {
			t.Errorf("%+v", e)
		}
		w.destroy()
		w.nothingLeft()
	})
}
