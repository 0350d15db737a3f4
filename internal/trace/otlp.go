package trace

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Exporter sends traces by OTLP over HTTP, as JSON, which every collector takes
// at the same address as protobuf.
type Exporter struct {
	address string
	headers map[string]string
	version string
	client  *http.Client
}

// FromEnvironment makes an exporter from OpenTelemetry's own variables, nil
// without OTEL_EXPORTER_OTLP_ENDPOINT (or ..._TRACES_ENDPOINT).
func FromEnvironment(getenv func(string) string, version string) (*Exporter, error) {
	address := getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
	if base := getenv("OTEL_EXPORTER_OTLP_ENDPOINT"); address == "" && base != "" {
		address = strings.TrimSuffix(base, "/") + "/v1/traces"
	}
	if address == "" {
		return nil, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, &fault.Error{Kind: fault.Invalid, Op: "export traces", Object: "OTEL_EXPORTER_OTLP_ENDPOINT", Message: "this is not an http(s) address", Hint: "for example http://127.0.0.1:4318"}
	}
	e := &Exporter{address: address, headers: map[string]string{}, version: version, client: &http.Client{Timeout: 10 * time.Second}}
	for _, h := range strings.Split(getenv("OTEL_EXPORTER_OTLP_HEADERS"), ",") {
		if k, v, ok := strings.Cut(h, "="); ok {
			if v, err = url.PathUnescape(strings.TrimSpace(v)); err == nil {
				e.headers[strings.TrimSpace(k)] = v
			}
		}
	}
	return e, nil
}

type attribute struct {
	Key   string         `json:"key"`
	Value map[string]any `json:"value"`
}

func text(m map[string]string) []attribute {
	out := []attribute{}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if m[k] != "" {
			out = append(out, attribute{k, map[string]any{"stringValue": m[k]}})
		}
	}
	return out
}

type otlpSpan struct {
	TraceID    string         `json:"traceId"`
	SpanID     string         `json:"spanId"`
	Parent     string         `json:"parentSpanId,omitempty"`
	Name       string         `json:"name"`
	Kind       int            `json:"kind"` // 1: internal
	Start      string         `json:"startTimeUnixNano"`
	End        string         `json:"endTimeUnixNano"`
	Attributes []attribute    `json:"attributes"`
	Status     map[string]any `json:"status"`
}

// Export sends spans; it fails when they were not taken.
func (e *Exporter) Export(ctx context.Context, spans []Span) error {
	if len(spans) == 0 {
		return nil
	}
	var out []otlpSpan
	for _, s := range spans {
		status := map[string]any{"code": 1}
		if s.Error != "" {
			status = map[string]any{"code": 2, "message": s.Error}
		}
		out = append(out, otlpSpan{s.Trace, s.ID, s.Parent, s.Name, 1, strconv.FormatInt(s.Start.UnixNano(), 10), strconv.FormatInt(s.End.UnixNano(), 10), text(s.Attributes), status})
	}
	body, err := json.Marshal(map[string]any{"resourceSpans": []any{map[string]any{
		"resource":   map[string]any{"attributes": text(map[string]string{"service.name": "dayfly", "service.version": e.version})},
		"scopeSpans": []any{map[string]any{"scope": map[string]any{"name": "dayfly"}, "spans": out}},
	}}})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	for k, v := range e.headers {
		req.Header.Set(k, v)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := e.client.Do(req)
	if err != nil {
		return fmt.Errorf("export a trace: %w", err)
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 1000))
	if res.StatusCode >= 300 {
		return fmt.Errorf("export a trace: the collector answers %s: %s", res.Status, said)
	}
	return nil
}
