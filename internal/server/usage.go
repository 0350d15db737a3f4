package server

import (
	"context"
	"time"

	"github.com/dayfly-infra/dayfly/internal/report"
)

// Usage is the figures of a period.
type Usage interface {
	Usage(ctx context.Context, from, to time.Time) (report.Report, error)
}

func (s *Server) usage() {
	get(s, "get-usage", "/v1/report", "How a period went: failures, uptime, deploys, tests, hours, cost, and what was saved", func(ctx context.Context, in *struct {
		From time.Time `query:"from" doc:"its day (UTC) is the first; default a week before the end"`
		To   time.Time `query:"to" doc:"the period ends with the day (UTC) that this is in, and before it where it is midnight; default now"`
	}) (*out[report.Report], error) {
		return answer(s.cfg.Backend.Usage(ctx, in.From, in.To))
	})
}
