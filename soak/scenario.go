package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/soak/load"
)

type short struct{ have, want int }

func (s *short) Error() string { return fmt.Sprintf("%d of %d are healthy", s.have, s.want) }

// scenario is all that is lived through, the faults between what is planned.
func (w *world) scenario(ctx context.Context) error {
	if err := w.production(ctx); err != nil {
		return err
	}
	return w.launch(ctx)
}

func (w *world) production(ctx context.Context) (err error) {
	w.say("planned", "bake the image and deploy %d instances that survive a lost zone", w.Instances)
	if _, err := w.dayfly(ctx, "deploy", w.shop, purpose); err != nil {
		return err
	}
	e, _, err := w.look(ctx)
	if err != nil {
		return err
	}
	if err := w.settled(ctx); err != nil {
		return err
	}
	w.begun = time.Now()
	if w.load, err = load.Start(e.Address, w.Rate); err != nil {
		return err
	}
	w.watch(ctx)
	defer func() {
		w.unwatch()
		w.asked, w.lasted = w.load.End(), time.Since(w.begun)
		lives, e := client.List[instance.Instance](context.WithoutCancel(ctx), w.api, "instances", name+"/")
		if w.lives = lives; err == nil {
			err = e
		}
	}()
	if err := w.calm(ctx, 3*time.Second); err != nil {
		return err
	}
	steps := w.steps()
	kills := shares(w.Kills, len(steps))
	for i, s := range steps {
		if err := s(ctx); err != nil {
			return err
		}
		if err := w.killSome(ctx, kills[i]); err != nil {
			return err
		}
	}
	left := time.Duration(w.Minutes*float64(time.Minute)) - time.Since(w.begun)
	w.say("planned", "%s are left", max(0, left).Round(time.Second))
	return w.calm(ctx, max(left, load.Slowly+time.Second))
}

type step func(ctx context.Context) error

// steps mixes what is planned and what goes wrong, the same each time.
func (w *world) steps() (out []step) {
	version := 0
	next := func(to string) step {
		version++
		v := fmt.Sprintf("1.%d.0", version)
		return func(ctx context.Context) error { return w.deploy(ctx, v, to, nil) }
	}
	killed := func(daemon string) step {
		return func(ctx context.Context) error { return w.kill9(ctx, daemon) }
	}
	out = append(out, next(blueGreen))
	for i := range w.Zones {
		out = append(out, func(ctx context.Context) error { return w.loseZone(ctx, "local-1"+string(rune('a'+i%3))) })
	}
	for range w.Releases - 1 {
		out = append(out, next(blueGreen))
	}
	for i := range w.Images {
		out = append(out, func(ctx context.Context) error {
			if err := w.goodImage(i + 1); err != nil {
				return err
			}
			return w.change(ctx, fmt.Sprintf("roll image %d out", i+1), blueGreen, nil)
		})
	}
	for range w.Rolling {
		out = append(out, next(rolling))
	}
	for range w.Recreate {
		out = append(out, next(recreate))
	}
	// Half of the servers that die do so in the middle of a deploy.
	middle := w.Servers / 2
	if middle > 0 {
		version++
		v := fmt.Sprintf("1.%d.0", version)
		out = append(out, func(ctx context.Context) error {
			return w.deploy(ctx, v, blueGreen, func(ctx context.Context) error {
				for range middle {
					if err := pause(ctx, 500*time.Millisecond); err != nil {
						return err
					}
					if err := w.kill9(ctx, "server"); err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	for range w.Servers - middle {
		out = append(out, killed("server"))
	}
	for range w.Regions {
		out = append(out, killed("region"))
	}
	out = append(out, w.boxIsDown)
	for i := range w.BadReleases {
		out = append(out, func(ctx context.Context) error { return w.badRelease(ctx, fmt.Sprintf("9.%d.0", i)) })
	}
	for range w.BadImages {
		out = append(out, w.badImageOut)
	}
	version++
	v := fmt.Sprintf("1.%d.0", version)
	return append(out, func(ctx context.Context) error { return w.goBack(ctx, v) })
}

// shares divides n among so many, as even as it goes.
func shares(n, among int) []int {
	out := make([]int, among)
	for i := range out {
		out[i] = n*(i+1)/among - n*i/among
	}
	return out
}

func (w *world) calm(ctx context.Context, d time.Duration) error { return pause(ctx, d) }

func (w *world) deploy(ctx context.Context, version, strategy string, meanwhile step) error {
	if err := w.release(version, "true"); err != nil {
		return err
	}
	if err := w.change(ctx, "deploy release "+version, strategy, meanwhile); err != nil {
		return err
	}
	w.version = version
	return nil
}

// change deploys what the blueprint and the box have now, and waits until one
// generation is alone and whole.
func (w *world) change(ctx context.Context, what, strategy string, meanwhile step) error {
	if err := w.strategy(strategy); err != nil {
		return err
	}
	kind, _, _ := strings.Cut(strings.TrimPrefix(strategy, "{ strategy: "), ",")
	w.say("planned", "%s, %s", what, kind)
	begun := time.Now()
	before, _, err := w.look(ctx)
	if err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() {
		_, err := w.dayfly(ctx, "deploy", w.shop, purpose)
		ended <- err
	}()
	if meanwhile != nil {
		if err := until(ctx, time.Minute, func() error {
			if e, _, err := w.look(ctx); err != nil || e.Want == before.Want && e.Next == nil {
				return errors.New("the deploy has not begun")
			}
			return nil
		}); err != nil {
			return err
		}
		if err := meanwhile(ctx); err != nil {
			return err
		}
	}
	if err := <-ended; err != nil && meanwhile == nil {
		return err
	}
	if err := w.settled(ctx); err != nil {
		return err
	}
	e, _, err := w.look(ctx)
	if err == nil && (e.Serving == before.Serving || e.Error != "") {
		err = fmt.Errorf("%s: generation %d serves as before: %s", what, e.Serving, e.Error)
	}
	if err != nil {
		return err
	}
	w.took(what[:strings.LastIndex(what, " ")]+", "+kind, time.Since(begun))
	return nil
}

// settled waits until one generation serves and nothing else is there.
func (w *world) settled(ctx context.Context) error {
	err := until(ctx, 6*time.Minute, func() error {
		e, gs, err := w.look(ctx)
		if err != nil {
			return err
		}
		live := 0
		for _, g := range gs {
			if g.Phase != environment.Gone {
				live++
			}
		}
		if e.Next != nil || e.Shift != nil || live != 1 || e.Want != e.Serving {
			return fmt.Errorf("%d generations live, %d is wanted, %d serves, blocker %+v", live, e.Want, e.Serving, e.Blocker)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("wait for one generation: %w", err)
	}
	return w.whole(ctx, 3*time.Minute)
}

// killSome kills instances one after the other, wherever the floor allows.
func (w *world) killSome(ctx context.Context, n int) error {
	for range n {
		var ids []string
		err := until(ctx, 2*time.Minute, func() (err error) {
			if ids, _, err = w.healthy(ctx); err == nil && len(ids) <= w.Instances {
				err = &short{len(ids), w.Instances + 1}
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("wait for room to kill one: %w", err)
		}
		slices.Sort(ids)
		id := ids[w.random.IntN(len(ids))]
		w.mu.Lock()
		w.killed[id] = true
		w.mu.Unlock()
		k := kill{From: time.Now(), What: id}
		if err := w.killInstance(ctx, id); err != nil {
			return err
		}
		k.To = time.Now()
		w.say("fault", "kill instance %s", id)
		w.mu.Lock()
		w.kills = append(w.kills, k)
		w.mu.Unlock()
		if err := pause(ctx, time.Second+time.Duration(w.random.IntN(1000))*time.Millisecond); err != nil {
			return err
		}
	}
	if n == 0 {
		return nil
	}
	return w.whole(ctx, 3*time.Minute)
}

func (w *world) loseZone(ctx context.Context, zone string) error {
	w.say("fault", "lose zone %s", zone)
	k := kill{From: time.Now(), What: "zone " + zone}
	var z []struct {
		Ended []string `json:"ended"`
	}
	if err := w.json(ctx, &z, "region", "zone", zone, "--lost"); err != nil {
		return err
	}
	k.To = time.Now()
	w.mu.Lock()
	w.kills = append(w.kills, k)
	for _, id := range z[0].Ended {
		w.killed[id] = true
	}
	w.mu.Unlock()
	if err := w.calm(ctx, max(10*time.Second, time.Duration(w.Minutes*float64(time.Second)))); err != nil {
		return err
	}
	w.say("fault", "zone %s is back; %d instances died with it", zone, len(z[0].Ended))
	back := time.Now()
	if _, err := w.dayfly(ctx, "region", "zone", zone, "--no-lost"); err != nil {
		return err
	}
	if err := w.whole(ctx, 5*time.Minute); err != nil {
		return err
	}
	w.took("a zone that is back, until all serve", time.Since(back))
	return nil
}

// boxIsDown shuts the box; what dies meanwhile takes its release elsewhere.
func (w *world) boxIsDown(ctx context.Context) error {
	w.say("fault", "the box is down")
	w.shutBox()
	end := time.Now().Add(w.BoxDown)
	if err := w.killSome(ctx, 2); err != nil {
		return err
	}
	if err := w.calm(ctx, max(0, time.Until(end))); err != nil {
		return err
	}
	w.say("fault", "the box is up again")
	return w.openBox()
}

func (w *world) badRelease(ctx context.Context, version string) error {
	if err := w.strategy(blueGreen); err != nil {
		return err
	}
	if err := w.release(version, "rm -rf /srv/shop/data; touch /srv/shop/data"); err != nil {
		return err
	}
	return w.bad(ctx, "release "+version+", which takes no orders", "its check deploy/check ended with Failed")
}

func (w *world) badImageOut(ctx context.Context) error {
	if err := w.strategy(blueGreen); err != nil {
		return err
	}
	if err := w.badImage(); err != nil {
		return err
	}
	if err := w.bad(ctx, "an image on which no release can be unpacked", ""); err != nil {
		return err
	}
	return w.goodImage(0)
}

// bad deploys what must not stay. Requests that meet a bad release are the
// release's failures and not the change's: they are counted apart.
func (w *world) bad(ctx context.Context, what, says string) error {
	w.say("planned", "deploy %s", what)
	before, _, err := w.look(ctx)
	if err != nil {
		return err
	}
	from := time.Now()
	out, err := w.dayfly(ctx, "deploy", w.shop, purpose)
	if err == nil {
		return fmt.Errorf("the deploy of %s succeeded", what)
	}
	if !strings.Contains(out, says) {
		return fmt.Errorf("the deploy of %s does not end because of that: %w", what, err)
	}
	e, gs, err := w.look(ctx)
	if err != nil {
		return err
	}
	if e.Serving != before.Serving {
		return fmt.Errorf("generation %d serves after %s, and not %d", e.Serving, what, before.Serving)
	}
	w.mu.Lock()
	w.met = append(w.met, span{from, time.Now().Add(load.Slowly)})
	for _, g := range gs {
		if g.Number > before.Serving {
			w.faults[g.Number] = true
		}
	}
	w.mu.Unlock()
	w.say("result", "generation %d serves again, by itself", e.Serving)
	if err := w.back(w.version); err != nil {
		return err
	}
	return w.settled(ctx)
}

// goBack deploys a release and takes it back while it soaks.
func (w *world) goBack(ctx context.Context, version string) error {
	before, _, err := w.look(ctx)
	if err != nil {
		return err
	}
	if err := w.strategy(longSoak); err != nil {
		return err
	}
	if err := w.release(version, "true"); err != nil {
		return err
	}
	w.say("planned", "deploy release %s, and go back within its soak", version)
	if _, err := w.dayfly(ctx, "deploy", w.shop, purpose); err != nil {
		return err
	}
	clicked := time.Now()
	if _, err := w.dayfly(ctx, "rollback", name, "--why", "orders are slow"); err != nil {
		return err
	}
	took := time.Since(clicked)
	e, _, err := w.look(ctx)
	if err != nil {
		return err
	}
	if e.Serving != before.Serving {
		return fmt.Errorf("generation %d serves after going back, and not %d", e.Serving, before.Serving)
	}
	w.took("going back, from the click to all traffic", took)
	w.say("result", "all traffic is back after %s", took.Round(time.Millisecond))
	return w.settled(ctx)
}
