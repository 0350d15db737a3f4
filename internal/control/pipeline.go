package control

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// runLease is how long a run may take beside its gates and testers.
const runLease = 24 * time.Hour

// Test implements server.Backend.
func (c *Control) Test(ctx context.Context, t server.Test) (pipeline.Run, error) {
	return c.startRun(ctx, t, access.Of(ctx).Name, &started{})
}

// started is what belongs to a run that no person starts.
type started struct {
	cause  pipeline.Cause
	status *pipeline.Status
	with   func(run string) []store.Write // in one batch with the run
}

func (c *Control) startRun(ctx context.Context, t server.Test, by string, st *started) (pipeline.Run, error) {
	var zero pipeline.Run
	if err := c.room("test"); err != nil {
		return zero, err
	}
	b, fsys, err := c.files.Blueprint(ctx, t.Files)
	if err != nil {
		return zero, err
	}
	now := c.clock.Now()
	r := pipeline.Run{
		Blueprint: b.Name, Files: t.Files, Full: t.Full, Team: b.Runs.Team, AtOnce: b.Runs.AtOnce, Supersede: b.Runs.Supersede,
		Phase: pipeline.Pending, By: by, Created: now, Deadline: now.Add(runLease),
	}
	for _, n := range b.Runs.Notify {
		r.Notify = append(r.Notify, pipeline.Notify{To: n.To, Format: n.Format, On: n.On})
	}
	if st.cause.Kind != "" {
		r.Cause = &st.cause
		if st.cause.Commit != "" {
			r.Status = st.status
		}
	}
	if t.Full {
		if err := c.measures(b); err != nil {
			return zero, err
		}
	}
	if r.Stages, r.Suites, err = stages(b, t); err != nil {
		return zero, err
	}
	for _, s := range r.Suites {
		if most := c.cfg.TestInstances; most > 0 && s.Size > most {
			return zero, &fault.Error{Kind: fault.Invalid, Op: "test", Object: s.Name, Message: fmt.Sprintf("the suite asks for %d instances, and this server allows %d for all runs together", s.Size, most), Hint: "dayfly server start --test-instances is the limit"}
		}
		if r.AtOnce > 0 && s.Size > r.AtOnce {
			return zero, &fault.Error{Kind: fault.Invalid, Op: "test", Object: s.Name, Message: fmt.Sprintf("the suite asks for %d instances, and runs.at_once is %d", s.Size, r.AtOnce)}
		}
	}
	bk, err := c.bakes.Start(ctx, b, fsys, t.Files, by)
	if err != nil {
		return zero, err
	}
	r.Bake = bk.Name
	for range 20 {
		old, err := store.List[pipeline.Run](ctx, c.store, pipeline.Kind, b.Name+"-r")
		if err != nil {
			return zero, err
		}
		r.Name = pipeline.RunName(b.Name, pipeline.NextNumber(b.Name, old))
		ws := []store.Write{store.Put(pipeline.Kind, r.Name, 0, r)}
		if r.Status != nil {
			ws = append(ws, store.Put(pipeline.NoticeKind, pipeline.StatusName(r.Name), 0, pipeline.Notice{Run: r.Name}))
		}
		if st.with != nil {
			ws = append(ws, st.with(r.Name)...)
		}
		err = c.store.Apply(ctx, reconcile.Epoch(ctx), ws...)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err == nil && r.Supersede {
			err = c.supersede(ctx, r, old)
		}
		return r, err
	}
	return zero, &fault.Error{Kind: fault.Conflict, Op: "test", Object: b.Name, Message: "others start runs all the time"}
}

// supersede cancels the earlier runs of the same kind that are not over. One
// that is deploying goes on.
func (c *Control) supersede(ctx context.Context, r pipeline.Run, old []pipeline.Run) error {
	var errs []error
	for _, o := range old {
		if !o.SupersededBy(r) {
			continue
		}
		_, err := update(ctx, c, pipeline.Kind, o.Name, func(o *pipeline.Run) error {
			if o.SupersededBy(r) {
				o.Cancel, o.CancelWhy = true, "superseded by "+r.Name
			}
			return nil
		})
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// stages are those of a run: of the whole pipeline, or of automated suites
// alone.
func stages(b *blueprint.Blueprint, t server.Test) (out []pipeline.Stage, suites []pipeline.Suite, err error) {
	refuse := func(kind fault.Kind, message, hint string) ([]pipeline.Stage, []pipeline.Suite, error) {
		return nil, nil, &fault.Error{Kind: kind, Op: "test", Object: b.Name, Message: message, Hint: hint}
	}
	if t.Full && len(t.Suites) > 0 {
		return refuse(fault.Invalid, "a run of the whole pipeline cannot be of some suites only", "")
	}
	var names []string
	for _, st := range b.Pipeline {
		s := pipeline.Stage{Name: st.Name, Required: st.Required, Phase: pipeline.Pending}
		n := len(suites)
		for _, u := range st.Suites {
			names = append(names, u.Name)
			switch asked := slices.Contains(t.Suites, u.Name); {
			case t.Full || asked:
			case len(t.Suites) > 0 || u.IsManual():
				continue
			}
			suites = append(suites, pipeline.Suites(st.Name, u)...)
		}
		switch {
		case len(suites) > n:
		case !t.Full || (st.Gate == nil && st.Deploy == ""):
			continue
		case st.Gate != nil:
			s.Gate = pipeline.GateOf(*st.Gate)
		default:
			s.Deploy = &pipeline.DeployStage{Purpose: st.Deploy}
		}
		out = append(out, s)
	}
	for _, want := range t.Suites {
		if !slices.Contains(names, want) {
			return refuse(fault.NotFound, fmt.Sprintf("the blueprint has no suite %q", want), "it has "+strings.Join(names, ", "))
		}
	}
	if len(suites) == 0 {
		return refuse(fault.Invalid, "the blueprint's pipeline has no automated suite", "pipeline: [{ stage: check, suites: [{ name: api, run: suites/api.sh }] }]")
	}
	return out, suites, nil
}

// Cancel implements server.Backend.
func (c *Control) Cancel(ctx context.Context, run string) (pipeline.Run, error) {
	return update(ctx, c, pipeline.Kind, run, func(r *pipeline.Run) error {
		if r.Phase != pipeline.Done {
			r.Cancel = true
		}
		return nil
	})
}

// Decide implements server.Runs: a person opens a gate, or closes it.
func (c *Control) Decide(ctx context.Context, run, stage string, v server.Decision) (pipeline.Run, error) {
	person, groups, admin := asker(ctx)
	return update(ctx, c, pipeline.Kind, run, func(r *pipeline.Run) error {
		return r.Decide(stage, pipeline.Verdict{Passed: v.Passed, By: person, Comment: v.Comment, At: c.clock.Now(), Override: v.Override}, groups, admin)
	})
}

// Judge implements server.Runs: a tester says how a manual suite went.
func (c *Control) Judge(ctx context.Context, run, suite string, v server.Decision) (pipeline.Run, error) {
	person, _, _ := asker(ctx)
	return update(ctx, c, pipeline.Kind, run, func(r *pipeline.Run) error {
		return r.Judge(suite, pipeline.Verdict{Passed: v.Passed, By: person, Comment: v.Comment, At: c.clock.Now(), Checked: v.Checked})
	})
}

// Attach implements server.Runs.
func (c *Control) Attach(ctx context.Context, run, suite, file string, body []byte) (pipeline.Run, error) {
	person, _, _ := asker(ctx)
	a := pipeline.Attachment{Name: file, Size: int64(len(body)), By: person, At: c.clock.Now()}
	r, _, err := known[pipeline.Run](ctx, c, pipeline.Kind, run, runsAre)
	if err != nil {
		return r, err
	}
	if err := r.Attach(suite, a); err != nil { // before anything is stored
		return r, err
	}
	sum := sha256.Sum256(append([]byte(file+"\x00"), body...))
	object := pipeline.Kind + "/" + run
	in := cloud.Intent{ID: fmt.Sprintf("%s/attach/%s/%x/%d", object, suite, sum[:8], a.At.UnixNano()), Object: object}
	if err := c.cloud.PutObject(ctx, in, r.Suite(suite).Results+"attachments/"+file, bytes.NewReader(body), a.Size); err != nil {
		return r, err
	}
	return update(ctx, c, pipeline.Kind, run, func(r *pipeline.Run) error { return r.Attach(suite, a) })
}

const runsAre = "dayfly run list" // where the names of runs are

// suiteOf reads a suite and its run.
func (c *Control) suiteOf(ctx context.Context, run, suite string) (pipeline.Run, pipeline.Suite, error) {
	r, _, err := known[pipeline.Run](ctx, c, pipeline.Kind, run, runsAre)
	if err != nil {
		return r, pipeline.Suite{}, err
	}
	if s := r.Suite(suite); s != nil {
		return r, *s, nil
	}
	var names []string
	for _, s := range r.Suites {
		names = append(names, s.Name)
	}
	return r, pipeline.Suite{}, &fault.Error{Kind: fault.NotFound, Object: "run " + run, Message: "it has no suite " + suite, Hint: "it has " + strings.Join(names, ", ")}
}

// maxKept is the largest file of a run that the API hands out.
const maxKept = 32 << 20

// Results implements server.Backend.
func (c *Control) Results(ctx context.Context, run, suite, file string) ([]byte, error) {
	r, s, err := c.suiteOf(ctx, run, suite)
	if err != nil {
		return nil, err
	}
	if !r.Emptied.IsZero() {
		return nil, emptied(r, file)
	}
	if s.Results == "" {
		return nil, &fault.Error{Kind: fault.NotFound, Object: "suite " + suite, Message: "it has not begun, so there is nothing of it yet"}
	}
	if !fs.ValidPath(file) {
		return nil, &fault.Error{Kind: fault.Invalid, Object: "suite " + suite, Message: fmt.Sprintf("%q is no path in what it left", file)}
	}
	return c.cloud.Object(ctx, s.Results+file, maxKept)
}

// Artifacts implements server.Runs: what a suite left, by path.
func (c *Control) Artifacts(ctx context.Context, run, suite string) ([]string, error) {
	_, s, err := c.suiteOf(ctx, run, suite)
	if err != nil || s.Results == "" {
		return []string{}, err
	}
	keys, err := c.cloud.ListObjects(ctx, s.Results)
	out := []string{}
	for _, k := range keys {
		out = append(out, strings.TrimPrefix(k, s.Results))
	}
	return out, err
}

// asker is who asks, their groups, and whether they administer this server. On
// the unix socket the groups are those of the machine.
func asker(ctx context.Context) (person string, groups []string, admin bool) {
	p := access.Of(ctx)
	groups = p.Groups
	if uid, ok := strings.CutPrefix(p.ID, "os:"); ok {
		if u, err := user.LookupId(uid); err == nil {
			ids, _ := u.GroupIds()
			for _, id := range ids {
				if g, err := user.LookupGroupId(id); err == nil {
					groups = append(groups, g.Name)
				}
			}
		}
	}
	return cmp.Or(p.Name, "somebody"), groups, p.Role.Allows(access.Admin)
}

// Ship implements advance.Deployer.
func (c *Control) Ship(ctx context.Context, r pipeline.Run, purpose string) (string, []store.Write, error) {
	b, _, err := c.files.Blueprint(ctx, r.Files)
	if err != nil {
		return "", nil, err
	}
	want, ok := b.Environments[purpose]
	if !ok {
		return "", nil, &fault.Error{Kind: fault.Invalid, Op: "deploy", Object: b.Name, Message: "the blueprint has no environment " + purpose}
	}
	name := b.Name + "-" + purpose
	e, version, err := c.admit(ctx, name, b.Name)
	if err != nil {
		return "", nil, err
	}
	if e.Name == "" {
		if err := c.forgetGone(ctx, name); err != nil {
			return "", nil, err
		}
	}
	wish(&e, name, b, want, &environment.Change{Files: r.Files, Image: r.Image, Release: r.Release, Size: want.Instances(), By: pipeline.Kind + "/" + r.Name, Asked: c.clock.Now()})
	return name, []store.Write{store.Put(environment.Kind, name, version, e)}, nil
}

// Prove implements advance.Prover.
func (c *Control) Prove(ctx context.Context, run string) (pipeline.Clean, error) {
	things, seen, err := c.sweeper.Of(cloud.WithPriority(ctx, cloud.Tests), func(object string) bool { return pipeline.Owns(run, object) })
	out := pipeline.Clean{At: c.clock.Now(), Seen: seen, Left: len(things)}
	for _, t := range things {
		if len(out.Names) < 20 {
			out.Names = append(out.Names, t.Kind+" "+t.ID)
		}
	}
	return out, err
}
