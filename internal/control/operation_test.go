package control

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// said is a log that is written and read at the same time.
type said struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *said) Write(p []byte) (int, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.b.Write(p) }
func (s *said) String() string              { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

// One deploy's id goes from its request through records, the logs of all loops,
// and the stack to its instances; another request's is another.
func TestOneID(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		log := &said{}
		w.log = log
		w.api = w.control(w.store)
		stop := w.start(w.store)
		defer stop()
		a := w.serve()
		body, err := json.Marshal(map[string]any{"files": w.files, "purpose": "dev"})
		if err != nil {
			t.Fatal(err)
		}
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/v1/environments", bytes.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+a.secret)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Request-Id", "click-0001")
		rec := httptest.NewRecorder()
		a.s.ServeHTTP(rec, req)
		if rec.Code != http.StatusOK || rec.Header().Get("X-Request-Id") != "click-0001" {
			t.Fatalf("%d: %s", rec.Code, rec.Body)
		}
		w.serves(1)
		w.wait("all are noted", func() bool { return w.whole(1, 3) })
		g := w.gen(1)
		bakes, err := store.List[bake.Bake](t.Context(), w.store, bake.Kind, "")
		if err != nil || len(bakes) != 1 {
			t.Fatal(len(bakes), err)
		}
		for what, id := range map[string]string{
			"the environment": w.env().Op, "the generation": g.Op, "the bake": bakes[0].Op, "an instance": w.instances(1)[0].Op,
			"the foundation": get[environment.Foundation](w, environment.FoundationKind, "shop-dev").Op,
			"the stack":      w.cloud.StackParameter(g.Stack, "Operation"),
		} {
			if id != "click-0001" {
				t.Errorf("%s is part of %q", what, id)
			}
		}
		for _, object := range []string{"environment/shop-dev", "generation/shop-dev/1", "foundation/shop-dev", "bake/" + bakes[0].Name, "instance/" + w.instances(1)[0].Name()} {
			if !regexp.MustCompile(`(?m)msg=event .*object=` + regexp.QuoteMeta(object) + ` .*op=click-0001$`).MatchString(log.String()) {
				t.Errorf("the log does not say what happened to %s with the id", object)
			}
		}
		// Loops say it themselves, too.
		if !regexp.MustCompile(`(?m)msg=environment .*op=click-0001$`).MatchString(log.String()) {
			t.Error("the loop of environments logs without the id")
		}
		w.destroy() // asked for without a request: it stays what it was
		w.nothingLeft()
		if strings.Contains(log.String(), "op=click-0002") {
			t.Error("an id from nowhere")
		}
	})
}
