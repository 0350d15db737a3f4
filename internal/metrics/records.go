package metrics

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/currency"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Limited is what a limiter knows of an operation.
type Limited struct {
	Waited time.Duration
	Given  int
}

// Sources is where the numbers of a scrape come from.
type Sources struct {
	Store   store.Store
	Clock   clock.Clock
	Active  func() bool
	Queue   func() map[string]int // by loop
	Limiter func() map[string]Limited
	// Swept is when the cloud was swept last, and how many orphans were left.
	Swept func() (at time.Time, orphans int)
	// Currency is how current the images of environments are.
	Currency func(context.Context) ([]currency.Status, error)
}

// Watch adds what is read at each scrape.
func (s *Set) Watch(src Sources) {
	s.registry.MustRegister(&collector{src: src, began: src.Clock.Now(), descs: descs()})
}

func descs() map[string]*prometheus.Desc {
	out := map[string]*prometheus.Desc{}
	for _, m := range Names {
		if m.Type != Counter && m.Type != Histogram {
			out[m.Name] = prometheus.NewDesc(m.Name, m.Help, m.Labels, nil)
		}
	}
	return out
}

// fresh is how long a reading of the records is used for other scrapes.
const fresh = 5 * time.Second

// collector reads records when it is asked, all at once and not too often.
type collector struct {
	src   Sources
	began time.Time
	descs map[string]*prometheus.Desc

	mu   sync.Mutex
	at   time.Time
	last []prometheus.Metric
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.src.Clock.Now()
	if c.last == nil || now.Sub(c.at) >= fresh {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		c.last, c.at = c.read(ctx, now), now
	}
	for _, m := range c.last {
		ch <- m
	}
}

func (c *collector) read(ctx context.Context, now time.Time) []prometheus.Metric {
	r := &reading{descs: c.descs, now: now}
	r.set("dayfly_uptime_seconds", now.Sub(c.began).Seconds())
	r.set("dayfly_active", truth(c.src.Active()))
	for loop, n := range c.src.Queue() {
		r.set("dayfly_loop_queue", float64(n), loop)
	}
	for op, l := range c.src.Limiter() {
		r.total("dayfly_limiter_waited_seconds_total", l.Waited.Seconds(), op)
		r.total("dayfly_limiter_given_up_total", float64(l.Given), op)
	}
	at, orphans := c.src.Swept()
	r.set("dayfly_orphans", float64(orphans))
	if !at.IsZero() {
		r.set("dayfly_sweep_age_seconds", now.Sub(at).Seconds())
	}
	st := c.src.Store
	bakes, err1 := store.List[bake.Bake](ctx, st, bake.Kind, "")
	images, err2 := store.List[image.Image](ctx, st, image.Kind, "")
	current, err3 := c.src.Currency(ctx)
	envs, err4 := store.List[environment.Environment](ctx, st, environment.Kind, "")
	gens, err5 := store.List[environment.Generation](ctx, st, environment.GenerationKind, "")
	foundations, err6 := store.List[environment.Foundation](ctx, st, environment.FoundationKind, "")
	instances, err7 := store.List[instance.Instance](ctx, st, instance.Kind, "")
	fleets, err8 := store.List[instance.Fleet](ctx, st, instance.FleetKind, "")
	runs, err9 := store.List[pipeline.Run](ctx, st, pipeline.Kind, "")
	releases, err10 := st.List(ctx, release.Kind, "")
	if errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9, err10) != nil {
		r.set("dayfly_up_to_date", 0)
		return r.out
	}
	r.set("dayfly_up_to_date", 1)
	for kind, n := range map[string]int{
		bake.Kind: len(bakes), image.Kind: len(images), environment.Kind: len(envs), environment.GenerationKind: len(gens), environment.FoundationKind: len(foundations),
		instance.Kind: len(instances), instance.FleetKind: len(fleets), pipeline.Kind: len(runs), release.Kind: len(releases),
	} {
		r.set("dayfly_records", float64(n), kind)
	}
	for _, b := range bakes {
		r.blocked(bake.Kind, b.Blocker)
	}
	for _, f := range foundations {
		r.blocked(environment.FoundationKind, f.Blocker)
	}
	for _, f := range fleets {
		r.blocked(instance.FleetKind, f.Blocker)
	}
	for _, v := range runs {
		r.blocked(pipeline.Kind, v.Blocker)
	}
	r.environments(envs, gens)
	r.instances(envs, gens, instances, images, current)
	r.waits()
	return r.out
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// reading is what one look at the records gives.
type reading struct {
	descs map[string]*prometheus.Desc
	now   time.Time
	out   []prometheus.Metric
	wait  map[[2]string]*waits
}

type waits struct {
	n     int
	since time.Time
}

func (r *reading) set(name string, v float64, labels ...string) {
	r.out = append(r.out, prometheus.MustNewConstMetric(r.descs[name], prometheus.GaugeValue, v, labels...))
}

func (r *reading) total(name string, v float64, labels ...string) {
	r.out = append(r.out, prometheus.MustNewConstMetric(r.descs[name], prometheus.CounterValue, v, labels...))
}

func (r *reading) blocked(kind string, b *blocker.Blocker) {
	if b == nil {
		return
	}
	if r.wait == nil {
		r.wait = map[[2]string]*waits{}
	}
	k := [2]string{kind, b.Rule}
	w := r.wait[k]
	if w == nil {
		w = &waits{since: b.Since}
		r.wait[k] = w
	}
	w.n++
	if b.Since.Before(w.since) {
		w.since = b.Since
	}
}

func (r *reading) waits() {
	for k, w := range r.wait {
		r.set("dayfly_blocked", float64(w.n), k[0], k[1])
		r.set("dayfly_blocked_oldest_seconds", r.now.Sub(w.since).Seconds(), k[0], k[1])
	}
}

func (r *reading) environments(envs []environment.Environment, gens []environment.Generation) {
	serving := map[string]environment.Generation{}
	for _, g := range gens {
		r.blocked(environment.GenerationKind, g.Blocker)
		serving[environment.GenerationName(g.Environment, g.Number)] = g
	}
	phases := map[environment.Phase]int{}
	for _, e := range envs {
		r.blocked(environment.Kind, e.Blocker)
		if e.Phase == environment.Gone {
			continue
		}
		phases[e.Phase]++
		if !e.Deadline.IsZero() {
			r.set("dayfly_lease_remaining_seconds", e.Deadline.Sub(r.now).Seconds(), e.Name)
		}
		g, ok := serving[environment.GenerationName(e.Name, e.Serving)]
		if !ok || e.Serving == 0 {
			continue
		}
		if !g.Ready.IsZero() {
			r.set("dayfly_environment_uptime_seconds", r.now.Sub(g.Ready).Seconds(), e.Name)
		}
		if g.Size > 0 {
			r.set("dayfly_environment_healthy_ratio", float64(g.Healthy)/float64(g.Size), e.Name)
		}
	}
	for p, n := range phases {
		r.set("dayfly_environments", float64(n), string(p))
	}
}

// inService tells whether an instance serves now, well or not.
func inService(i instance.Instance) bool {
	return !i.InService.IsZero() && i.State != instance.Gone && i.State != instance.Kept
}

func (r *reading) instances(envs []environment.Environment, gens []environment.Generation, all []instance.Instance, images []image.Image, current []currency.Status) {
	made, states := map[string]time.Time{}, map[image.State]int{}
	for _, i := range images {
		made[i.Name] = i.Created
		states[i.State]++
	}
	for s, n := range states {
		r.set("dayfly_images", float64(n), string(s))
	}
	target := map[string]string{} // image by environment: of those that shall run a certain one
	for _, s := range current {
		if s.Target != "" {
			target[s.Environment] = s.Target
			r.set("dayfly_image_late", map[bool]float64{true: 1}[s.Late], s.Environment)
		}
	}
	type count struct {
		states           map[instance.State]int
		ages             []float64
		current, serving int
		oldest           time.Time
	}
	by := map[string]*count{}
	launched, failed := 0, 0
	for _, i := range all {
		if r.now.Sub(i.Launched) < 24*time.Hour {
			launched++
			if i.Cause == instance.NeverReady {
				failed++
			}
		}
		if i.State == instance.Gone {
			continue
		}
		c := by[i.Environment]
		if c == nil {
			c = &count{states: map[instance.State]int{}}
			by[i.Environment] = c
		}
		c.states[i.State]++
		if !inService(i) {
			continue
		}
		c.serving++
		c.ages = append(c.ages, r.now.Sub(i.Launched).Seconds())
		if i.Image == target[i.Environment] {
			c.current++
		}
		if at, ok := made[i.Image]; ok && (c.oldest.IsZero() || at.Before(c.oldest)) {
			c.oldest = at
		}
	}
	ratio := 0.0
	if launched > 0 {
		ratio = float64(failed) / float64(launched)
	}
	r.set("dayfly_instance_failure_ratio", ratio)
	for env, c := range by {
		for s, n := range c.states {
			r.set("dayfly_instances", float64(n), env, string(s))
		}
		if c.serving == 0 {
			continue
		}
		r.ages(c.ages, env)
		if target[env] != "" {
			r.set("dayfly_image_current_ratio", float64(c.current)/float64(c.serving), env)
		}
		if !c.oldest.IsZero() {
			r.set("dayfly_image_oldest_age_seconds", r.now.Sub(c.oldest).Seconds(), env)
		}
	}
}

func (r *reading) ages(all []float64, env string) {
	buckets, sum := map[float64]uint64{}, 0.0
	for _, b := range ages {
		buckets[b] = 0
	}
	for _, a := range all {
		sum += a
		for _, b := range ages {
			if a <= b {
				buckets[b]++
			}
		}
	}
	r.out = append(r.out, prometheus.MustNewConstHistogram(r.descs["dayfly_instance_age_seconds"], uint64(len(all)), sum, buckets, env))
}
