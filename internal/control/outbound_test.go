package control

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

// Whatever a blueprint or a trigger names, the server asks neither instance
// metadata nor, unless its operator says so, what is on its own machine.
func TestOutbound(t *testing.T) {
	var inside atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { inside.Add(1); fmt.Fprint(w, "1.0.0") }))
	defer s.Close()
	away := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Query().Get("to")+strings.TrimPrefix(r.URL.Path, "/away"), http.StatusTemporaryRedirect)
	}))
	defer away.Close()
	dir := t.TempDir()
	putSecret(t, dir, "token", "ghp_tiger", 0o600)
	asks := func(cfg Config, address string) map[string]error {
		bx, err := boxes{tmp: dir, cfg: cfg}.open(address)
		if err != nil {
			t.Fatal(err)
		}
		errs := map[string]error{}
		_, errs["box"] = bx.Resolve(t.Context(), "latest")
		_, errs["version"] = versions{cfg.asks()}.Version(t.Context(), address+"/VERSION")
		putSecret(t, dir, "chat", address+"/services/tiger", 0o600)
		c := &Control{cfg: cfg, clock: clock.Real{}}
		errs["notify"] = c.Notify(t.Context(), pipeline.Notice{To: "chat"}, pipeline.Run{})
		errs["status"] = c.SetStatus(t.Context(), pipeline.Run{Cause: &pipeline.Cause{Repo: "acme/shop", Commit: "abc123"}, Status: &pipeline.Status{Forge: "github", API: address, Token: "token"}})
		return errs
	}
	local := strings.TrimPrefix(s.URL, "http://")
	for _, address := range []string{
		"http://169.254.169.254/latest", "http://169.254.170.2", "http://[fd00:ec2::254]/latest", "http://[::ffff:169.254.169.254]",
		s.URL, "http://localhost" + s.URL[strings.LastIndex(s.URL, ":"):], "http://0.0.0.0" + s.URL[strings.LastIndex(s.URL, ":"):],
	} {
		for what, err := range asks(Config{Dir: dir}, address) {
			if fault.KindOf(err) != fault.Denied || strings.Contains(err.Error(), "tiger") {
				t.Errorf("%s of %s: %v", what, address, err)
			}
		}
	}
	for what, err := range asks(Config{Dir: dir}, s.URL) {
		if want := "--outbound-addresses any," + local; !strings.Contains(fault.HintOf(err), want) {
			t.Errorf("%s does not say %q: %v, %s", what, want, err, fault.HintOf(err))
		}
	}
	cfg := Config{Dir: dir, OutboundAddresses: []string{"any", strings.TrimPrefix(away.URL, "http://")}}
	for _, to := range []string{"http://169.254.169.254", s.URL} {
		for what, err := range asks(cfg, away.URL+"/away?to="+to+"&") {
			// Notices follow nobody: there a redirect is a failure.
			if k := fault.KindOf(err); k != fault.Denied && !(k == fault.Failed && (what == "notify" || what == "status")) {
				t.Errorf("%s, sent to %s: %v", what, to, err)
			}
		}
	}
	if inside.Load() != 0 {
		t.Fatalf("what is on this machine was asked %d times", inside.Load())
	}
	for what, err := range asks(Config{Dir: dir, OutboundAddresses: []string{"any", local}}, s.URL) {
		if fault.KindOf(err) == fault.Denied {
			t.Errorf("%s is not allowed: %v", what, err)
		}
	}
	if inside.Load() == 0 {
		t.Error("what the operator allows was not asked")
	}
	if err := Run(t.Context(), Config{Dir: dir, OutboundAddresses: []string{"169.254.169.254"}}); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a server that may ask metadata: %v", err)
	}
	for _, address := range []string{"git+https://169.254.169.254/shop.git", "git+https://" + local + "/shop.git", "git+ssh://git@localhost/shop.git"} {
		bx, err := boxes{tmp: dir, cfg: Config{}}.open(address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := bx.Resolve(t.Context(), "latest"); fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v", address, err)
		}
	}
}
