package operation

import (
	"bytes"
	"context"
	"encoding/hex"
	"log/slog"
	"strings"
	"testing"
)

func TestFromHeaders(t *testing.T) {
	const trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	for _, c := range []struct{ request, parent, want string }{
		{"my-request-1", "", "my-request-1"},
		{"my-request-1", "00-" + trace + "-00f067aa0ba902b7-01", "my-request-1"},
		{"", "00-" + trace + "-00f067aa0ba902b7-01", trace},
		{"no spaces please", "00-" + trace + "-00f067aa0ba902b7-01", trace},
		{"", "00-" + strings.Repeat("0", 32) + "-00f067aa0ba902b7-01", ""},
		{"short", "nonsense", ""},
		{strings.Repeat("x", 33), "", ""},
	} {
		got := FromHeaders(c.request, c.parent)
		if c.want == "" && (!Valid(got) || len(got) != 16) || c.want != "" && got != c.want {
			t.Errorf("%q, %q give %q, want %q", c.request, c.parent, got, c.want)
		}
	}
	if id := TraceID(trace); hex.EncodeToString(id[:]) != trace {
		t.Errorf("a trace's id became %x", id)
	}
	if first, again := TraceID("a-request"), TraceID("a-request"); first == TraceID("b-request") || first != again {
		t.Error("ids of traces are not their operations'")
	}
}

func TestHandler(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(Handler(slog.NewTextHandler(&b, nil))).With("kind", "x")
	asked := 0
	ctx := Lazy(t.Context(), func() string { asked++; return "op-12345" })
	log.DebugContext(ctx, "nothing")
	if asked != 0 {
		t.Error("it was asked for a line that nobody wants")
	}
	log.InfoContext(ctx, "something")
	log.InfoContext(ctx, "something")
	log.InfoContext(context.Background(), "else")
	if n := strings.Count(b.String(), "op=op-12345"); n != 2 || asked != 1 {
		t.Errorf("asked %d times: %s", asked, b.String())
	}
}
