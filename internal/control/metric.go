package control

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/outbound"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

// measurable are the places where gates may read metrics. A blueprint names
// their addresses, and the server is where instance metadata and a company's
// inner services can be reached: so the operator says which.
func (cfg Config) measurable() (outbound.Allowed, error) {
	return outbound.Parse("--metric-addresses", cfg.MetricAddresses)
}

// measures refuses a pipeline with a metric that the server may not read, as
// far as that is known before its name is resolved.
func (c *Control) measures(b *blueprint.Blueprint) error {
	allowed, err := c.cfg.measurable()
	if err != nil {
		return err
	}
	for _, s := range b.Pipeline {
		if s.Gate == nil || s.Gate.Metric == nil {
			continue
		}
		u, err := url.Parse(s.Gate.Metric.URL)
		if err == nil {
			err = allowed.URL(u)
		}
		if err != nil {
			return &fault.Error{Kind: fault.Denied, Op: "start a run", Object: "the gate " + s.Name, Message: "its metric cannot be read", Hint: fault.HintOf(err), Err: err}
		}
	}
	return nil
}

// Measure implements advance.Metrics.
func (c *Control) Measure(ctx context.Context, m pipeline.Metric) (float64, error) {
	const patience = 5 * time.Second
	allowed, err := c.cfg.measurable()
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.URL, http.NoBody)
	if err != nil {
		return 0, err
	}
	client := allowed.Client(net.DefaultResolver, patience)
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if fault.KindOf(err) == fault.Denied {
		return 0, fmt.Errorf("the metric cannot be read: %w", err)
	}
	if err != nil {
		return 0, fmt.Errorf("the metric's address does not answer: %w", err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	if err != nil {
		return 0, err
	}
	if res.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("the metric's address answers %s", res.Status)
	}
	return pipeline.ReadMetric(raw, m.Path)
}
