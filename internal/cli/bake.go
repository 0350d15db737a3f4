package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

type bakeCmd struct {
	Dir    string `arg:"" help:"The blueprint's folder."`
	Detach bool   `help:"Do not wait."`
}

func (c *bakeCmd) Run(ctx context.Context, a *app) error {
	s, err := a.send(ctx, c.Dir)
	if err != nil {
		return err
	}
	var b bake.Bake
	if err := a.client.Post(ctx, "/v1/bakes", nil, map[string]string{"files": s.Digest}, &b); err != nil {
		return err
	}
	cached := b.Step == bake.Done
	if !c.Detach && !cached {
		b, err = a.followBake(ctx, b)
		if err != nil {
			return err
		}
	}
	return a.print(struct {
		bake.Bake
		Cached bool `json:"cached"`
	}{b, cached}, func(w io.Writer) {
		switch {
		case cached:
			fmt.Fprintf(w, "image %s is there already (%s, made %s)\n", b.Image, b.AMI, b.Ended.Local().Format(time.DateTime))
		case b.Image != "":
			fmt.Fprintf(w, "image %s (%s), %d checks passed\n", b.Image, b.AMI, len(b.Checks))
			for _, s := range b.Steps {
				fmt.Fprintf(w, "  %-9s %6.1fs\n", s.Step, s.Seconds)
			}
		default:
			fmt.Fprintf(w, "bake %s has begun; dayfly why %s says how far it is\n", b.Name, b.Name)
		}
	})
}

// followBake shows a bake until it is done; Ctrl-C cancels it and waits until
// its builder is gone.
func (a *app) followBake(ctx context.Context, b bake.Bake) (bake.Bake, error) {
	p := a.progress()
	look := func(ctx context.Context) func() (bool, error) {
		return func() (bool, error) {
			got, err := client.One[bake.Bake](ctx, a.client, "bakes", b.Name)
			if err != nil {
				return false, unlessDown(p, err)
			}
			b = got
			p.say(b.Sentence)
			return b.Step == bake.Done, nil
		}
	}
	err := wait(ctx, look(ctx))
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(a.err, "interrupted; the builder is going away")
		end, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		if err := a.client.Delete(end, "/v1/bakes/"+b.Name, nil); err != nil {
			return b, err
		}
		if err := wait(end, look(end)); err != nil {
			return b, err
		}
		return b, context.Canceled
	}
	if err == nil && b.Error != "" {
		err = &fault.Error{Kind: fault.Failed, Op: "bake", Object: b.Name, Message: fmt.Sprintf("step %s: %s", b.FailedAt, b.Error), Hint: "mend the cause and bake again; everything that the bake made is gone"}
	}
	return b, err
}
