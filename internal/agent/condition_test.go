package agent

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/manifest"
)

// utmp makes a record as login(1) writes it.
func utmp(kind int32, user, line, host string, at time.Time) []byte {
	r := make([]byte, utmpSize)
	binary.NativeEndian.PutUint32(r, uint32(kind))
	copy(r[8:40], line)
	copy(r[44:76], user)
	copy(r[76:332], host)
	binary.NativeEndian.PutUint32(r[340:], uint32(at.Unix()))
	return r
}

func TestCondition(t *testing.T) {
	f := newFake(t)
	root := armedRoot(t, "", handoff.Config{})
	a, _ := testAgent(t, f, root)
	a.start()
	now := time.Now()
	a.Now = func() time.Time { return now }
	b := &boot{ID: identity{Instance: "i-1", Region: "local-1"}, Launch: handoff.Launch{Bucket: "bucket", Environment: "dev", Generation: "2"}}
	s := &service{a: a, b: b}
	w := &watcher{a: a, b: b, service: s, since: now}
	said := func() (c handoff.Condition, n int) {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, call := range f.calls {
			if strings.HasPrefix(call, "PUT /bucket/handoff/dev/2/conditions/i-1.json") {
				n++
			}
		}
		_ = json.Unmarshal(f.objects["handoff/dev/2/conditions/i-1.json"], &c)
		return c, n
	}
	w.look(t.Context())
	if _, n := said(); n != 0 {
		t.Fatal("it says something though nothing is wrong")
	}

	// A login before it served is the bake's; one after it is not.
	if err := os.MkdirAll(a.path("/var/log"), 0o755); err != nil {
		t.Fatal(err)
	}
	log := append(utmp(7, "root", "pts/0", "", now.Add(-time.Hour)), utmp(8, "", "pts/0", "", now.Add(time.Minute))...)
	if err := os.WriteFile(a.path("/var/log/wtmp"), log, 0o644); err != nil {
		t.Fatal(err)
	}
	w.look(t.Context())
	if _, n := said(); n != 0 {
		t.Fatal("an old login, or a logout, is reported")
	}
	log = append(log, utmp(7, "ann\x1b", "pts/1", "10.0.0.9", now.Add(2*time.Minute))...)
	log = append(log, 1, 2, 3) // being written
	if err := os.WriteFile(a.path("/var/log/wtmp"), log, 0o644); err != nil {
		t.Fatal(err)
	}
	w.look(t.Context())
	w.look(t.Context())
	c, n := said()
	if n != 1 || len(c.Touched) != 1 || !strings.Contains(c.Touched[0], "login of ann? from 10.0.0.9 on pts/1") || c.By != "ann? from 10.0.0.9" || c.Unhealthy != "" {
		t.Fatalf("said %d times: %+v", n, c)
	}

	// A service that ends again and again is unhealthy, and well again later.
	s.last = "ended with exit code 3"
	for range crashesMost {
		s.crashes++
		w.look(t.Context())
	}
	if c, _ := said(); !strings.Contains(c.Unhealthy, "its service ended with exit code 3; it did so 5 times") || len(c.Touched) != 1 {
		t.Fatalf("after crashes: %+v", c)
	}
	now = now.Add(crashWindow + time.Second)
	w.look(t.Context())
	if c, _ := said(); c.Unhealthy != "" {
		t.Fatalf("after a while: %+v", c)
	}
}

// What the hand-off changed of the protected files is accepted, also by an agent
// that was started again; what changes later is not.
func TestConditionOfFiles(t *testing.T) {
	f := newFake(t)
	root := armedRoot(t, "", handoff.Config{})
	a, _ := testAgent(t, f, root)
	a.start()
	now := time.Now()
	a.Now = func() time.Time { return now }
	found := []manifest.Change{{Path: "/etc/cron.d/shop", What: "added", Now: "1"}}
	a.Changes = func(context.Context, time.Time) ([]manifest.Change, error) { return found, nil }
	b := &boot{ID: identity{Instance: "i-1", Region: "local-1"}, Launch: handoff.Launch{Bucket: "bucket", Environment: "dev", Generation: "2"}}
	w := &watcher{a: a, b: b, since: now}
	w.look(t.Context())
	if len(w.now.Touched) > 0 {
		t.Fatalf("the hand-off's own: %v", w.now.Touched)
	}
	w = &watcher{a: a, b: b, since: now} // killed, and started again
	found = append(found, manifest.Change{Path: "/etc/passwd", What: "content", Now: "2"})
	w.look(t.Context())
	if len(w.now.Touched) != 1 || w.now.Touched[0] != "/etc/passwd: content changed" {
		t.Fatalf("a change: %v", w.now.Touched)
	}
	found[0].Now = "3" // the same file once more
	w.look(t.Context())
	if len(w.now.Touched) != 1 {
		t.Fatal("it looks all the time")
	}
	now = now.Add(2 * filesEvery)
	w.look(t.Context())
	if len(w.now.Touched) != 2 || len(f.objects) != 1 {
		t.Fatalf("a file that the hand-off made, changed later: %v", w.now.Touched)
	}
}

func FuzzParseLogin(f *testing.F) {
	f.Add(utmp(7, "ann", "pts/1", "host", time.Unix(1, 0)))
	f.Fuzz(func(t *testing.T, r []byte) {
		l, ok := parseLogin(r)
		if ok && strings.ContainsFunc(l.user+l.line+l.host, func(c rune) bool { return c < ' ' }) {
			t.Errorf("%+v", l)
		}
	})
}
