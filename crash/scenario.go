package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/sweep"
)

// patience is how long an operation may take, its interruption included; a
// longer one is stuck.
var patience = 60 * time.Second

// scenario is something that a person asks for once. It returns what was found
// wrong when it is over; an error is a wait that did not end.
type scenario struct {
	name string
	run  func(ctx context.Context, w *world, arm func()) (outcome, error)
	real bool // also on real instances
}

// outcome of a scenario.
type outcome struct {
	undone string // it failed cleanly, with this reason
	lost   []string
}

var scenarios = []scenario{
	{"bake", bakeOnce, true}, {"deploy", deployOnce, true}, {"redeploy", redeployOnce, false}, {"teardown", teardownOnce, true},
	{"image", imageOnce, false}, {"test", testOnce, true}, {"cancel", cancelOnce, false},
}

// settle waits for a condition and starts the server again when it has died.
func (w *world) settle(ctx context.Context, what string, done func() (bool, string, error)) error {
	last := ""
	err := until(ctx, patience, func() error {
		if err := w.revive(ctx); err != nil {
			return err
		}
		ok, state, err := done()
		if err == nil && !ok {
			err = errors.New(state)
		}
		if state != "" {
			last = state
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s (%s): %w", what, last, err)
	}
	return nil
}

// ask repeats a request until the server takes it: a person whose request got no
// answer does the same.
func (w *world) ask(ctx context.Context, what string, f func() error) error {
	return w.settle(ctx, what, func() (bool, string, error) {
		err := f()
		switch fault.KindOf(err) {
		case fault.NotFound:
			if strings.HasPrefix(what, "remove") {
				return true, "", nil
			}
		case fault.Conflict:
			if strings.Contains(err.Error(), "is under way") { // the one that got no answer
				return true, "", nil
			}
		}
		return err == nil, "", err
	})
}

func bakeOnce(ctx context.Context, w *world, arm func()) (o outcome, err error) {
	files, err := w.send(ctx, true)
	if err != nil {
		return o, err
	}
	arm()
	var b bake.Bake
	if err := w.ask(ctx, "start the bake", func() error {
		return w.api.Post(ctx, "/v1/bakes", nil, map[string]string{"files": files}, &b)
	}); err != nil {
		return o, err
	}
	if o, err = w.baked(ctx, b.Name); err != nil {
		return o, err
	}
	w.proxy.disarm()
	return o, w.removeImage(ctx, b.Name)
}

// baked waits for a bake and looks at what it left.
func (w *world) baked(ctx context.Context, name string) (o outcome, err error) {
	var b bake.Bake
	if err := w.settle(ctx, "bake", func() (bool, string, error) {
		b, err = client.One[bake.Bake](ctx, w.api, "bakes", name)
		return b.Step == bake.Done, string(b.Step) + " " + b.Sentence, err
	}); err != nil {
		return o, err
	}
	if b.Error != "" {
		return outcome{undone: b.Error}, nil
	}
	im, err := client.One[image.Image](ctx, w.api, "images", b.Image)
	if err != nil || im.Name == "" {
		o.lost = append(o.lost, "image "+b.Image)
		return o, err
	}
	if _, err := w.cloud.Image(ctx, im.AMI); err != nil {
		o.lost = append(o.lost, "machine image "+im.AMI)
	}
	return o, nil
}

func (w *world) removeImage(ctx context.Context, name string) error {
	return w.ask(ctx, "remove the image", func() error { return w.api.Delete(ctx, "/v1/images/"+name, nil) })
}

const env = "shop-small"

func (w *world) deploy(ctx context.Context) (o outcome, err error) {
	files, err := w.send(ctx, false)
	if err != nil {
		return o, err
	}
	if err := w.ask(ctx, "deploy", func() error {
		return w.api.Post(ctx, "/v1/environments", nil, server.Deploy{Files: files, Purpose: "small"}, nil)
	}); err != nil {
		return o, err
	}
	return o, w.settle(ctx, "deploy", func() (bool, string, error) {
		e, err := client.One[environment.Environment](ctx, w.api, "environments", env)
		if e.Error != "" {
			o.undone = e.Error
			return true, "", nil
		}
		why := string(e.Phase)
		if e.Blocker != nil {
			why += " " + e.Blocker.Message
		}
		return e.Serving != 0 && e.Phase == environment.Serving && e.Next == nil && e.Want == e.Serving, why, err
	})
}

func (w *world) destroy(ctx context.Context) error {
	if err := w.ask(ctx, "remove the environment", func() error { return w.api.Delete(ctx, "/v1/environments/"+env, nil) }); err != nil {
		return err
	}
	return w.settle(ctx, "teardown", func() (bool, string, error) {
		e, err := client.One[environment.Environment](ctx, w.api, "environments", env)
		why := string(e.Phase)
		if e.Blocker != nil {
			why += " " + e.Blocker.Message
		}
		return e.Phase == environment.Gone, why, err
	})
}

func deployOnce(ctx context.Context, w *world, arm func()) (o outcome, err error) {
	arm()
	if o, err = w.deploy(ctx); err != nil {
		return o, err
	}
	w.proxy.disarm()
	return o, w.destroy(ctx)
}

// redeployOnce replaces what serves.
func redeployOnce(ctx context.Context, w *world, arm func()) (o outcome, err error) {
	if o, err = w.deploy(ctx); err != nil {
		return o, err
	}
	e, err := client.One[environment.Environment](ctx, w.api, "environments", env)
	if err != nil {
		return o, err
	}
	arm()
	if o, err = w.deploy(ctx); err != nil {
		return o, err
	}
	// What served before goes after the answer.
	if err := w.settle(ctx, "end of the former generation", func() (bool, string, error) {
		g, err := client.One[environment.Generation](ctx, w.api, "generations", environment.GenerationName(env, e.Serving))
		return g.Phase == environment.Gone, string(g.Phase), err
	}); err != nil {
		return o, err
	}
	w.proxy.disarm()
	return o, w.destroy(ctx)
}

// imageOnce removes an image.
func imageOnce(ctx context.Context, w *world, arm func()) (o outcome, err error) {
	files, err := w.send(ctx, true)
	if err != nil {
		return o, err
	}
	var b bake.Bake
	if err := w.api.Post(ctx, "/v1/bakes", nil, map[string]string{"files": files}, &b); err != nil {
		return o, err
	}
	if o, err = w.baked(ctx, b.Name); err != nil {
		return o, err
	}
	arm()
	return o, w.removeImage(ctx, b.Name)
}

func teardownOnce(ctx context.Context, w *world, arm func()) (o outcome, err error) {
	if o, err = w.deploy(ctx); err != nil {
		return o, err
	}
	arm()
	return o, w.destroy(ctx)
}

func testOnce(ctx context.Context, w *world, arm func()) (o outcome, err error) {
	r, err := w.test(ctx, arm, func(r pipeline.Run) (bool, error) { return r.Phase == pipeline.Done, nil })
	if err != nil {
		return o, err
	}
	for _, s := range r.Suites {
		if s.Passed == 0 && s.Error == "" {
			o.lost = append(o.lost, "result of "+s.Name)
		}
	}
	if !r.Passed {
		o.undone = r.Error
		for _, s := range r.Suites {
			o.undone += " " + s.Name + ": " + s.Error
		}
	}
	return o, nil
}

// cancelOnce cancels a run when its environments are on their way.
func cancelOnce(ctx context.Context, w *world, arm func()) (o outcome, err error) {
	canceled := false
	_, err = w.test(ctx, arm, func(r pipeline.Run) (bool, error) {
		if !canceled && w.proxy.count() >= 24 { // the suites' instances are there
			err := w.api.Delete(ctx, "/v1/runs/"+r.Name, nil)
			canceled = err == nil
			return false, err
		}
		return r.Phase == pipeline.Done, nil
	})
	return o, err
}

// test starts a run and waits for it; done is asked again and again.
func (w *world) test(ctx context.Context, arm func(), done func(pipeline.Run) (bool, error)) (r pipeline.Run, err error) {
	files, err := w.send(ctx, false)
	if err != nil {
		return r, err
	}
	before, err := client.List[pipeline.Run](ctx, w.api, "runs", "")
	if err != nil {
		return r, err
	}
	arm()
	if err := w.ask(ctx, "start the run", func() error {
		now, err := client.List[pipeline.Run](ctx, w.api, "runs", "")
		if err != nil {
			return err
		}
		for _, n := range now { // the one that got no answer
			if !slices.ContainsFunc(before, func(b pipeline.Run) bool { return b.Name == n.Name }) {
				r = n
				return nil
			}
		}
		return w.api.Post(ctx, "/v1/runs", nil, server.Test{Files: files}, &r)
	}); err != nil {
		return r, err
	}
	name := r.Name
	return r, w.settle(ctx, "run", func() (bool, string, error) {
		if r, err = client.One[pipeline.Run](ctx, w.api, "runs", name); err != nil {
			return false, "", err
		}
		why := string(r.Phase)
		if r.Blocker != nil {
			why += " " + r.Blocker.Message
		}
		ok, err := done(r)
		return ok, why, err
	})
}

// inventory is everything of this server's in the region, a line each.
func (w *world) inventory(ctx context.Context) ([]string, error) {
	var out []string
	stacks, err1 := w.cloud.Stacks(ctx)
	for _, s := range stacks {
		out = append(out, "stack "+s.Name+" "+s.Status)
	}
	groups, err2 := w.cloud.Groups(ctx)
	for _, g := range groups {
		out = append(out, "group "+g.Name)
	}
	images, err3 := w.cloud.Images(ctx)
	for _, i := range images {
		out = append(out, "image "+i.ID+" "+i.Name)
	}
	strays, err6 := w.cloud.Strays(ctx)
	for _, s := range strays {
		out = append(out, s.Kind+" "+s.ID)
	}
	objects, err4 := w.cloud.ListObjects(ctx, "")
	for _, k := range objects {
		switch kind, _, _ := strings.Cut(k, "/"); kind {
		case "blueprints", "releases", "results", "reports", "templates", "sbom", "provenance", "images": // kept for people, on purpose
		default:
			out = append(out, "object "+k)
		}
	}
	// The region is ours alone: what it counts has no other owner.
	var st struct{ Instances, VPCs, Stacks, Groups int }
	err5 := w.admin.Get(ctx, "/status", nil, &st)
	out = append(out, fmt.Sprintf("%d instances, %d networks, %d stacks, %d groups", st.Instances, st.VPCs, st.Stacks, st.Groups))
	slices.Sort(out)
	return out, errors.Join(err1, err2, err3, err4, err5, err6)
}

// left is what is there beyond a former inventory, given a while to go.
func (w *world) left(ctx context.Context, base []string) ([]string, error) {
	var more []string
	err := until(ctx, 5*time.Second, func() error {
		now, err := w.inventory(ctx)
		if err != nil {
			return err
		}
		more = nil
		for _, l := range now {
			if !slices.Contains(base, l) {
				more = append(more, l)
			}
		}
		if len(more) > 0 {
			return errors.New("not yet")
		}
		return nil
	})
	if len(more) > 0 {
		err = nil
	}
	return more, err
}

// doubles are intents that made something more than once.
func (w *world) doubles(ctx context.Context) ([]string, error) {
	is, err := w.cloud.Instances(ctx, map[string]string{"tag:" + cloud.TagOwner: w.cloud.Owner()}) // terminated ones too
	if err != nil {
		return nil, err
	}
	made := map[string]int{}
	for _, i := range is {
		if in := i.Tags[cloud.TagIntent]; in != "" && i.Tags["aws:autoscaling:groupName"] == "" {
			made[in]++
		}
	}
	var out []string
	for in, n := range made {
		most := 1
		if strings.Contains(in, "/canaries") { // one call makes two
			most = 2
		}
		if n > most {
			out = append(out, fmt.Sprintf("%d instances of %s", n, in))
		}
	}
	for _, c := range w.proxy.repeated() {
		out = append(out, "command "+c)
	}
	return out, nil
}

func (w *world) sweep(ctx context.Context) (sweep.Report, error) {
	var r sweep.Report
	err := w.api.Post(ctx, "/v1/sweep", nil, nil, &r)
	return r, err
}
