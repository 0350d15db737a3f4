package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/dayfly-infra/dayfly/internal/currency"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type imageCurrencyCmd struct {
	Late bool `help:"Only what is late, or waits: exit code 1 where anything is late."`
}

func (c *imageCurrencyCmd) Run(ctx context.Context, a *app) error {
	var all []currency.Status
	if err := a.client.Get(ctx, "/v1/currency", nil, &all); err != nil {
		return err
	}
	late := 0
	for _, s := range all {
		if s.Late {
			late++
		}
	}
	if c.Late {
		all = slices.DeleteFunc(all, func(s currency.Status) bool { return !s.Late && s.State != currency.Waiting })
	}
	now := time.Now()
	if err := a.print(all, func(w io.Writer) { showCurrency(w, all, now) }); err != nil {
		return err
	}
	if c.Late && late > 0 {
		return &fault.Error{Kind: fault.Failed, Op: "ask for currency", Message: fmt.Sprintf("%d environments are late", late)}
	}
	return nil
}

func showCurrency(w io.Writer, all []currency.Status, now time.Time) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ENVIRONMENT\tFOLLOWS\tRUNS\tSHALL RUN\tSTATE\tDUE\tTHERE")
	for _, s := range all {
		state := string(s.State)
		if s.Late {
			state += ", LATE"
		}
		if s.Revoked {
			state += ", revoked"
		}
		shall := s.Target
		if shall == s.Image {
			shall = "the same"
		}
		due, there := "", ""
		if s.State != currency.Current && !s.Due.IsZero() {
			due = fromNow(s.Due, now)
		}
		if !s.ETA.IsZero() {
			there = fromNow(s.ETA, now)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Environment, cmp.Or(s.Channel, "-"), s.Image, cmp.Or(shall, "-"), state, cmp.Or(due, "-"), cmp.Or(there, "-"))
	}
	t.Flush()
	for _, s := range all {
		if s.Blocker != nil {
			fmt.Fprintf(w, "%s: %s\n", s.Environment, s.Blocker.Sentence(now))
		}
	}
}

// fromNow is a time as people ask for it.
func fromNow(t, now time.Time) string {
	d := t.Sub(now).Round(time.Second)
	if d >= time.Hour || d <= -time.Hour {
		d = d.Round(time.Minute)
	}
	s := strings.TrimSuffix(d.Abs().String(), "0s")
	if d < 0 {
		return s + " ago"
	}
	return "in " + cmp.Or(s, "0s")
}

type imageRevokeCmd struct {
	Name string `arg:"" help:"The image; dayfly images lists them."`
	Why  string `required:"" help:"The reason, for those who meet it later."`
}

func (c *imageRevokeCmd) Run(ctx context.Context, a *app) error {
	var r server.Revoked
	if err := a.client.Post(ctx, "/v1/images/"+url.PathEscape(c.Name)+"/revoke", nil, server.Revoke{Why: c.Why}, &r); err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "image %s is revoked: nothing is launched from it any more\n", r.Image)
		for ch, to := range r.Channels {
			if to == "" {
				fmt.Fprintf(w, "channel %s points to it still: there is no other; dayfly image promote ANOTHER %s\n", ch, ch)
			} else {
				fmt.Fprintf(w, "channel %s points to %s again\n", ch, to)
			}
		}
		if len(r.Runs) > 0 {
			fmt.Fprintf(w, "%s: ended as failed, with all that was launched for it; what they found out about this image proves nothing any more\n", strings.Join(r.Runs, ", "))
		}
		if len(r.Environments) == 0 {
			fmt.Fprintln(w, "no environment runs it")
			return
		}
		fmt.Fprintf(w, "%s: replaced now; dayfly image currency says how far it is\n", strings.Join(r.Environments, ", "))
	})
}

type freezeCmd struct {
	Name string        `arg:"" optional:"" help:"An environment, or all; without it, what is frozen is listed."`
	Why  string        `help:"The reason, for those who meet it later."`
	For  time.Duration `help:"Then it ends by itself; without it somebody ends it: dayfly unfreeze." placeholder:"12h"`
}

func (c *freezeCmd) Run(ctx context.Context, a *app) error {
	if c.Name == "" {
		var all []currency.Freeze
		if err := a.client.Get(ctx, "/v1/freezes", nil, &all); err != nil {
			return err
		}
		return a.print(all, func(w io.Writer) {
			if len(all) == 0 {
				fmt.Fprintln(w, "nothing is frozen")
			}
			for _, f := range all {
				fmt.Fprintf(w, "%s: %s%s\n", f.Name, f.Sentence(), thaw(f))
			}
		})
	}
	if c.Why == "" {
		return &fault.Error{Kind: fault.Invalid, Op: "freeze", Object: c.Name, Message: "the reason is missing", Hint: "--why 'the audit of the week', for those who meet it later"}
	}
	in := server.Freeze{Why: c.Why}
	if c.For > 0 {
		in.Until = time.Now().Add(c.For)
	}
	var f currency.Freeze
	if err := a.client.Post(ctx, "/v1/freezes/"+url.PathEscape(c.Name), nil, in, &f); err != nil {
		return err
	}
	return a.print(f, func(w io.Writer) {
		fmt.Fprintf(w, "%s is frozen%s: no deploy and no new image; what dies is replaced, and dayfly rollback works\n", f.Name, thaw(f))
	})
}

func thaw(f currency.Freeze) string {
	if f.Until.IsZero() {
		return ""
	}
	return ", until " + f.Until.Local().Format(time.DateTime)
}

type unfreezeCmd struct {
	Name string `arg:"" help:"An environment, or all."`
}

func (c *unfreezeCmd) Run(ctx context.Context, a *app) error {
	var f currency.Freeze
	if err := a.client.Post(ctx, "/v1/freezes/"+url.PathEscape(c.Name)+"/end", nil, nil, &f); err != nil {
		return err
	}
	return a.print(f, func(w io.Writer) { fmt.Fprintf(w, "%s is not frozen any more\n", c.Name) })
}
