package main

import (
	"fmt"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/metrics"
)

// metricsPage is the table of what a server counts and measures.
func metricsPage(string) (string, error) {
	var b strings.Builder
	b.WriteString("# Metrics\n\nA server has them at `/metrics`, in the text format of Prometheus: free on its unix socket, with a token of the role viewer elsewhere.\n" +
		"Beside these there are those of Go and of the process (`go_*`, `process_*`). Counters begin anew with the process; gauges of records are the same on every replica.\n" +
		"[How to operate](../howto/operate.md) has alerts to begin with.\n\n| name | type | labels | what |\n| --- | --- | --- | --- |\n")
	for _, m := range metrics.Names {
		kind, _, _ := strings.Cut(m.Type, " ")
		labels := "`" + strings.Join(m.Labels, "`, `") + "`"
		if len(m.Labels) == 0 {
			labels = ""
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.Name, kind, labels, m.Help)
	}
	return b.String(), nil
}
