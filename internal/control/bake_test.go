package control

import (
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// keeping is the blueprint with a builder that is kept.
var keeping = strings.Replace(description, "keep_failed: 0s", "keep_failed: 2h", 1)

// mended is it with other inputs.
var mended = strings.Replace(keeping, "service: /srv/shop", "service: /srv/shop2", 1)

// breaks are the failures after which there is something to go on from.
var breaks = []struct {
	step bake.Step
	fail string // step's command
	op   string // or this call
}{
	{bake.Fetch, "fetch", ""}, {bake.Install, "install", ""}, {bake.Converge, "puppet", ""}, {bake.Seal, "seal", ""},
	{bake.Stop, "", "ec2:StopInstances"}, {bake.Snapshot, "", "ec2:CreateImage"}, {bake.Launch, "", "ec2:RunInstances"},
	{bake.Verify, "verify/2", ""}, {bake.Verify, "check", ""},
}

// broken breaks a bake and waits until its builder is kept.
func (w *world) broken(files, fail, op string) bake.Bake {
	w.t.Helper()
	if fail != "" {
		w.fail[fail] = "no room" // nobody runs yet
		if fail == "check" {
			w.fail[fail] = "secrets"
		}
	}
	if op != "" {
		w.cloud.Fail = func(o, object string) error {
			if o == op && strings.HasPrefix(object, bake.Kind) {
				return &fault.Error{Kind: fault.Denied, Op: o, Message: "you may not"}
			}
			return nil
		}
	}
	b, err := w.api.Bake(w.t.Context(), server.StartBake{Files: files})
	if err != nil {
		w.t.Fatal(err)
	}
	stop := w.start(w.store)
	w.wait("the builder is kept", func() bool {
		b = get[bake.Bake](w, bake.Kind, b.Name)
		if b.Step == bake.Done {
			w.t.Fatalf("not kept: %+v", b)
		}
		return b.Step == bake.Kept
	})
	stop()
	w.fail, w.cloud.Fail = map[string]string{}, nil
	return b
}

func (w *world) baked(name string) bake.Bake {
	w.t.Helper()
	w.wait(name+" ends", func() bool { return get[bake.Bake](w, bake.Kind, name).Step == bake.Done })
	return get[bake.Bake](w, bake.Kind, name)
}

func TestFailedBakeIsKept(t *testing.T) {
	for _, c := range breaks {
		t.Run(string(c.step)+" "+c.fail, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				b := w.broken(w.pack(keeping), c.fail, c.op)
				if b.FailedAt != c.step || b.Error == "" || b.Until.Sub(b.Since) != 2*time.Hour {
					t.Errorf("%+v", b)
				}
				for _, word := range []string{"--resume", "dayfly bake drop " + b.Name, b.Instance} {
					if !strings.Contains(b.Advice(), word) {
						t.Errorf("the advice lacks %q: %s", word, b.Advice())
					}
				}
				left := strings.Join(w.cloud.Left(kept...), "\n")
				for what, want := range map[string]bool{"stack ": true, b.Instance: true, "image ami-": c.step == bake.Launch || c.step == bake.Verify} {
					if strings.Contains(left, what) != want {
						t.Errorf("%q is left: %v; it is %v of\n%s", what, !want, want, left)
					}
				}
				// Who waits for it hears at once why there is none, and the sweep leaves it alone.
				if _, _, err := w.api.bakes.Baked(t.Context(), b.Name); fault.KindOf(err) != fault.Failed || !strings.Contains(fault.HintOf(err), "--resume") {
					t.Errorf("%v", err)
				}
				if r, err := w.api.Sweep(t.Context(), false); err != nil || len(r.Orphans) > 0 {
					t.Errorf("%+v %v", r, err)
				}
				defer w.start(w.store)()
				time.Sleep(time.Until(b.Until) - time.Second)
				if now := get[bake.Bake](w, bake.Kind, b.Name); now.Step != bake.Kept {
					t.Errorf("it did not last: %+v", now)
				}
				if end := w.baked(b.Name); end.Error != b.Error || end.Image != "" || time.Since(b.Until) > 5*time.Minute {
					t.Errorf("%+v", end)
				}
				w.nothingLeft()
			})
		})
	}
}

// With the same inputs a bake goes on from the step that failed.
func TestResume(t *testing.T) {
	for _, c := range breaks {
		t.Run(string(c.step)+" "+c.fail, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				files := w.pack(keeping)
				b := w.broken(files, c.fail, c.op)
				fetched, sealed := w.runs("fetch"), w.runs("seal")
				again, err := w.api.Bake(t.Context(), server.StartBake{Files: files, Resume: true})
				if err != nil || again.Name != b.Name || again.Error != "" {
					t.Fatalf("%+v %v", again, err)
				}
				if same, err := w.api.Bake(t.Context(), server.StartBake{Files: files}); err != nil || same.Attempt != 1 {
					t.Errorf("not a single flight: %+v %v", same, err)
				}
				defer w.start(w.store)()
				end := w.baked(b.Name)
				if end.Error != "" || end.Image == "" || end.Attempt != 1 || end.Try != 1 || end.Instance != b.Instance {
					t.Errorf("%+v", end)
				}
				if c.step != bake.Fetch && w.runs("fetch") != fetched {
					t.Error("it fetched again")
				}
				if c.step == bake.Launch && w.runs("seal") != sealed {
					t.Error("it sealed again")
				}
				im := get[image.Image](w, image.Kind, end.Image)
				if c.step == bake.Verify && (len(im.Canaries) != 2 || im.Canaries[0].Instance == b.Canaries[0].Instance) {
					t.Errorf("old canaries: %+v, %+v", im.Canaries, b.Canaries)
				}
				w.nothingLeft()
			})
		})
	}
}

// With mended code the bake of the new inputs takes the builder over.
func TestResumeMended(t *testing.T) {
	for _, c := range breaks {
		t.Run(string(c.step)+" "+c.fail, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				b := w.broken(w.pack(keeping), c.fail, c.op)
				heir, err := w.api.Bake(t.Context(), server.StartBake{Files: w.pack(mended), Resume: true})
				if err != nil || heir.Name == b.Name || heir.From != b.Name {
					t.Fatalf("%+v %v", heir, err)
				}
				converged := w.runs("puppet")
				defer w.start(w.store)()
				end := w.baked(heir.Name)
				if end.Error != "" || end.Image == "" || end.Instance != b.Instance || end.Inputs == b.Inputs {
					t.Errorf("%+v", end)
				}
				if w.runs("puppet") != converged+1 {
					t.Error("Puppet did not run again")
				}
				if r, err := w.api.Sweep(t.Context(), false); err != nil || len(r.Orphans) > 0 {
					t.Errorf("%+v %v", r, err)
				}
				if im := get[image.Image](w, image.Kind, end.Image); im.Resumed != b.Name {
					t.Errorf("the image does not say where its builder came from: %+v", im)
				}
				if old := w.baked(b.Name); old.Heir != heir.Name || old.Error != b.Error {
					t.Errorf("%+v", old)
				}
				w.nothingLeft()
			})
		})
	}
}

// A builder that was taken over belongs to the bake that has it, though its
// tags name another one.
func TestTakenOverBuilderIsNoOrphan(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		b := w.broken(w.pack(keeping), "puppet", "")
		w.fail["puppet"] = "still"
		heir, err := w.api.Bake(t.Context(), server.StartBake{Files: w.pack(mended), Resume: true, From: b.Name})
		if err != nil {
			t.Fatal(err)
		}
		defer w.start(w.store)()
		w.baked(b.Name)
		w.wait("kept again", func() bool { return get[bake.Bake](w, bake.Kind, heir.Name).Step == bake.Kept })
		for range 3 {
			r, err := w.api.Sweep(t.Context(), false)
			if err != nil || len(r.Orphans) > 0 {
				t.Fatalf("%+v %v", r, err)
			}
			time.Sleep(2 * time.Minute)
		}
		if _, err := w.api.CancelBake(t.Context(), heir.Name); err != nil {
			t.Fatal(err)
		}
		if end := w.baked(heir.Name); !strings.Contains(end.Error, "still") {
			t.Errorf("dropping forgot why it failed: %+v", end)
		}
		w.nothingLeft()
	})
}

func TestKeptBuilder(t *testing.T) {
	t.Run("a bake without resume makes it anew", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			files := w.pack(keeping)
			b := w.broken(files, "puppet", "")
			next, err := w.api.Bake(t.Context(), server.StartBake{Files: files})
			if err != nil || next.Error != "" {
				t.Fatal(next, err)
			}
			defer w.start(w.store)()
			if end := w.baked(b.Name); end.Error != "" || end.Attempt != 2 || end.Instance == b.Instance || end.Stack == b.Stack {
				t.Errorf("%+v", end)
			}
			w.nothingLeft()
		})
	})
	t.Run("it ended meanwhile", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			files := w.pack(keeping)
			b := w.broken(files, "puppet", "")
			w.cloud.EndInstance(b.Instance)
			if _, err := w.api.Bake(t.Context(), server.StartBake{Files: files, Resume: true}); err != nil {
				t.Fatal(err)
			}
			defer w.start(w.store)()
			if end := w.baked(b.Name); !strings.Contains(end.Error, b.Instance+" that was kept is gone") {
				t.Errorf("%+v", end)
			}
			w.nothingLeft()
		})
	})
	t.Run("another base image", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			w.broken(w.pack(keeping), "puppet", "")
			_, err := w.api.Bake(t.Context(), server.StartBake{Files: w.pack(strings.Replace(keeping, "ami-base", "ami-other", 1)), Resume: true})
			if fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "ami-other") {
				t.Error(err)
			}
		})
	})
	t.Run("nothing is kept", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			if _, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files, Resume: true}); fault.KindOf(err) != fault.NotFound || fault.HintOf(err) == "" {
				t.Error(err)
			}
		})
	})
	t.Run("a look inside", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			files := w.pack(keeping)
			b := w.broken(files, "puppet", "")
			r, err := w.api.ExecBake(t.Context(), b.Name, "", "ls")
			if err != nil || r.Stdout != b.Instance {
				t.Errorf("%+v %v", r, err)
			}
			if _, err := w.api.ExecBake(t.Context(), b.Name, "canary-1", "ls"); fault.KindOf(err) != fault.Conflict {
				t.Error(err)
			}
			if _, err := w.api.ExecBake(t.Context(), "nothing", "", "ls"); fault.KindOf(err) != fault.NotFound {
				t.Error(err)
			}
			if _, err := w.api.Bake(t.Context(), server.StartBake{Files: files, Resume: true}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.api.ExecBake(t.Context(), b.Name, "", "ls"); fault.KindOf(err) != fault.Conflict {
				t.Errorf("a command on a builder that is at work: %v", err)
			}
			defer w.start(w.store)()
			end := w.baked(b.Name)
			if im := get[image.Image](w, image.Kind, end.Image); im.Hands != 1 {
				t.Errorf("the image does not say that hands were on its builder: %+v", im)
			}
			w.nothingLeft()
		})
	})
	t.Run("a look at a canary", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			b := w.broken(w.pack(keeping), "check", "")
			for on, want := range map[string]string{"": b.Canaries[0].Instance, "canary-2": b.Canaries[1].Instance} {
				if r, err := w.api.ExecBake(t.Context(), b.Name, on, "ls"); err != nil || r.Stdout != want {
					t.Errorf("%s: %+v %v", on, r, err)
				}
			}
			if _, err := w.api.ExecBake(t.Context(), b.Name, "builder", "ls"); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "sealed and stopped") {
				t.Error(err)
			}
		})
	})
}

// The process is killed at each of its writes, over failures, leases, tries and
// takings-over: nothing is made twice, nothing is left.
func TestResumeOverDeaths(t *testing.T) {
	seed := time.Now().UnixNano()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(uint64(seed), 1))
	for _, c := range breaks {
		for _, before := range []bool{true, false} {
			t.Run(string(c.step)+" "+c.fail, func(t *testing.T) {
				inWorld(t, func(t *testing.T, w *world) {
					files := w.pack(keeping)
					b := w.broken(files, c.fail, c.op)
					stop := w.startMortal(before, func() int64 { return 2 + rnd.Int64N(6) })
					if _, err := w.api.Bake(t.Context(), server.StartBake{Files: files, Resume: true}); err != nil {
						t.Fatal(err)
					}
					if end := w.baked(b.Name); end.Error != "" {
						t.Errorf("%+v", end)
					}
					stop()
					w.nothingLeft()
					// And once more, with mended code.
					again := strings.Replace(keeping, "service: /srv/shop", "service: /srv/shop3", 1)
					b = w.broken(w.pack(again), c.fail, c.op)
					stop = w.startMortal(before, func() int64 { return 2 + rnd.Int64N(6) })
					heir, err := w.api.Bake(t.Context(), server.StartBake{Files: w.pack(mended), Resume: true})
					if err != nil {
						t.Fatal(err)
					}
					if end := w.baked(heir.Name); end.Error != "" {
						t.Errorf("%+v", end)
					}
					w.baked(b.Name)
					stop()
					w.nothingLeft()
					if c.step != bake.Converge && c.step != bake.Launch && c.fail != "check" {
						return
					}
					// Anew, and a lease that nobody uses.
					last := strings.NewReplacer("service: /srv/shop", "service: /srv/shop4", "keep_failed: 2h", "keep_failed: 3m").Replace(keeping)
					for _, anew := range []bool{true, false} {
						b = w.broken(w.pack(last), c.fail, c.op)
						stop = w.startMortal(before, func() int64 { return 2 + rnd.Int64N(6) })
						if anew {
							if _, err := w.api.Bake(t.Context(), server.StartBake{Files: w.pack(last)}); err != nil {
								t.Fatal(err)
							}
						}
						if end := w.baked(b.Name); (end.Error == "") != anew {
							t.Errorf("anew %v: %+v", anew, end)
						}
						stop()
						w.nothingLeft()
					}
				})
			})
		}
	}
}

func TestSingleFlight(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		names := make([]string, 10)
		var wg sync.WaitGroup
		for i := range names {
			wg.Go(func() {
				b, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files})
				if err != nil {
					t.Error(err)
				}
				names[i] = b.Name
			})
		}
		wg.Wait()
		for _, n := range names {
			if n != names[0] {
				t.Errorf("several bakes of the same inputs: %v", names)
			}
		}
		if b := w.bake(); b.Attempt != 1 || b.Error != "" {
			t.Errorf("%+v", b)
		}
		if n := w.cloud.Calls("ec2:CreateImage"); n != 1 {
			t.Errorf("%d images were made", n)
		}
		if ims, err := store.List[image.Image](t.Context(), w.store, image.Kind, ""); err != nil || len(ims) != 1 {
			t.Errorf("%v %v", ims, err)
		}
		w.nothingLeft()
	})
}

func TestQuarantineByHand(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		if _, err := w.api.Bake(ann(t), server.StartBake{Files: w.files}); err != nil {
			t.Fatal(err)
		}
		b := w.bake()
		im := get[image.Image](w, image.Kind, b.Image)
		if im.By != "ann" || im.Base != "ami-base" || len(im.Canaries) != 2 || im.Canaries[0].Identity["machine-id"] == im.Canaries[1].Identity["machine-id"] || len(im.Checks) != 11 {
			t.Errorf("the image does not say how it was made: %+v", im)
		}
		if _, err := w.api.Quarantine(t.Context(), "nothing", server.Quarantine{Quarantined: true, Why: "x"}); fault.KindOf(err) != fault.NotFound {
			t.Error(err)
		}
		if _, err := w.api.Quarantine(t.Context(), b.Image, server.Quarantine{Why: "x"}); fault.KindOf(err) != fault.Conflict {
			t.Errorf("a quarantine ended that there was not: %v", err)
		}
		q, err := w.api.Quarantine(ann(t), b.Image, server.Quarantine{Quarantined: true, Why: "CVE-1"})
		if err != nil || q.State != image.Quarantined || q.Why != "CVE-1 (ann)" {
			t.Errorf("%+v %v", q, err)
		}
		if _, err := w.api.bakes.AMI(t.Context(), b.Image); fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "CVE-1") {
			t.Errorf("it may be launched: %v", err)
		}
		if r, err := w.api.Quarantine(t.Context(), b.Image, server.Quarantine{Why: "not ours"}); err != nil || r.State != image.Candidate {
			t.Errorf("%+v %v", r, err)
		}
		if _, err := w.api.bakes.AMI(t.Context(), b.Image); err != nil {
			t.Error(err)
		}
		// Nobody gets it again by asking for the same.
		if _, err := w.api.Quarantine(t.Context(), b.Image, server.Quarantine{Quarantined: true, Why: "CVE-2"}); err != nil {
			t.Fatal(err)
		}
		if err := w.deploy("dev"); fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "CVE-2") || !strings.Contains(fault.HintOf(err), "dayfly image release") {
			t.Errorf("a deploy of a quarantined image: %v", err)
		}
		if _, err := w.api.Report(t.Context(), b.Image); fault.KindOf(err) != fault.NotFound {
			t.Error(err)
		}
		w.cloud.Put("reports/"+b.Name+".yaml", []byte("status: changed"))
		if raw, err := w.api.Report(t.Context(), b.Image); err != nil || string(raw) != "status: changed" {
			t.Errorf("%s %v", raw, err)
		}
		// A retired one is made again, and the old machine image goes.
		if _, err := update(t.Context(), w.api, image.Kind, b.Image, func(i *image.Image) error { i.State = image.Retired; return nil }); err != nil {
			t.Fatal(err)
		}
		w.mustDeploy()
		w.serves(1)
		if again := get[bake.Bake](w, bake.Kind, b.Name); again.Attempt != 2 || again.AMI == b.AMI {
			t.Errorf("%+v", again)
		}
		w.destroy()
		w.nothingLeft()
	})
}

// A disk that is full is said to be, with whose it is and what to do, at each
// step; and what the bake made goes.
func TestBakeDiskFull(t *testing.T) {
	const said = "write error: No space left on device"
	call := func(op string) func(w *world) {
		return func(w *world) {
			w.cloud.Fail = func(o, object string) error {
				if o == op && strings.HasPrefix(object, bake.Kind) {
					return &fault.Error{Kind: fault.Unavailable, Op: o, Message: "InternalError: " + said}
				}
				return nil
			}
		}
	}
	command := func(step string) func(w *world) { return func(w *world) { w.fail[step] = said } }
	const region, builder = "the region has no room left: free some", "the builder's disk is full: let the Puppet code"
	for _, c := range []struct {
		step bake.Step
		prep func(w *world)
		want string
	}{
		{bake.Inputs, call("s3:PutObject"), region},
		{bake.Inputs, call("cloudformation:CreateStack"), region},
		{bake.Builder, func(w *world) {
			w.cloud.Plan = func(cloud.StackInput) cloudtest.Plan { return cloudtest.Plan{Fail: "mkdir: " + said} }
		}, region},
		{bake.Fetch, command("fetch"), builder},
		{bake.Install, command("install"), builder},
		{bake.Converge, command("puppet"), builder},
		{bake.Seal, command("seal"), builder},
		{bake.Stop, call("ec2:StopInstances"), region},
		{bake.Snapshot, call("ec2:CreateImage"), region},
		{bake.Launch, call("ec2:RunInstances"), region},
		{bake.Verify, command("verify/1"), "the disk of a fresh instance is full"},
	} {
		t.Run(string(c.step), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				c.prep(w)
				began := time.Now()
				if _, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files}); err != nil {
					t.Fatal(err)
				}
				defer w.start(w.store)()
				b := w.bake()
				if b.FailedAt != c.step || !strings.HasPrefix(b.Error, c.want) && !strings.Contains(b.Error, c.want) || !strings.Contains(b.Error, said) {
					t.Errorf("failed at %s: %s", b.FailedAt, b.Error)
				}
				if took := time.Since(began); took > time.Minute {
					t.Errorf("it took %s to say so", took)
				}
				w.nothingLeft()
			})
		})
	}
}

func TestBaseImageGone(t *testing.T) {
	for _, c := range []struct{ name, base string }{{"an AMI", "ami-base"}, {"behind a parameter", "/base"}} {
		t.Run("before, "+c.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				w.cloud.SetParameter("/base", "ami-base")
				files := w.pack(strings.Replace(description, "base: ami-base", "base: "+c.base, 1))
				w.cloud.DropImage("ami-base")
				_, err := w.api.Bake(t.Context(), server.StartBake{Files: files})
				if fault.KindOf(err) != fault.NotFound || !strings.Contains(err.Error(), "the base image ami-base is not there") || fault.HintOf(err) == "" {
					t.Errorf("%v (%s)", err, fault.HintOf(err))
				}
				if left := w.cloud.Left(kept...); len(left) > 0 {
					t.Error(left)
				}
			})
		})
	}
	t.Run("in the middle", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			if _, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files}); err != nil {
				t.Fatal(err)
			}
			w.cloud.DropImage("ami-base")
			w.cloud.Plan = func(s cloud.StackInput) cloudtest.Plan {
				return cloudtest.Plan{Fail: "The image id '[" + s.Parameters["ImageId"] + "]' does not exist (InvalidAMIID.NotFound)"}
			}
			defer w.start(w.store)()
			if b := w.bake(); b.FailedAt != bake.Builder || !strings.Contains(b.Error, "the base image ami-base went away") {
				t.Errorf("%s: %s", b.FailedAt, b.Error)
			}
			w.nothingLeft()
		})
	})
	t.Run("after the builder was made", func(t *testing.T) {
		inWorld(t, func(t *testing.T, w *world) {
			b, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files})
			if err != nil {
				t.Fatal(err)
			}
			defer w.start(w.store)()
			w.wait("it runs", func() bool { return get[bake.Bake](w, bake.Kind, b.Name).Step == bake.Converge })
			w.cloud.DropImage("ami-base")
			if b := w.bake(); b.Error != "" || b.Image == "" {
				t.Errorf("a builder does not need its base image any more: %+v", b)
			}
			if again, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files}); err != nil || again.Step != bake.Done {
				t.Errorf("an image that is there does not need its base image: %+v %v", again, err)
			}
			w.nothingLeft()
		})
	})
}
