package audit

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

type still struct{ now time.Time }

func (s *still) Now() time.Time                       { return s.now }
func (s *still) After(time.Duration) <-chan time.Time { return nil }

func TestLog(t *testing.T) {
	ctx := t.Context()
	clk := &still{time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	st, err := sqlite.Open(ctx, ":memory:", clk)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	l := &Log{st, clk}
	e, err := l.Begin(ctx, Entry{Who: "ci", Operation: "deploy", Request: "r1", Object: strings.Repeat("ü", 1000)})
	if err != nil || len(e.Object) > maxText || !strings.HasSuffix(e.Object, "ü") {
		t.Fatalf("%+v, %v", e, err)
	}
	clk.now = clk.now.Add(time.Second)
	if err := l.End(ctx, e, 200, ""); err != nil {
		t.Fatal(err)
	}
	got, _, err := store.Get[Entry](ctx, st, Kind, e.ID)
	if err != nil || got.Status != 200 || got.Millis != 1000 || got.Who != "ci" {
		t.Fatalf("%+v, %v", got, err)
	}
	// Nothing is changed that is complete.
	if err := l.End(ctx, e, 500, "no"); !errors.Is(err, store.ErrConflict) {
		t.Errorf("completed twice: %v", err)
	}
	if _, err := l.Begin(ctx, e); err != nil { // another moment: another entry
		t.Fatal(err)
	}
}

func TestPrune(t *testing.T) {
	ctx := t.Context()
	clk := &still{time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	st, err := sqlite.Open(ctx, ":memory:", clk)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	l := &Log{st, clk}
	for range 1203 {
		clk.now = clk.now.Add(time.Minute)
		if _, err := l.Begin(ctx, Entry{Request: "r"}); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		before time.Time
		most   int
		want   int
	}{
		{clk.now.Add(-48 * time.Hour), 5000, 1203},
		{clk.now.Add(-1200*time.Minute - time.Second), 5000, 1201},
		{clk.now.Add(-48 * time.Hour), 1201, 1201},
		{clk.now.Add(-48 * time.Hour), 1100, 1100},
		{clk.now.Add(-48 * time.Hour), 20, 20},
		{clk.now.Add(time.Hour), 20, 0},
	} {
		if err := Prune(ctx, st, Kind, c.before, c.most); err != nil {
			t.Fatal(err)
		}
		rs, err := st.List(ctx, Kind, "")
		if err != nil || len(rs) != c.want {
			t.Fatalf("%d are left, want %d (%v)", len(rs), c.want, err)
		}
		if c.want > 0 && rs[len(rs)-1].Name < Name(clk.now) {
			t.Error("the newest went")
		}
	}
}
