package agent

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

// However much was written, what is sent is bounded, and is the end of it.
func TestLogsAreBounded(t *testing.T) {
	f := newFake(t)
	a, _ := testAgent(t, f, t.TempDir())
	a.Log = io.Discard
	a.start()
	f.launch()
	launch, err := handoff.ParseLaunch(f.userData)
	if err != nil {
		t.Fatal(err)
	}
	b := &boot{ID: identity{Instance: "i-0123456789abcdef0", Region: "local-1"}, Launch: launch}
	a.aws.use("local-1")
	for _, log := range []string{scriptLog, serviceLog, puppetLog} {
		p := a.path(log)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(strings.Repeat("line\n", 100_000)+"the end"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10_000 {
		a.say("word %d", i)
	}
	a.send(t.Context(), b)
	l := f.logs(t)
	for name, text := range map[string]string{"deploy": l.Deploy, "service": l.Service, "puppet": l.Puppet} {
		if len(text) > handoff.LogLimit || !strings.HasSuffix(text, "the end") {
			t.Errorf("%s: %d bytes, the last %q", name, len(text), text[max(0, len(text)-10):])
		}
	}
	if len(l.Agent) > handoff.LogLimit || len(a.said) > 4*handoff.LogLimit || !strings.HasSuffix(l.Agent, "word 9999\n") {
		t.Errorf("agent: %d bytes, kept %d", len(l.Agent), len(a.said))
	}
	// A launch that is nobody's sends nothing.
	f.mu.Lock()
	clear(f.objects)
	f.mu.Unlock()
	a.send(t.Context(), &boot{})
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.objects) > 0 {
		t.Errorf("%d objects", len(f.objects))
	}
}
