package sim

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/conformance"
)

func TestConformance(t *testing.T) {
	conformance.Run(t, func(t *testing.T) hypervisor.Hypervisor {
		h := New(Config{BootDelay: time.Millisecond})
		t.Cleanup(func() { h.Close() })
		return h
	}, conformance.Options{
		Root: func(*testing.T) io.Reader { return strings.NewReader(strings.Repeat("a root file system ", 100)) },
		Kill: func(t *testing.T, h hypervisor.Hypervisor, id string) {
			if err := h.(*Hypervisor).Kill(id, "killed by signal 9"); err != nil {
				t.Error(err)
			}
		},
	})
}

func TestHooksAndFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		booted := make(chan string, 10)
		h := New(Config{
			BootDelay: 3 * time.Second,
			OnBoot: func(ctx context.Context, in hypervisor.Instance) {
				booted <- in.ID
				<-ctx.Done()
				booted <- "end of " + in.ID
			},
			Script: func(ctx context.Context, in hypervisor.Instance, c hypervisor.Command) hypervisor.Result {
				<-ctx.Done()
				return hypervisor.Result{Stdout: []byte(in.ID)}
			},
			Fault: func(in hypervisor.Instance) Fault {
				return map[string]Fault{
					"i-fails": {Create: errors.New("no capacity")}, "i-slow": {Slow: time.Minute},
					"i-mute": {NeverReady: true}, "i-dies": {DieAfter: time.Hour, Reason: "out of memory"},
				}[in.ID]
			},
		})
		defer h.Close()
		ctx := t.Context()
		if _, err := h.ImportImage(ctx, "ami-1", hypervisor.BootGuest, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
		if err := h.Create(ctx, hypervisor.Instance{ID: "i-fails", Image: "ami-1"}); err == nil || !strings.Contains(err.Error(), "no capacity") {
			t.Error(err)
		}
		for _, id := range []string{"i-mute", "i-dies"} {
			if err := h.Create(ctx, hypervisor.Instance{ID: id, Image: "ami-1"}); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.Ready(ctx, "i-dies"); !errors.Is(err, hypervisor.ErrNotReady) {
			t.Error(err)
		}
		if id := <-booted; id != "i-dies" || time.Since(begun) != 3*time.Second {
			t.Error(id, time.Since(begun))
		}
		if err := h.Create(ctx, hypervisor.Instance{ID: "i-slow", Image: "ami-1"}); err != nil || time.Since(begun) != 63*time.Second {
			t.Error(err, time.Since(begun))
		}
		if err := h.Ready(ctx, "i-mute"); !errors.Is(err, hypervisor.ErrNotReady) {
			t.Error(err)
		}
		r, err := h.Run(ctx, "i-dies", hypervisor.Command{ID: "c", Timeout: time.Minute})
		if err != nil || !r.TimedOut || string(r.Stdout) != "i-dies" || r.Ended.Sub(r.Started) != time.Minute {
			t.Errorf("%+v %v", r, err)
		}
		if e := <-h.Events(); e.ID != "i-dies" || e.Reason != "out of memory" || time.Since(begun) != time.Hour {
			t.Errorf("%+v after %s", e, time.Since(begun))
		}
	})
}

// A process that is killed leaves what it made to the next one.
func TestKept(t *testing.T) {
	cfg := Config{Dir: t.TempDir()}
	open := func() *Hypervisor {
		t.Helper()
		h, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { h.Close() })
		return h
	}
	h := open()
	ctx := t.Context()
	im, err := h.ImportImage(ctx, "ami-1", hypervisor.BootGuest, strings.NewReader("x"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{"i-1", "i-2", "i-3"} {
		if err := h.Create(ctx, hypervisor.Instance{ID: id, Image: "ami-1"}); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.Stop(ctx, "i-2", 0); err != nil {
		t.Fatal(err)
	}
	if err := h.Destroy(ctx, "i-3"); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Snapshot(ctx, "i-2", "ami-2"); err != nil {
		t.Fatal(err)
	}
	booted := make(chan string, 3)
	cfg.OnBoot = func(_ context.Context, in hypervisor.Instance) { booted <- in.ID }
	h = open()
	ims, err := h.Images(ctx)
	if err != nil || len(ims) != 2 || ims[0].Layers[0] != im.Layers[0] || len(ims[1].Layers) != 2 {
		t.Errorf("images %+v %v", ims, err)
	}
	list, err := h.List(ctx)
	if err != nil || len(list) != 2 || list[0].State != hypervisor.Running || list[1].State != hypervisor.Stopped {
		t.Errorf("instances %+v %v", list, err)
	}
	if err := h.Ready(ctx, "i-1"); err != nil {
		t.Error(err)
	}
	if id := <-booted; id != "i-1" {
		t.Errorf("%s is played", id)
	}
}
