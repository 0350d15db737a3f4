package cloudtest

import (
	"context"
	"slices"
	"time"

	"github.com/dayfly-infra/dayfly/internal/cloud"
)

// A load balancer's figures come as on AWS: of whole minutes, and late.
const (
	figuresPeriod = time.Minute
	figuresLate   = 90 * time.Second
)

type figure struct{ requests, errors, took float64 }

// count gives the requests since the last look to the target groups by weight;
// a stack's plan says how many of them fail.
func (c *Cloud) count(now time.Time) {
	from := c.countedTo
	c.countedTo = now
	if c.Rate == 0 || from.IsZero() {
		return
	}
	for _, l := range c.listeners {
		total := 0
		for _, w := range l.weights {
			total += w.Weight
		}
		for _, w := range l.weights {
			if w.Weight == 0 {
				continue
			}
			g := c.behind(w.TargetGroup)
			for at := from; at.Before(now); {
				next := at.Truncate(figuresPeriod).Add(figuresPeriod)
				if next.After(now) {
					next = now
				}
				key := at.Truncate(figuresPeriod)
				if c.figures[w.TargetGroup] == nil {
					c.figures[w.TargetGroup] = map[time.Time]figure{}
				}
				f := c.figures[w.TargetGroup][key]
				n := c.Rate * next.Sub(at).Seconds() * float64(w.Weight) / float64(total)
				f.requests += n
				if g != nil {
					f.errors += n * g.plan.Errors
					f.took += n * g.plan.Latency.Seconds()
				}
				c.figures[w.TargetGroup][key] = f
				at = next
			}
		}
	}
}

func (c *Cloud) behind(targets string) *group {
	for _, g := range c.groups {
		if g.target == targets {
			return g
		}
	}
	return nil
}

// FiguresPeriod implements the driver's.
func (*Driver) FiguresPeriod() time.Duration { return figuresPeriod }

// Figures implements the driver's.
func (d *Driver) Figures(ctx context.Context, listener string, groups []string, from, to time.Time) ([]cloud.Figures, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	defer d.c.lock()()
	d.c.calls["cloudwatch:GetMetricData"]++
	if d.c.Fail != nil {
		if err := d.c.Fail("cloudwatch:GetMetricData", listener); err != nil {
			return nil, err
		}
	}
	if d.c.listeners[listener] == nil || !from.Equal(from.Truncate(figuresPeriod)) {
		return nil, Absent("cloudwatch:GetMetricData", listener)
	}
	var out []cloud.Figures
	for _, tg := range groups {
		for at, f := range d.c.figures[tg] {
			if f.requests >= 1 && !at.Before(from) && at.Before(to) && d.c.Clock.Now().Sub(at) >= figuresPeriod+figuresLate {
				out = append(out, cloud.Figures{TargetGroup: tg, At: at, Requests: int64(f.requests), Errors: int64(f.errors), Timed: int64(f.requests), Took: time.Duration(f.took * float64(time.Second))})
			}
		}
	}
	slices.SortFunc(out, func(a, b cloud.Figures) int { return a.At.Compare(b.At) })
	return out, nil
}

// Replan changes what becomes of a stack's instances from now on.
func (c *Cloud) Replan(stack string, f func(*Plan)) {
	defer c.lock()()
	f(&c.stack(stack).plan)
}
