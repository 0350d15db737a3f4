package main

import (
	"context"
	"fmt"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/instance"
)

// crowd is an environment that is only launched, again and again.
const (
	crowd     = "crowd"
	crowdName = "shop-" + crowd
)

// launch goes on until there were as many launches as are asked for: a share of
// failures as small as a few in 100,000 shows in thousands only. Nobody asks
// anything meanwhile, and nothing is killed.
func (w *world) launch(ctx context.Context) error {
	need := w.Launches - len(w.lives)
	if need <= 0 {
		return nil
	}
	w.say("planned", "end production, and launch %d instances more, %d at a time", need, 2*w.Instances)
	if _, err := w.dayfly(ctx, "env", "destroy", name); err != nil {
		return err
	}
	begun, told, made := time.Now(), time.Now(), 0
	args := []string{"deploy", w.shop, crowd}
	for made < need {
		before := time.Now()
		if _, err := w.dayfly(ctx, args...); err != nil {
			return err
		}
		made += 2 * w.Instances
		args = []string{"redeploy", crowdName}
		w.took(fmt.Sprintf("%d instances anew, recreate", 2*w.Instances), time.Since(before))
		if time.Since(told) > 30*time.Second || made >= need {
			told = time.Now()
			w.say("result", "%d of %d more are launched, %.1f a second", made, need, float64(made)/time.Since(begun).Seconds())
		}
	}
	lives, err := client.List[instance.Instance](ctx, w.api, "instances", crowdName+"/")
	w.lives = append(w.lives, lives...)
	return err
}
