package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

type topCmd struct {
	Every time.Duration `help:"How often it is drawn." default:"1s"`
	Once  bool          `help:"Print it once; so it is where there is no terminal."`
}

// topView is what is under way.
type topView struct {
	Environments []environment.Environment `json:"environments"`
	Generations  []environment.Generation  `json:"generations"`
	Runs         []pipeline.Run            `json:"runs"`
	Bakes        []bake.Bake               `json:"bakes"`
}

func (c *topCmd) Run(ctx context.Context, a *app) error {
	screen := terminal(a.out)
	if screen == nil || c.Once || a.Output == "json" {
		v, err := a.top(ctx)
		if err != nil {
			return err
		}
		return a.print(v, func(w io.Writer) {
			for _, l := range v.lines(time.Now()) {
				fmt.Fprintln(w, l)
			}
		})
	}
	defer screen.clear()
	for {
		v, err := a.top(ctx)
		lines := v.lines(time.Now())
		if err != nil {
			lines = []string{"the server does not answer: " + err.Error()}
		}
		screen.draw(lines)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(c.Every, 200*time.Millisecond)):
		}
	}
}

func (a *app) top(ctx context.Context) (v topView, err error) {
	v = topView{Environments: []environment.Environment{}, Generations: []environment.Generation{}, Runs: []pipeline.Run{}, Bakes: []bake.Bake{}}
	es, err := client.List[environment.Environment](ctx, a.client, "environments", "")
	if err != nil {
		return v, err
	}
	gs, err := client.List[environment.Generation](ctx, a.client, "generations", "")
	if err != nil {
		return v, err
	}
	rs, err := client.List[pipeline.Run](ctx, a.client, "runs", "")
	if err != nil {
		return v, err
	}
	bs, err := client.List[bake.Bake](ctx, a.client, "bakes", "")
	if err != nil {
		return v, err
	}
	for _, e := range es {
		if e.Phase != environment.Gone {
			v.Environments = append(v.Environments, e)
		}
	}
	for _, g := range gs {
		if g.Phase != environment.Gone {
			v.Generations = append(v.Generations, g)
		}
	}
	for _, r := range rs {
		if r.Phase != pipeline.Done {
			v.Runs = append(v.Runs, r)
		}
	}
	for _, b := range bs {
		if b.Step != bake.Done {
			v.Bakes = append(v.Bakes, b)
		}
	}
	return v, nil
}

func (v topView) lines(now time.Time) []string {
	healthy, launched, all := map[string]int{}, map[string]int{}, 0
	for _, g := range v.Generations {
		healthy[g.Environment] += g.Healthy
		launched[g.Environment] += g.Launched - g.Lost
		all += g.Healthy
	}
	out := []string{fmt.Sprintf("%s  %d environments, %d healthy instances, %d runs, %d bakes", now.Format(time.TimeOnly), len(v.Environments), all, len(v.Runs), len(v.Bakes))}
	for _, b := range v.Bakes {
		out = append(out, fmt.Sprintf("bake %-24s %s", b.Name, b.Step))
	}
	for _, r := range v.Runs {
		out = append(out, runBlock(r, now)...)
	}
	for _, e := range v.Environments {
		out = append(out, fmt.Sprintf("%-28s %-11s %3d/%-3d %s", e.Name, e.Phase, healthy[e.Name], e.Size, grid(healthy[e.Name], launched[e.Name], e.Size)))
		if e.Blocker != nil {
			out = append(out, "    waits: "+e.Blocker.Message)
		}
	}
	return out
}
