package region

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

func simulated(t *testing.T, dir string) *daemon {
	t.Helper()
	cfg := Config{Dir: dir, RunDir: dir + "/run", Simulate: true, Region: "local-1", Listen: "127.0.0.1:1", Log: slog.New(slog.DiscardHandler)}
	if err := cfg.fill(); err != nil {
		t.Fatal(err)
	}
	d, err := open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A zone that was lost is lost for the next daemon, too.
func TestALostZoneStaysLost(t *testing.T) {
	dir := t.TempDir()
	d := simulated(t, dir)
	ctx := d.internal(t.Context())
	if _, err := d.setZone(ctx, "mars-1a", true); fault.KindOf(err) != fault.Invalid {
		t.Errorf("a zone that is not there: %v", err)
	}
	if _, err := d.setZone(ctx, "local-1b", true); err != nil {
		t.Fatal(err)
	}
	d.close()
	d = simulated(t, dir)
	defer func() { d.close() }()
	want := map[string]bool{"local-1b": true}
	for _, z := range d.zoneStates() {
		if z.Lost != want[z.Name] || d.ec2.Room(z.Name) == z.Lost {
			t.Errorf("after a restart: %+v, room %t", z, d.ec2.Room(z.Name))
		}
	}
	if _, err := d.setZone(d.internal(t.Context()), "local-1b", false); err != nil {
		t.Fatal(err)
	}
	for _, z := range d.zoneStates() {
		if z.Lost || !d.ec2.Room(z.Name) {
			t.Errorf("given back: %+v", z)
		}
	}
}

// A frozen API answers nobody, and everybody when it thaws.
func TestFrozen(t *testing.T) {
	var a adversity
	s := httptest.NewServer(a.handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })))
	defer s.Close()
	a.freeze(time.Now(), time.Minute)
	got := make(chan int, 1)
	go func() {
		res, err := http.Get(s.URL)
		if err != nil {
			got <- -1
			return
		}
		res.Body.Close()
		got <- res.StatusCode
	}()
	select {
	case code := <-got:
		t.Fatalf("answered %d while frozen", code)
	case <-time.After(50 * time.Millisecond):
	}
	a.freeze(time.Now(), time.Millisecond) // a new freeze takes the place of the old one, and ends by itself
	if code := <-got; code != http.StatusTeapot {
		t.Errorf("answered %d afterwards", code)
	}
}
