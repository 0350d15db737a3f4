package cfn

import (
	"context"
	"fmt"
	"maps"
	"math/rand"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/cloudformationapi"
	"github.com/dayfly-infra/dayfly/internal/region/cfn/provider"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// host runs the service on a database that outlives it.
type host struct {
	t    *testing.T
	g    *ground
	path string
	s    *Service
	db   *state.DB
	ctx  context.Context
	dead context.CancelFunc
	done chan error
}

func (h *host) start() {
	h.t.Helper()
	db, err := state.Open(h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	s, err := New(Config{Account: "123456789012", Region: "local-1", Zones: []string{"local-1a"}, DB: db, Bus: wire.NewBus()})
	if err != nil {
		h.t.Fatal(err)
	}
	p := h.g.provider()
	s.lookup = func(string) (*provider.Provider, bool) { return p, true }
	h.s, h.db, h.done = s, db, make(chan error, 1)
	h.ctx, h.dead = context.WithCancel(context.Background())
	h.g.mu.Lock()
	h.g.kill = h.dead
	h.g.mu.Unlock()
	go func() { h.done <- s.Run(h.ctx) }()
}

func (h *host) stop() {
	h.dead()
	if err := <-h.done; err != nil {
		h.t.Error(err)
	}
	if err := h.db.Close(); err != nil {
		h.t.Error(err)
	}
}

// until waits for a stack that rests, and starts the service again when it dies.
func (h *host) until(id string) stack {
	h.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		if h.ctx.Err() != nil {
			h.stop()
			h.g.mu.Lock()
			h.g.crashAt = 0
			if h.g.rnd.Intn(2) == 0 { // and again
				h.g.crashAt = h.g.calls + 1 + h.g.rnd.Intn(10)
			}
			h.g.mu.Unlock()
			h.start()
		}
		var st stack
		h.s.c.DB.View(func(tx *state.Tx) { st, _ = h.s.stacks.Get(tx, id) })
		if st.Op == "" {
			return st
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("%s stays in %s", st.Name, st.Status)
		}
		time.Sleep(200 * time.Microsecond)
	}
}

// plant is a random template and what it makes.
type plant struct {
	names []string
	needs map[string][]string
	notes map[string]int
	kinds map[string]int // a change of it is a replacement
	round int
}

func grow(r *rand.Rand) plant {
	p := plant{needs: map[string][]string{}, notes: map[string]int{}, kinds: map[string]int{}}
	for i := range 2 + r.Intn(7) {
		p.add(r, "R"+strings.Repeat("x", r.Intn(2))+fmt.Sprint(i))
	}
	return p
}

func (p *plant) add(r *rand.Rand, name string) {
	for _, other := range p.names {
		if r.Intn(3) == 0 {
			p.needs[name] = append(p.needs[name], other)
		}
	}
	p.names = append(p.names, name)
}

// change makes another template of it.
func (p plant) change(r *rand.Rand) plant {
	q := plant{needs: map[string][]string{}, notes: maps.Clone(p.notes), kinds: maps.Clone(p.kinds), round: p.round + 1}
	for _, n := range p.names {
		if r.Intn(5) == 0 {
			continue // it goes
		}
		switch r.Intn(4) {
		case 0:
			q.notes[n]++
		case 1:
			q.kinds[n]++
		}
		for _, o := range p.needs[n] {
			if slices.Contains(q.names, o) {
				q.needs[n] = append(q.needs[n], o)
			}
		}
		q.names = append(q.names, n)
	}
	for i := range r.Intn(3) {
		q.add(r, fmt.Sprintf("N%dr%d", i, p.round))
	}
	if len(q.names) == 0 {
		q.add(r, "Last")
	}
	return q
}

func (p plant) template() string {
	var b strings.Builder
	b.WriteString("Resources:\n")
	for _, n := range p.names {
		fmt.Fprintf(&b, "  %s:\n    Type: AWS::SSM::Parameter\n    Properties:\n      Type: String\n      Name: k%d\n      Description: n%d\n      Value: !Sub 'v", n, p.kinds[n], p.notes[n])
		for _, o := range p.needs[n] {
			fmt.Fprintf(&b, " ${%s}", o)
		}
		b.WriteString("'\n")
	}
	return b.String()
}

// check compares the world with the template.
func (h *host) check(what string, p plant) {
	h.t.Helper()
	h.g.mu.Lock()
	defer h.g.mu.Unlock()
	ids := map[string]string{}
	for id, v := range h.g.things {
		if ids[v.logical] != "" {
			h.t.Errorf("%s: there are two of %s", what, v.logical)
		}
		ids[v.logical] = id
	}
	if len(ids) != len(p.names) {
		h.t.Errorf("%s: there are %v, want %v", what, slices.Sorted(maps.Keys(ids)), p.names)
	}
	for _, n := range p.names {
		want := "v"
		for _, o := range p.needs[n] {
			want += " " + ids[o]
		}
		if v := h.g.things[ids[n]]; v.value != want || v.note != fmt.Sprintf("n%d", p.notes[n]) {
			h.t.Errorf("%s: %s is %q %q, want %q n%d", what, n, v.value, v.note, want, p.notes[n])
		}
	}
	defer func() {
		if h.t.Failed() {
			h.t.Log(h.history())
			h.t.FailNow()
		}
	}()
	for _, w := range h.g.wrong {
		h.t.Errorf("%s: %s", what, w)
	}
}

func (h *host) history() string {
	var b strings.Builder
	h.s.c.DB.View(func(tx *state.Tx) {
		for _, e := range h.s.events.All(tx) {
			fmt.Fprintln(&b, e.Logical, e.Physical, e.Status, e.Reason)
		}
	})
	return b.String()
}

// arm decides what goes wrong next.
func (g *ground) arm(names []string, fail bool) (failing bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fails, g.crashAt = map[string]bool{}, 0
	if g.rnd.Intn(4) > 0 {
		g.crashAt = g.calls + 1 + g.rnd.Intn(4*len(names)+4)
	}
	if fail && g.rnd.Intn(3) == 0 {
		g.fails[names[g.rnd.Intn(len(names))]] = true
		return true
	}
	return false
}

// TestStacksSurviveEverything makes, changes and deletes random stacks, with
// failures, and with a process that dies at random calls: nothing is ever made
// twice, made too early or deleted too early, and nothing is left.
func TestStacksSurviveEverything(t *testing.T) {
	for seed := range int64(80) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			r := rand.New(rand.NewSource(seed))
			g := &ground{rnd: rand.New(rand.NewSource(seed + 1000)), things: map[string]thing{}}
			h := &host{t: t, g: g, path: filepath.Join(t.TempDir(), "r.db")}
			h.start()
			defer func() { h.stop() }()
			p := grow(r)
			failing := g.arm(p.names, true)
			out, err := h.s.CreateStack(t.Context(), &cloudformationapi.CreateStackInput{StackName: "s", TemplateBody: p.template()})
			if err != nil {
				t.Fatal(err)
			}
			st := h.until(out.StackId)
			// A failure that nobody heard of, since the process died, is none.
			if st.Status == rollbackComplete && failing {
				h.check("rolled back", plant{})
			} else {
				if st.Status != createComplete {
					t.Fatalf("%s: %s", st.Status, st.Reason)
				}
				h.check("created", p)
				for range 3 {
					p = h.update(r, out.StackId, p)
				}
			}
			g.arm(p.names, false)
			if err := h.s.DeleteStack(t.Context(), &cloudformationapi.DeleteStackInput{StackName: "s"}); err != nil {
				t.Fatal(err)
			}
			if st := h.until(out.StackId); st.Status != deleteComplete {
				t.Fatalf("%s: %s", st.Status, st.Reason)
			}
			h.check("deleted", plant{})
		})
	}
}

// update changes the stack and returns the template that it has then.
func (h *host) update(r *rand.Rand, id string, p plant) plant {
	h.t.Helper()
	q := p.change(r)
	h.g.arm(q.names, true)
	_, err := h.s.UpdateStack(h.t.Context(), &cloudformationapi.UpdateStackInput{StackName: "s", TemplateBody: q.template()})
	if err != nil {
		if strings.Contains(err.Error(), "No updates are to be performed.") {
			return p
		}
		h.t.Fatal(err)
	}
	st := h.until(id)
	h.g.mu.Lock()
	h.g.fails = nil
	h.g.mu.Unlock()
	switch st.Status {
	case updateComplete:
		h.check("updated", q)
		return q
	case revertComplete:
		h.check("taken back", p)
		return p
	}
	h.t.Fatalf("%s: %s\n%s", st.Status, st.Reason, h.history())
	return p
}
