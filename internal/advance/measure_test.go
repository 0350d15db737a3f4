package advance

import (
	"context"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

type numbers map[string]float64

func (n numbers) Measure(_ context.Context, m pipeline.Metric) (float64, error) {
	return n[m.URL], nil
}

// A number is kept for ten seconds, for the gate that it was measured for.
func TestMeasure(t *testing.T) {
	n := numbers{"a": 1, "b": 2}
	l := &Loop{Clock: clock.Real{}, Metrics: n}
	m := &memory{}
	for _, c := range []struct {
		stage, url string
		past       time.Duration
		want       float64
	}{{"one", "a", 0, 1}, {"one", "b", 0, 1}, {"two", "b", 0, 2}, {"two", "a", 0, 2}, {"two", "a", 2 * measureEvery, 1}} {
		m.gate = m.gate.Add(-c.past)
		if l.measure(t.Context(), c.stage, pipeline.Metric{URL: c.url}, m); *m.measure != c.want {
			t.Errorf("%+v gave %v", c, *m.measure)
		}
	}
}
