package control

import (
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

func TestRuns(t *testing.T) {
	good := cloud.CommandResult{Status: "Success"}
	for _, c := range []struct {
		name   string
		api    func() (string, cloud.CommandResult)
		plan   func(cloud.StackInput) cloudtest.Plan
		passed bool
		want   string // of the suite api
	}{
		{"all pass", nil, nil, true, ""},
		{"a case fails", func() (string, cloud.CommandResult) {
			return `<testsuite><testcase name="a"/><testcase name="b"><failure message="no"/></testcase></testsuite>`, cloud.CommandResult{Status: "Failed", ExitCode: 1}
		}, nil, false, ""},
		{"no results", func() (string, cloud.CommandResult) {
			return "", cloud.CommandResult{Status: "Failed", ExitCode: 127, Stderr: "curl: not found"}
		}, nil, false, "left no results: curl: not found"},
		{"no results and exit code 0", func() (string, cloud.CommandResult) { return "", good }, nil, false, "left no results"},
		{"all cases pass and exit code 1", func() (string, cloud.CommandResult) {
			return passes, cloud.CommandResult{Status: "Failed", ExitCode: 1}
		}, nil, false, "though no test case failed"},
		{"results are no JUnit", func() (string, cloud.CommandResult) { return "ok", good }, nil, false, "JUnit"},
		{"its time is over", func() (string, cloud.CommandResult) {
			return "", cloud.CommandResult{Status: "TimedOut", ExitCode: 137}
		}, nil, false, "ended with TimedOut"},
		{"its environment fails", nil, func(s cloud.StackInput) cloudtest.Plan {
			if strings.HasSuffix(s.Parameters["Environment"], "-api") {
				return cloudtest.Plan{Fail: "no room"}
			}
			return cloudtest.Plan{}
		}, false, "no room"},
		{"the foundation fails", nil, func(s cloud.StackInput) cloudtest.Plan {
			if strings.HasSuffix(s.Name, "-foundation") {
				return cloudtest.Plan{Fail: "no address"}
			}
			return cloudtest.Plan{}
		}, false, "no address"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				defer w.start(w.store)()
				w.cloud.Plan = c.plan
				w.suite = func(name string) (string, cloud.CommandResult, time.Duration) {
					if name == "api" && c.api != nil {
						j, r := c.api()
						return j, r, 5 * time.Second
					}
					return passes, good, 5 * time.Second
				}
				r := w.ended(w.run())
				if len(r.Suites) != 2 || r.Passed != c.passed {
					t.Fatalf("passed %v: %+v", r.Passed, r)
				}
				if api := r.Suites[0]; api.OK() != c.passed || !strings.Contains(api.Error, c.want) || (c.want == "") != (api.Error == "") {
					t.Errorf("api: %+v", api)
				}
				if web := r.Suites[1]; !web.OK() && c.name != "the foundation fails" {
					t.Errorf("a suite suffered from another: %+v", web)
				}
				w.nothingLeft()
			})
		})
	}
}

func TestRunCanceled(t *testing.T) {
	for _, after := range []time.Duration{0, time.Second, 18 * time.Second, 22 * time.Second, 25 * time.Second, 28 * time.Second} {
		t.Run(after.String(), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				defer w.start(w.store)()
				w.suite = func(string) (string, cloud.CommandResult, time.Duration) {
					return passes, cloud.CommandResult{Status: "Success"}, time.Minute
				}
				name := w.run()
				time.Sleep(after)
				if _, err := w.api.Cancel(t.Context(), name); err != nil {
					t.Fatal(err)
				}
				begun := time.Now()
				if r := w.ended(name); r.Passed {
					t.Errorf("%+v", r)
				}
				if d := time.Since(begun); d > 30*time.Second {
					t.Errorf("the end took %s", d)
				}
				w.wait("no bake runs", func() bool { return w.bakes() == 0 })
				w.nothingLeft()
			})
		})
	}
}

// The box may be down for minutes, or for ever.
func TestRunWithoutBox(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.box.set(func(b *fakeBox) { b.down = true })
		name := w.run("api")
		time.Sleep(5 * time.Minute)
		w.box.set(func(b *fakeBox) { b.down = false })
		if r := w.ended(name); !r.Passed || len(r.Suites) != 1 {
			t.Errorf("%+v", r)
		}
		w.box.set(func(b *fakeBox) { b.down = true })
		if r := w.ended(w.run("api")); r.Passed || !strings.Contains(r.Error, "the box does not answer") {
			t.Errorf("%+v", r)
		}
		w.nothingLeft()
	})
}

// An instance that was chosen and ended before it got the command is replaced.
func TestSuiteInstanceDies(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		killed := 0
		w.cloud.Fail = func(op, object string) error {
			if op == "ssm:SendCommand" && strings.HasPrefix(object, pipeline.Kind) && killed < 2 {
				killed++
				return &fault.Error{Kind: fault.Unavailable, Code: "InvalidInstanceId", Message: "not in a valid state"}
			}
			return nil
		}
		defer w.start(w.store)()
		name := w.run("api")
		suite := func() pipeline.Suite {
			r := get[pipeline.Run](w, pipeline.Kind, name)
			if len(r.Suites) == 0 {
				return pipeline.Suite{}
			}
			return r.Suites[0]
		}
		w.wait("an instance is chosen", func() bool { return suite().Instance != "" })
		first := suite().Instance
		w.cloud.KillInstances(get[environment.Generation](w, environment.GenerationKind, name+"-api/1").Groups[0])
		r := w.ended(name)
		if !r.Passed || r.Suites[0].Instance == first {
			t.Errorf("first %s: %+v", first, r.Suites[0])
		}
		w.nothingLeft()
	})
}

func TestTestAdmission(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		for _, c := range []struct {
			suite string
			kind  fault.Kind
		}{{"nonsense", fault.NotFound}} {
			if _, err := w.api.Test(t.Context(), server.Test{Files: w.files, Suites: []string{c.suite}}); fault.KindOf(err) != c.kind {
				t.Errorf("%s: %v", c.suite, err)
			}
		}
		if n := w.bakes(); n != 0 {
			t.Errorf("%d bakes were begun for nothing", n)
		}
		if a, b := w.run(), w.run(); a == b {
			t.Errorf("two runs are %s", a)
		}
		if n := w.bakes(); n != 1 {
			t.Errorf("%d bakes of the same inputs", n)
		}
	})
}

func TestDeployAdmission(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		stop := w.start(w.store)
		w.mustDeploy()
		w.serves(1)
		other := w.pack(strings.Replace(description, "name: shop", "name: other", 1))
		conflict := func(what string, err error, want string) {
			t.Helper()
			if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), want) || fault.HintOf(err) == "" {
				t.Errorf("%s: %v", what, err)
			}
		}
		_, err := w.api.Deploy(t.Context(), server.Deploy{Files: other, Purpose: "dev", Name: "shop-dev"})
		conflict("another blueprint", err, "belongs to the blueprint shop")
		if n := w.bakes(); n != 0 {
			t.Errorf("a refused deploy began %d bakes", n)
		}
		if _, err := w.api.Deploy(t.Context(), server.Deploy{Files: w.files, Purpose: "prod"}); fault.KindOf(err) != fault.NotFound || !strings.Contains(fault.HintOf(err), "dev") {
			t.Errorf("unknown purpose: %v", err)
		}
		im := w.env().Image
		err = w.api.DeleteImage(t.Context(), im)
		conflict("an image that serves", err, "shop-dev")
		// A generation that is being launched from it.
		w.cloud.Plan = fleets(func(string) cloudtest.Plan { return cloudtest.Plan{Took: time.Hour} })
		if _, err := w.api.Deploy(t.Context(), server.Deploy{Files: w.files, Purpose: "dev", Name: "second"}); err != nil {
			t.Fatal(err)
		}
		w.destroy()
		w.wait("second launches", func() bool {
			return get[environment.Environment](w, environment.Kind, "second").Want == 1
		})
		conflict("an image of a launch", w.api.DeleteImage(t.Context(), im), "second")
		if _, err := w.api.Destroy(t.Context(), "second"); err != nil {
			t.Fatal(err)
		}
		stop()
		_, err = w.api.Deploy(t.Context(), server.Deploy{Files: w.files, Purpose: "dev", Name: "second"})
		conflict("while it is destroyed", err, "being destroyed")
		defer w.start(w.store)()
		w.cloud.Plan = nil
		w.wait("second is gone", func() bool {
			return get[environment.Environment](w, environment.Kind, "second").Phase == environment.Gone
		})
		run := w.run("api")
		conflict("an image of a run", w.api.DeleteImage(t.Context(), im), run)
		w.ended(run)
		w.nothingLeft()
		if err := w.api.DeleteImage(t.Context(), im); fault.KindOf(err) != fault.NotFound {
			t.Errorf("an image that is not there: %v", err)
		}
		if _, err := store.List[image.Channel](t.Context(), w.store, image.ChannelKind, ""); err != nil {
			t.Error(err)
		}
	})
}

// bake waits for the end of the one bake.
func (w *world) bake() bake.Bake {
	w.t.Helper()
	var all []bake.Bake
	w.wait("the bake ends", func() bool {
		var err error
		if all, err = store.List[bake.Bake](w.t.Context(), w.store, bake.Kind, ""); err != nil || len(all) != 1 {
			w.t.Fatal(all, err)
		}
		return all[0].Step == bake.Done
	})
	return all[0]
}

func TestBakeFails(t *testing.T) {
	refuse := func(op string) func(w *world) {
		return func(w *world) {
			w.cloud.Fail = func(o, object string) error {
				if o == op && strings.HasPrefix(object, bake.Kind) {
					return &fault.Error{Kind: fault.Denied, Op: o, Message: "you may not"}
				}
				return nil
			}
		}
	}
	for _, c := range []struct {
		name string
		prep func(w *world)
		step bake.Step
		want string
	}{
		{"inputs", refuse("s3:PutObject"), bake.Inputs, "you may not"},
		{"stack denied", refuse("cloudformation:CreateStack"), bake.Inputs, "you may not"},
		{"stack", func(w *world) {
			w.cloud.Plan = func(cloud.StackInput) cloudtest.Plan { return cloudtest.Plan{Fail: "no vpc left"} }
		}, bake.Builder, "no vpc left"},
		{"stack hangs", func(w *world) {
			w.cloud.Plan = func(cloud.StackInput) cloudtest.Plan { return cloudtest.Plan{Hang: true} }
		}, bake.Builder, "longer than 10m"},
		{"fetch", func(w *world) { w.fail["fetch"] = "curl: 404" }, bake.Fetch, "curl: 404"},
		{"install", func(w *world) { w.fail["install"] = "apt: no" }, bake.Install, "apt: no"},
		{"puppet", func(w *world) { w.fail["puppet"] = "Error: /Stage[main]/X: no" }, bake.Converge, "/Stage[main]/X: no"},
		{"seal", func(w *world) { w.fail["seal"] = "still there" }, bake.Seal, "still there"},
		{"stop", refuse("ec2:StopInstances"), bake.Stop, "you may not"},
		{"image", refuse("ec2:CreateImage"), bake.Snapshot, "you may not"},
		{"canary", refuse("ec2:RunInstances"), bake.Launch, "you may not"},
		{"checks cannot run", func(w *world) { w.fail["verify/2"] = "no agent" }, bake.Verify, "canary 2"},
		{"a check fails", func(w *world) { w.fail["check"] = "secrets" }, bake.Verify, "secrets on canary 1"},
		{"the canaries are the same", func(w *world) { w.fail["identity"] = "77" }, bake.Verify, "canaries share an identity, so something of it is in the image or is made the same at boot (law 10):\n  machine-id 77 is the same on canary 1 and canary 2"},
		{"the canaries are the builder", func(w *world) { w.fail["identity"] = "1234" }, bake.Verify, "machine-id 1234 is the same on the builder and canary 1 and canary 2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				defer w.start(w.store)()
				c.prep(w)
				if _, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files}); err != nil {
					t.Fatal(err)
				}
				if b := w.bake(); b.FailedAt != c.step || !strings.Contains(b.Error, c.want) || b.Image != "" {
					t.Errorf("failed at %s: %s", b.FailedAt, b.Error)
				}
				w.nothingLeft()
				// The next attempt makes it.
				w.fail, w.cloud.Plan, w.cloud.Fail = map[string]string{}, nil, nil
				if _, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files}); err != nil {
					t.Fatal(err)
				}
				if b := w.bake(); b.Error != "" || b.Attempt != 2 || b.Image == "" {
					t.Errorf("%+v", b)
				}
				w.nothingLeft()
			})
		})
	}
}

func TestBakeCanceledAtEveryStep(t *testing.T) {
	for _, step := range []bake.Step{bake.Inputs, bake.Builder, bake.Online, bake.Fetch, bake.Install, bake.Converge, bake.Seal, bake.Stop, bake.Snapshot, bake.Launch, bake.Verify} {
		t.Run(string(step), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				b, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files})
				if err != nil {
					t.Fatal(err)
				}
				defer w.start(w.store)()
				for get[bake.Bake](w, bake.Kind, b.Name).Step != step {
					time.Sleep(10 * time.Millisecond)
				}
				if _, err := w.api.CancelBake(t.Context(), b.Name); err != nil {
					t.Fatal(err)
				}
				if _, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files}); fault.KindOf(err) != fault.Conflict {
					t.Errorf("a bake that is being canceled was given away: %v", err)
				}
				if b := w.bake(); b.Error != "the bake was canceled" {
					t.Errorf("%+v", b)
				}
				w.nothingLeft()
			})
		})
	}
}

// What was made in the instant before the process died, and was not noted
// down, goes with the bake as well.
func TestBakeUnrecorded(t *testing.T) {
	for _, op := range []string{"ec2:CreateImage", "ec2:RunInstances"} {
		t.Run(op, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				b, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files})
				if err != nil {
					t.Fatal(err)
				}
				stop := w.startMortal(true, func() int64 {
					if w.cloud.Calls(op) > 0 {
						return 1 // it writes nothing any more
					}
					return 3
				})
				w.wait(op, func() bool { return w.cloud.Calls(op) > 0 })
				stop()
				if _, err := w.api.CancelBake(t.Context(), b.Name); err != nil {
					t.Fatal(err)
				}
				defer w.start(w.store)()
				w.bake()
				w.nothingLeft()
			})
		})
	}
}

func TestImageGone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		first, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files})
		if err != nil {
			t.Fatal(err)
		}
		if again, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files}); err != nil || again.Name != first.Name || again.Attempt != 1 {
			t.Errorf("not a single flight: %+v %v", again, err)
		}
		b := w.bake()
		if again, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files}); err != nil || again.Step != bake.Done {
			t.Errorf("baked again for nothing: %+v %v", again, err)
		}
		w.cloud.DropImage(b.AMI)
		w.mustDeploy()
		w.serves(1)
		if b := w.bake(); b.Attempt != 2 || b.Error != "" {
			t.Errorf("%+v", b)
		}
		w.destroy()
		w.nothingLeft()
	})
}

// After a long stop of the server what is waited for is there, not late.
func TestBakeAfterLongStop(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		if _, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files}); err != nil {
			t.Fatal(err)
		}
		stop := w.start(w.store)
		time.Sleep(3 * time.Second)
		stop()
		time.Sleep(5 * time.Hour)
		defer w.start(w.store)()
		if b := w.bake(); b.Error != "" {
			t.Errorf("%+v", b)
		}
		w.nothingLeft()
	})
}

func TestSweepFindsWhatEnded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		d := w.cloud.Driver(w.store)
		// Of a generation that is gone, such as a call that arrived late.
		e := w.env()
		if _, err := d.RunInstances(t.Context(), cloud.Intent{ID: "generation/shop-dev/1/late", Object: "generation/shop-dev/1"}, cloud.InstanceInput{Image: "ami-base", Count: 1}); err != nil {
			t.Fatal(err)
		}
		// Of nobody knows what, without a deadline: it stays.
		if _, err := d.RunInstances(t.Context(), cloud.Intent{ID: "what/ever/1", Object: "what/ever"}, cloud.InstanceInput{Image: "ami-base", Count: 1}); err != nil {
			t.Fatal(err)
		}
		sweep := func(orphans, removed int) {
			t.Helper()
			r, err := w.api.Sweep(t.Context(), false)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for _, o := range r.Orphans {
				if o.Removed {
					n++
				}
			}
			if len(r.Orphans) != orphans || n != removed {
				t.Fatalf("%d orphans, %d removed; want %d and %d: %+v", len(r.Orphans), n, orphans, removed, r)
			}
		}
		sweep(0, 0)
		if e.Image == "" {
			t.Fatal("no image")
		}
		w.destroy()
		sweep(1, 0)
		time.Sleep(30 * time.Second)
		sweep(1, 0)
		time.Sleep(31 * time.Second)
		sweep(1, 1)
		time.Sleep(time.Minute)
		sweep(0, 0)
		if err := w.api.DeleteImage(t.Context(), e.Image); err != nil {
			t.Fatal(err)
		}
		if left := w.cloud.Left(kept...); len(left) != 1 || !strings.Contains(left[0], "what/ever") {
			t.Errorf("left: %v", left)
		}
	})
}
