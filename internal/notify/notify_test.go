package notify

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

type receiver struct {
	mu   sync.Mutex
	down int // refuses so many times
	err  error
	got  []string
}

func (r *receiver) tell(s string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.down > 0 {
		r.down--
		return &fault.Error{Kind: fault.Unavailable, Message: "down"}
	}
	if r.err != nil {
		return r.err
	}
	r.got = append(r.got, s)
	return nil
}

// told is what arrived so far. A sleep in a bubble ends when all others wait,
// which orders no memory: the lock does.
func (r *receiver) told() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

func (r *receiver) Notify(_ context.Context, n pipeline.Notice, _ pipeline.Run) error {
	return r.tell(n.Text)
}

func (r *receiver) SetStatus(_ context.Context, run pipeline.Run) error {
	state, _, _ := run.State()
	return r.tell(state)
}

func TestLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		st, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		put := func(kind, name string, v any) {
			if err := st.Apply(t.Context(), store.NoEpoch, store.Put(kind, name, store.Any, v)); err != nil {
				t.Fatal(err)
			}
		}
		left := func() int {
			rs, err := st.List(t.Context(), pipeline.NoticeKind, "")
			if err != nil {
				t.Fatal(err)
			}
			return len(rs)
		}
		rec := &receiver{down: 5}
		e := reconcile.New(reconcile.Config{Store: st, Holder: "one", Loops: []reconcile.Loop{&Loop{Store: st, Sender: rec, Clock: clock.Real{}, Log: slog.New(slog.DiscardHandler)}}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- e.Run(ctx) }()
		stop := sync.OnceFunc(func() { cancel(); <-done })
		defer stop()

		run := pipeline.Run{Name: "r1", Phase: pipeline.Running}
		put(pipeline.Kind, "r1", run)
		put(pipeline.NoticeKind, "r1/gate-0-0", pipeline.Notice{Run: "r1", To: "chat", Text: "gate"})
		time.Sleep(5 * time.Minute)
		if !slices.Equal(rec.told(), []string{"gate"}) || left() != 0 {
			t.Fatalf("%v, %d left", rec.told(), left())
		}
		// The status follows the run, each state once.
		put(pipeline.NoticeKind, pipeline.StatusName("r1"), pipeline.Notice{Run: "r1"})
		time.Sleep(time.Minute)
		put(pipeline.Kind, "r1", run)
		time.Sleep(time.Minute)
		run.Phase, run.Passed = pipeline.Done, true
		rec.mu.Lock()
		rec.down = 3
		rec.mu.Unlock()
		put(pipeline.Kind, "r1", run)
		time.Sleep(5 * time.Minute)
		if !slices.Equal(rec.told(), []string{"gate", "pending", "success"}) || left() != 0 {
			t.Fatalf("%v, %d left", rec.told(), left())
		}
		// What is refused is given up, and known for a week.
		rec.mu.Lock()
		rec.err = &fault.Error{Kind: fault.Failed, Message: "404"}
		rec.mu.Unlock()
		put(pipeline.NoticeKind, "r1/passed-run-0", pipeline.Notice{Run: "r1", To: "chat", Text: "passed"})
		time.Sleep(time.Hour)
		n, _, err := store.Get[pipeline.Notice](t.Context(), st, pipeline.NoticeKind, "r1/passed-run-0")
		if err != nil || !n.Done || n.Tries != 1 || n.Error != "404" {
			t.Errorf("%+v %v", n, err)
		}
		stop() // a week of an idle engine is long, even where time is free
		time.Sleep(8 * 24 * time.Hour)
		if _, err := (&Loop{Store: st, Sender: rec, Clock: clock.Real{}}).Reconcile(t.Context(), "r1/passed-run-0"); err != nil {
			t.Error(err)
		}
		if left() != 0 {
			t.Error("it is not forgotten")
		}
	})
}
