package agent

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/manifest"
)

const (
	// watchEvery is how often an instance looks at itself.
	watchEvery = 10 * time.Second
	// A service that ended so often in so long is not going to work.
	crashesMost = 5
	crashWindow = 5 * time.Minute
	// touchesMost bounds what a condition names.
	touchesMost = 20
)

// watcher looks whether the instance still is what its image made, and whether
// its service works; it says so only when something is wrong.
type watcher struct {
	a       *Agent
	b       *boot
	service *service
	since   time.Time // of the service
	began   time.Time // of this instance: what was not changed after it is the image's
	ends    []time.Time
	crashes int
	said    handoff.Condition
	now     handoff.Condition

	next     time.Time       // look at the protected files
	accepted map[string]bool // what the hand-off changed of them; nil = not known yet
}

const (
	// The hand-off may change protected files: what is changed shortly after it
	// is taken for its doing.
	acceptAfter = 5 * time.Second
	filesEvery  = 5 * time.Minute
	acceptedMax = 10_000
	acceptedAt  = handoff.StateDir + "/accepted.json"
	reportFile  = handoff.StateDir + "/report.json"
)

// watch looks now and then until ctx ends.
func (a *Agent) watch(ctx context.Context, b *boot, s *service) {
	if b.Launch.Bucket == "" || b.Launch.Environment == "" || b.Launch.Generation == "" {
		return
	}
	w := &watcher{a: a, b: b, service: s, since: a.Now(), began: a.began}
	if fi, err := os.Stat(a.path(reportFile)); err == nil {
		w.since = fi.ModTime() // an agent that was started again
	}
	var rep handoff.Report
	if a.load(reportFile, &rep) && !rep.Started.IsZero() {
		w.began = rep.Started
	}
	// Not all instances of a machine at once.
	w.next = a.Now().Add(acceptAfter + rand.N(2*acceptAfter))
	now := make(chan os.Signal, 1)
	signal.Notify(now, syscall.SIGUSR1)
	defer signal.Stop(now)
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-now: // somebody wants to know
			w.next = time.Time{}
		case <-t.C:
		}
		w.look(ctx)
	}
}

func (w *watcher) look(ctx context.Context) {
	w.now.Instance = w.b.ID.Instance
	w.now.Unhealthy = w.crashing()
	who, by := w.logins()
	for _, l := range who {
		w.touch(l)
	}
	if w.now.By == "" {
		w.now.By = by
	}
	if now := w.a.Now(); w.a.Changes != nil && !now.Before(w.next) {
		w.next = now.Add(filesEvery + rand.N(filesEvery/5))
		w.files(ctx)
	}
	if w.now.Unhealthy == w.said.Unhealthy && slices.Equal(w.now.Touched, w.said.Touched) {
		return
	}
	w.now.At = w.a.Now().UTC()
	body, err := json.Marshal(w.now)
	if err != nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	key := handoff.ConditionKey(w.b.Launch.Environment, w.b.Launch.Generation, w.b.ID.Instance)
	if err := w.a.aws.put(ctx, "s3://"+w.b.Launch.Bucket+"/"+key, bytes.NewReader(body)); err != nil {
		w.a.say("its condition could not be sent, trying again: %v", err)
		return
	}
	if w.now.Unhealthy != "" && w.said.Unhealthy == "" {
		w.a.send(ctx, w.b)
	}
	w.a.say("condition: unhealthy %q, touched %q", w.now.Unhealthy, w.now.Touched)
	w.said = w.now
	w.said.Touched = slices.Clone(w.now.Touched)
	w.a.idle()
}

// touch notes down one thing that is not as the image made it.
func (w *watcher) touch(what string) {
	if len(w.now.Touched) < touchesMost && !slices.Contains(w.now.Touched, what) {
		w.now.Touched = append(w.now.Touched, what)
	}
}

// files looks at the protected files. What the first look finds is the
// hand-off's doing; what comes later is not.
func (w *watcher) files(ctx context.Context) {
	found, err := w.a.Changes(ctx, w.began)
	if err != nil {
		w.a.say("the protected files cannot be compared with the image's manifest: %v", err)
		return
	}
	if w.accepted == nil {
		var list []string
		if !w.a.load(acceptedAt, &list) {
			for _, c := range found[:min(len(found), acceptedMax)] {
				list = append(list, mark(c))
			}
			if err := w.a.save(acceptedAt, list); err != nil {
				w.a.say("%v", err)
			}
		}
		w.accepted = map[string]bool{}
		for _, m := range list {
			w.accepted[m] = true
		}
	}
	for _, c := range found {
		if !w.accepted[mark(c)] {
			w.touch(c.String())
		}
	}
}

func mark(c manifest.Change) string { return c.Path + " " + c.What + " " + c.Now }

// changes looks at what this machine wrote, where that is known, which is next to
// nothing; else a process of its own looks at everything, and its memory goes
// with it.
func changes(ctx context.Context, since time.Time) ([]manifest.Change, error) {
	if upper := manifest.Upper(reportFile); upper != "" {
		return compare("/", manifest.Look{Since: since, Upper: upper})
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	raw, err := exec.CommandContext(ctx, self, "changes", since.UTC().Format(time.RFC3339Nano)).Output()
	if err != nil {
		if e, ok := errors.AsType[*exec.ExitError](err); ok {
			err = fmt.Errorf("%w: %.200s", err, e.Stderr)
		}
		return nil, err
	}
	var out []manifest.Change
	return out, json.Unmarshal(raw, &out)
}

// Manifest writes the manifest of the image that this machine becomes.
func (a *Agent) Manifest() error {
	f, err := os.OpenFile(a.path(manifest.File), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	root := a.Root
	if root == "" {
		root = "/"
	}
	return errors.Join(manifest.Build(root, f), f.Close())
}

// Compare prints what has changed since the manifest, as JSON. It reads no file
// that was not changed after since.
func (a *Agent) Compare(w io.Writer, since time.Time) error {
	out, err := compare(a.path("/"), manifest.Look{Since: since})
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(out)
}

func compare(root string, look manifest.Look) ([]manifest.Change, error) {
	f, err := os.Open(filepath.Join(root, manifest.File))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := []manifest.Change{}
	err = manifest.Compare(root, f, look, func(c manifest.Change) error {
		if len(out) < acceptedMax {
			out = append(out, c)
		}
		return nil
	})
	return out, err
}

// crashing says how the service keeps ending; "" when it does not.
func (w *watcher) crashing() string {
	if w.service == nil {
		return ""
	}
	n, how := w.service.trouble()
	now := w.a.Now()
	for ; w.crashes < n; w.crashes++ {
		w.ends = append(w.ends, now)
	}
	w.ends = slices.DeleteFunc(w.ends, func(t time.Time) bool { return now.Sub(t) > crashWindow })
	if len(w.ends) < crashesMost {
		return ""
	}
	return fmt.Sprintf("its service %s; it did so %d times in %s", how, len(w.ends), crashWindow)
}

// logins reads who logged in since the instance serves, from the system's own
// record of logins.
func (w *watcher) logins() (who []string, by string) {
	f, err := os.Open(w.a.path("/var/log/wtmp"))
	if err != nil {
		return nil, ""
	}
	defer f.Close()
	// The latest ones are enough: one is too many.
	if fi, err := f.Stat(); err == nil {
		if most := int64(utmpSize * 256); fi.Size() > most {
			_, _ = f.Seek((fi.Size()-most)/utmpSize*utmpSize, io.SeekStart)
		}
	}
	for r := make([]byte, utmpSize); ; {
		if _, err := io.ReadFull(f, r); err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				w.a.say("%v", err)
			}
			return who, by
		}
		l, ok := parseLogin(r)
		if ok && l.at.After(w.since) {
			by = l.user
			if l.host != "" {
				by += " from " + l.host
			}
			who = append(who, fmt.Sprintf("login of %s on %s at %s", by, l.line, l.at.UTC().Format(time.RFC3339)))
		}
	}
}

// utmpSize is glibc's struct utmp on 64-bit machines, in bytes (utmp(5)).
const utmpSize = 384

type login struct {
	user, line, host string
	at               time.Time
}

// parseLogin reads one record; false where it is not that of a user's login.
func parseLogin(r []byte) (login, bool) {
	const userProcess = 7
	if len(r) != utmpSize || int32(binary.NativeEndian.Uint32(r)) != userProcess {
		return login{}, false
	}
	text := func(b []byte) string {
		s, _, _ := strings.Cut(string(b), "\x00")
		return strings.ToValidUTF8(strings.Map(func(c rune) rune {
			if c < ' ' || c == 0x7f {
				return '?'
			}
			return c
		}, s), "?")
	}
	return login{
		line: text(r[8:40]), user: text(r[44:76]), host: text(r[76:332]),
		at: time.Unix(int64(int32(binary.NativeEndian.Uint32(r[340:]))), int64(binary.NativeEndian.Uint32(r[344:]))*1000),
	}, true
}
