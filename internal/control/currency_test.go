package control

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/currency"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/server"
)

// following is dev, which follows stable, and production, which comes after it.
const following = `dev: { size: 3, lease: standing, image: shop/stable }
  prod: { size: 4, lease: standing, replace: { strategy: blue-green, steps: [50, 100], pause: 1m }, soak: 5m, image: { channel: shop/stable, after: [dev], wait: 30m } }`

// images bakes two images of the blueprint and deploys the first everywhere.
func (w *world) images() (first, second string) { return w.imagesOf(following) }

func (w *world) imagesOf(environments string) (first, second string) {
	w.t.Helper()
	bake := func(description string) string {
		b, err := w.api.Bake(w.t.Context(), server.StartBake{Files: w.pack(description)})
		if err != nil {
			w.t.Fatal(err)
		}
		return w.baked(b.Name).Image
	}
	d := strings.Replace(description, "dev: { size: 3, lease: 24h }", environments, 1)
	w.files = w.pack(d)
	first, second = bake(d), bake(strings.Replace(d, "/srv/shop", "/srv/other", 1))
	w.promote(first)
	for _, purpose := range []string{"dev", "prod"} {
		if err := w.deploy(purpose); err != nil {
			w.t.Fatal(err)
		}
	}
	w.onto("shop-dev", first)
	w.onto("shop-prod", first)
	return first, second
}

func (w *world) promote(im string) {
	w.t.Helper()
	if _, err := w.api.Promote(w.t.Context(), im, server.Promote{Channel: "stable", Why: "x"}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) named(env string) environment.Environment {
	return get[environment.Environment](w, environment.Kind, env)
}

// onto waits until an environment runs an image, and nothing is under way.
func (w *world) onto(env, im string) {
	w.t.Helper()
	w.wait(env+" runs "+im, func() bool {
		e := w.named(env)
		return e.Image == im && e.Serving == e.Want && e.Next == nil && e.Shift == nil
	})
}

func (w *world) status(env string) currency.Status {
	w.t.Helper()
	all, err := w.api.Currency(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range all {
		if s.Environment == env {
			return s
		}
	}
	return currency.Status{}
}

func (w *world) end() {
	w.t.Helper()
	for _, env := range []string{"shop-dev", "shop-prod"} {
		if _, err := w.api.Destroy(w.t.Context(), env); err != nil {
			w.t.Fatal(err)
		}
		w.wait(env+" is gone", func() bool { return w.named(env).Phase == environment.Gone })
	}
	w.nothingLeft()
}

// A promoted image is taken to every environment that follows the channel:
// development first, production when it has proved itself there. The server is
// killed again and again meanwhile.
func TestImageCurrency(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start(w.store)
		defer func() { stop() }()
		first, second := w.images()
		release := w.named("shop-prod").Release
		w.box.set(func(b *fakeBox) { b.body = "two" }) // a new release: nobody asked for it
		promoted := time.Now()
		w.promote(second)
		if s := w.status("shop-prod"); s.State != currency.Waiting || s.Blocker.Rule != "image-after" || s.Target != second || s.Late {
			t.Errorf("production: %+v", s)
		}
		var dev, prod time.Duration
		for dev == 0 || prod == 0 {
			time.Sleep(7 * time.Second)
			stop()
			stop = w.start(w.store)
			at := time.Since(promoted)
			if at > w.limit {
				t.Fatalf("dev after %s, production after %s: %+v", dev, prod, w.status("shop-prod"))
			}
			if dev == 0 && w.named("shop-dev").Image == second {
				dev = at
			}
			if prod == 0 && w.named("shop-prod").Image == second {
				prod = at
			}
		}
		if dev > 5*time.Minute || prod-dev < 30*time.Minute || prod > 50*time.Minute {
			t.Errorf("dev after %s, production after %s", dev, prod)
		}
		w.onto("shop-prod", second)
		if e := w.named("shop-prod"); e.Release != release || e.Serving != 2 || e.Size != 4 {
			t.Errorf("%+v", e)
		}
		if s := w.status("shop-prod"); s.State != currency.Current || s.Image != second || first == second {
			t.Errorf("production: %+v", s)
		}
		w.end()
	})
}

// What did no good is not tried again and again, and nobody else tries it.
func TestImageThatIsLeft(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		first, second := w.images()
		w.cloud.Plan = func(cloud.StackInput) cloudtest.Plan { return cloudtest.Plan{Stuck: true} }
		w.promote(second)
		w.wait("dev gave it up", func() bool { e := w.named("shop-dev"); return e.Refusal(second, time.Now()) != nil })
		w.cloud.Plan = nil
		time.Sleep(2 * time.Hour)
		if dev, prod := w.named("shop-dev"), w.named("shop-prod"); dev.Image != first || dev.Want != dev.Serving || prod.Image != first || prod.Serving != 1 {
			t.Errorf("dev: %+v\nproduction: %+v", dev, prod)
		}
		if s := w.status("shop-dev"); s.State != currency.Waiting || s.Blocker.Rule != "image-refused" {
			t.Errorf("dev: %+v", s)
		}
		time.Sleep(2 * time.Hour)
		if s := w.status("shop-prod"); !s.Late || s.Blocker.Rule != "image-after" {
			t.Errorf("production: %+v", s)
		}
		// A person may try again; then it goes on by itself.
		w.mustDeploy()
		w.onto("shop-dev", second)
		w.onto("shop-prod", second)
		w.end()
	})
}

// What runs from a revoked image is replaced at once, by the image that the
// channel pointed to before; its groups launch nothing, not even for what dies.
func TestRevoke(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		first, second := w.images()
		w.promote(second)
		w.onto("shop-dev", second)
		w.onto("shop-prod", second)
		if _, err := w.api.Freeze(t.Context(), "shop-prod", server.Freeze{Why: "audit"}); err != nil {
			t.Fatal(err)
		}
		if err := w.deploy("prod"); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "audit") {
			t.Errorf("a deploy of what is frozen: %v", err)
		}
		r, err := w.api.Revoke(t.Context(), second, server.Revoke{Why: "CVE-2026-1"})
		if err != nil || r.Channels["shop/stable"] != first || len(r.Environments) != 2 {
			t.Fatalf("%+v %v", r, err)
		}
		begun := time.Now()
		w.onto("shop-dev", first)
		if d := time.Since(begun); d > 5*time.Minute {
			t.Errorf("dev took %s", d)
		}
		prod := func(n int) environment.Generation {
			return get[environment.Generation](w, environment.GenerationKind, environment.GenerationName("shop-prod", n))
		}
		w.wait("its groups launch nothing", func() bool { return prod(2).Suspended != "" })
		w.cloud.KillInstances(prod(2).Groups[0])
		time.Sleep(10 * time.Minute)
		is, err := w.api.cloud.Instances(t.Context(), map[string]string{"tag:aws:autoscaling:groupName": prod(2).Groups[0]})
		if err != nil || slices.ContainsFunc(is, func(i cloud.Instance) bool { return i.State == "pending" || i.State == "running" }) {
			t.Errorf("instances were launched from it: %v %v", is, err)
		}
		if e := w.named("shop-prod"); e.Image != second {
			t.Errorf("it is frozen, and went to %s", e.Image)
		}
		if err := w.rollback(); fault.KindOf(err) != fault.Conflict {
			t.Errorf("back to the revoked image: %v", err)
		}
		if _, err := w.api.Unfreeze(t.Context(), "shop-prod"); err != nil {
			t.Fatal(err)
		}
		w.onto("shop-prod", first)
		w.end()
	})
}

// Revoked within its soak it is left by a switch of traffic.
func TestRevokeInTheSoak(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		first, second := w.images()
		w.promote(second)
		w.wait("production soaks", func() bool { e := w.named("shop-prod"); return e.Image == second && e.Shift != nil })
		stacks := w.cloud.Calls("cloudformation:CreateStack")
		if _, err := w.api.Revoke(t.Context(), second, server.Revoke{Why: "CVE-2026-1"}); err != nil {
			t.Fatal(err)
		}
		begun := time.Now()
		w.wait("production is back", func() bool { return w.named("shop-prod").Image == first })
		if d := time.Since(begun); d > 10*time.Second {
			t.Errorf("it took %s", d)
		}
		w.onto("shop-dev", first)
		if n := w.cloud.Calls("cloudformation:CreateStack"); n != stacks+1 {
			t.Errorf("%d stacks were made, dev needs one", n-stacks)
		}
		w.onto("shop-prod", first)
		im := get[image.Image](w, image.Kind, second)
		if im.Revoked.IsZero() || im.Launches() {
			t.Errorf("%+v", im)
		}
		if _, err := w.api.Quarantine(t.Context(), second, server.Quarantine{Why: "false alarm"}); err != nil {
			t.Fatal(err)
		}
		if im := get[image.Image](w, image.Kind, second); !im.Revoked.IsZero() || !im.Launches() {
			t.Errorf("%+v", im)
		}
		if fs, err := w.api.Freezes(t.Context()); err != nil || slices.ContainsFunc(fs, func(currency.Freeze) bool { return true }) {
			t.Errorf("%v %v", fs, err)
		}
		w.end()
	})
}

// A run on a revoked image proves nothing: it ends, with what it launched, while
// one suite runs, another waits for a person, and one has passed.
func TestRevokeEndsRuns(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.suite = func(name string) (string, cloud.CommandResult, time.Duration) {
			took := time.Second
			if name == "load" {
				took = time.Hour
			}
			return passes, cloud.CommandResult{Status: "Success"}, took
		}
		stop := w.start(w.store)
		defer func() { stop() }()
		name := w.pipeline(piped("", strings.Replace(stagesText, "timeout: 2m }\n      - { name: looks", "timeout: 2h }\n      - { name: looks", 1)))
		w.until(name, "looks", pipeline.Waiting)
		w.until(name, "load", pipeline.Running)
		im := w.runOf(name).Image
		stop() // nobody looks while it is revoked
		r, err := w.api.Revoke(as(t, "ann"), im, server.Revoke{Why: "CVE-2026-1"})
		if err != nil || !slices.Equal(r.Runs, []string{name}) || len(r.Environments) != 0 {
			t.Fatalf("%+v %v", r, err)
		}
		stop = w.start(w.store)
		begun := time.Now()
		w.blocked(name, "image-revoked")
		if b := w.runOf(name).Blocker; b.On != "image/"+im || !strings.Contains(b.Message, "CVE-2026-1 (ann)") {
			t.Errorf("%+v", b)
		}
		end := w.ended(name)
		if d := time.Since(begun); d > 10*time.Minute {
			t.Errorf("it took %s", d)
		}
		if end.Passed || end.Error != "its image "+im+" was revoked: CVE-2026-1 (ann)" || end.Clean == nil || end.Clean.Left != 0 {
			t.Errorf("%+v", end)
		}
		for suite, want := range map[string]pipeline.Result{"api": pipeline.Passed, "load": pipeline.Canceled, "looks": pipeline.Canceled} {
			s := end.Suite(suite)
			if s.Result != want || s.Phase != pipeline.Done || (want == pipeline.Canceled && s.Error != end.Error) {
				t.Errorf("%s: %+v", suite, s)
			}
			if e := w.named(s.Environment); e.Phase != environment.Gone {
				t.Errorf("%s is %s", e.Name, e.Phase)
			}
		}
		if s := end.Stage("approve"); s.Result != pipeline.NotReached {
			t.Errorf("%+v", s)
		}
		// The same inputs would give the same image; others give another one.
		again := piped("", strings.Replace(stagesText, "  - stage: slow", "  - stage: more", 1))
		_, err = w.api.Test(t.Context(), server.Test{Files: w.pack(again), Full: true})
		denied(t, "a new run on it", err, fault.Denied, "dayfly images rm "+im)
		good := w.ended(w.pipeline(strings.Replace(piped("", onePass), "/srv/shop", "/srv/other", 1)))
		if !good.Passed || good.Image == im {
			t.Errorf("%+v", good)
		}
		w.nothingLeft()
	})
}

// A deploy that fails while image and release are both new says nothing of the
// image, unless no instance came as far as the deploy script: it is tried with
// the release that serves, and blamed if that fails too.
func TestDeployOfBothThatFails(t *testing.T) {
	report, err := json.Marshal(handoff.Report{Reason: "the deploy script ended with exit code 3", Phases: []handoff.Phase{{Name: "metadata"}, {Name: "details"}, {Name: "deploy"}}})
	if err != nil {
		t.Fatal(err)
	}
	handOff := cloudtest.Plan{Broken: -1, Report: report}
	for _, c := range []struct {
		name   string
		plan   cloudtest.Plan
		always bool // with the release that serves, too
		tried  int  // generations of the image
		runs   bool // the image, with the release that served
	}{
		{"the release is bad", handOff, false, 2, true},
		{"the image is bad", handOff, true, 2, false},
		{"no instance boots", cloudtest.Plan{Stuck: true}, false, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				stop := w.start(w.store)
				defer func() { stop() }()
				first, second := w.images()
				served, ami := w.named("shop-dev").Release, get[image.Image](w, image.Kind, second).AMI
				old := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(w.box.body)))
				tried := map[string]bool{}
				var mu sync.Mutex
				w.cloud.Plan = func(s cloud.StackInput) cloudtest.Plan {
					mu.Lock()
					defer mu.Unlock()
					if s.Parameters["ImageId"] != ami || s.Parameters["Environment"] != "shop-dev" {
						return cloudtest.Plan{}
					}
					tried[s.Parameters["Generation"]] = true
					if c.always || s.Parameters["ReleaseDigest"] != old {
						return c.plan
					}
					return cloudtest.Plan{}
				}
				stop()
				w.promote(second)
				w.box.set(func(b *fakeBox) { b.body = "two" })
				w.mustDeploy()
				stop = w.start(w.store)
				w.wait("the deploy fails", func() bool {
					return get[environment.Generation](w, environment.GenerationKind, "shop-dev/2").Phase == environment.Gone
				})
				if c.runs {
					w.onto("shop-dev", second)
				} else {
					w.wait("the image is blamed", func() bool { e := w.named("shop-dev"); return e.Refusal(second, time.Now()) != nil })
				}
				time.Sleep(2 * time.Hour)
				want := map[bool]string{true: second, false: first}[c.runs]
				mu.Lock()
				defer mu.Unlock()
				if e := w.named("shop-dev"); e.Image != want || e.Release != served || len(tried) != c.tried || (e.Refusal(second, time.Now()) != nil) == c.runs {
					t.Errorf("tried %v: %+v", tried, e)
				}
				if s := w.status("shop-dev"); (s.State == currency.Current) != c.runs || (!c.runs && s.Blocker.Rule != "image-refused") {
					t.Errorf("%+v", s)
				}
				w.cloud.Plan = nil
				w.end()
			})
		})
	}
}

// The same where all traffic had moved, and its answers were errors: what was
// asked for is undone, so the channel counts as before.
func TestDeployOfBothThatGoesBack(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start(w.store)
		defer func() { stop() }()
		w.cloud.Rate = 50
		_, second := w.imagesOf(strings.Replace(following, "image: shop/stable }", "image: shop/stable, replace: { strategy: blue-green, steps: [100], pause: 10s, max_error_rate: 1% }, soak: 10m }", 1))
		served := w.named("shop-dev").Release
		old := fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(w.box.body)))
		w.cloud.Plan = func(s cloud.StackInput) cloudtest.Plan {
			if d := s.Parameters["ReleaseDigest"]; d != "" && d != old {
				return cloudtest.Plan{Errors: 0.5}
			}
			return cloudtest.Plan{}
		}
		stop()
		w.promote(second)
		time.Sleep(time.Minute)
		w.box.set(func(b *fakeBox) { b.body = "two" })
		w.mustDeploy()
		stop = w.start(w.store)
		moved := false
		w.wait("it goes back", func() bool {
			e := w.named("shop-dev")
			moved = moved || e.Release != served && e.Image == second && !e.Shift.Soak.IsZero()
			return e.LastBack != nil && !e.LastBack.Done.IsZero()
		})
		if !moved {
			t.Error("the traffic had not moved")
		}
		w.onto("shop-dev", second)
		if e := w.named("shop-dev"); e.Release != served || e.Serving != 3 {
			t.Errorf("%+v", e)
		}
		w.cloud.Plan = nil
		w.end()
	})
}
