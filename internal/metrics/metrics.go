// Package metrics counts what the server does and measures what it keeps, for
// Prometheus. The table in names.go has every name; what is not in it cannot be
// counted. It must not decide anything, and nothing may depend on its numbers.
package metrics

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Set is the metrics of one server.
type Set struct {
	registry   *prometheus.Registry
	counters   map[string]*prometheus.CounterVec
	histograms map[string]*prometheus.HistogramVec
}

// New makes metrics that are all zero.
func New() *Set {
	s := &Set{registry: prometheus.NewRegistry(), counters: map[string]*prometheus.CounterVec{}, histograms: map[string]*prometheus.HistogramVec{}}
	s.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, m := range Names {
		switch m.Type {
		case Counter:
			c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: m.Name, Help: m.Help}, m.Labels)
			s.counters[m.Name] = c
			s.registry.MustRegister(c)
			if len(m.Labels) == 0 {
				c.WithLabelValues() // it is there from the beginning
			}
		case Histogram:
			h := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: m.Name, Help: m.Help, Buckets: m.Buckets}, m.Labels)
			s.histograms[m.Name] = h
			s.registry.MustRegister(h)
		}
	}
	return s
}

// Handler answers scrapes.
func (s *Set) Handler() http.Handler {
	return promhttp.HandlerFor(s.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 20 * time.Second})
}

// count and measure panic where a name is not in the table, as tests do at once.
func (s *Set) count(name string, labels ...string) { s.counters[name].WithLabelValues(labels...).Inc() }

func (s *Set) measure(name string, d time.Duration, labels ...string) {
	s.histograms[name].WithLabelValues(labels...).Observe(d.Seconds())
}

// Forgot counts a record that was removed because it is over for long enough.
func (s *Set) Forgot(kind string) { s.count("dayfly_records_forgotten_total", kind) }

// Request counts a request to the API; route is the path's pattern.
func (s *Set) Request(method, route string, status int, took time.Duration) {
	if route == "" {
		route = "none"
	}
	if !slices.Contains([]string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodHead, http.MethodOptions}, method) {
		method = "other" // who asks may name it as they like
	}
	s.count("dayfly_http_requests_total", method, route, strconv.Itoa(status))
	s.measure("dayfly_http_request_seconds", took, route)
}

// Call counts a request to the cloud.
func (s *Set) Call(op string, err error, throttled bool, took time.Duration) {
	outcome := "ok"
	switch {
	case throttled:
		outcome = "throttled"
	case err != nil:
		outcome = "error"
	}
	s.count("dayfly_cloud_requests_total", op, outcome)
	s.measure("dayfly_cloud_request_seconds", took, op)
}

// Run counts one run of a loop.
func (s *Set) Run(loop string, took time.Duration, err error) {
	outcome := "ok"
	if err != nil {
		outcome = "error"
	}
	s.count("dayfly_loop_runs_total", loop, outcome)
	s.measure("dayfly_loop_run_seconds", took, loop)
}

// Write counts a batch of writes to the store.
func (s *Set) Write(err error, took time.Duration) {
	outcome := "ok"
	if err != nil {
		outcome = string(fault.KindOf(err))
		if strings.TrimSpace(outcome) == "" {
			outcome = "error"
		}
	}
	s.count("dayfly_store_writes_total", outcome)
	s.measure("dayfly_store_write_seconds", took)
}

// Event counts what happened.
func (s *Set) Event(e event.Event) {
	s.count("dayfly_events_total", e.Reason, string(e.Severity))
	switch e.Reason {
	case "InstanceLaunched":
		s.count("dayfly_instances_launched_total")
	case "InstanceInService":
		s.count("dayfly_instances_in_service_total")
	case "InstanceFailedToStart":
		s.count("dayfly_instances_failed_to_start_total")
	case "OrphanRemoved":
		s.count("dayfly_orphans_removed_total")
	}
}
