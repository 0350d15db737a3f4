package cfn

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/cfn/provider"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/template"
)

var (
	errSuperseded = errors.New("another operation took this one's place")
	errCancelled  = errors.New("Resource creation cancelled")
	errTimeout    = errors.New("Stack creation time exceeded the specified timeout")
)

// op is an operation on a stack while this process works on it.
type op struct {
	s      *Service
	id     string
	number int
	kind   operation
	st     stack // as it was at the start
	rev    revision
	tmpl   *template.Template
}

// drive works on a stack until nothing is left to do.
func (s *Service) drive(ctx context.Context, id string) {
	for ctx.Err() == nil {
		var st stack
		s.c.DB.View(func(tx *state.Tx) { st, _ = s.stacks.Get(tx, id) })
		if st.Op == "" {
			return
		}
		o := &op{s: s, id: id, number: st.OpNumber, kind: st.Op, st: st, rev: st.Now}
		if st.Op == updating && st.Next != nil {
			o.rev = *st.Next
		}
		err := o.run(ctx)
		if err == nil || errors.Is(err, errSuperseded) || ctx.Err() != nil {
			continue
		}
		s.c.Log.Error("an operation on a stack was interrupted and is tried again", "stack", st.Name, "operation", st.Op, "error", err)
		select {
		case <-ctx.Done():
		case <-s.c.Clock.After(time.Second):
		}
	}
}

func (o *op) run(ctx context.Context) error {
	if o.kind == rollingBack || o.kind == deleting { // the records say what there is
		return o.delete(ctx)
	}
	t, problems := template.Parse("template", []byte(o.rev.Template))
	if t == nil { // it was read before, so this is a defect and not the user's
		return fmt.Errorf("the template of %s cannot be read any more: %v", o.st.Name, problems)
	}
	o.tmpl = t
	switch o.kind {
	case creating:
		return o.create(ctx)
	case updating, reverting:
		return o.update(ctx)
	}
	return fmt.Errorf("stack %s: unknown operation %q", o.st.Name, o.kind)
}

// commit changes records, unless another operation took this one's place.
func (o *op) commit(f func(tx *state.Tx, st stack) error) error {
	return o.s.c.DB.Update(func(tx *state.Tx) error {
		st, ok := o.s.stacks.Get(tx, o.id)
		if !ok || st.OpNumber != o.number {
			return errSuperseded
		}
		return f(tx, st)
	})
}

// put writes a resource with its event. An empty status writes no event.
func (o *op) put(r *resource, status, reason string) error {
	r.OpNumber, r.Changed = o.number, o.s.now()
	if status != "" {
		r.Status, r.Reason = status, reason
	}
	return o.commit(func(tx *state.Tx, st stack) error {
		// Signals come in from outside, at any time.
		if now, ok := o.s.resources.Get(tx, r.key()); ok && len(now.Signals) > len(r.Signals) {
			r.Signals = now.Signals
		}
		o.s.resources.Put(tx, r.key(), *r)
		if status != "" {
			o.s.event(tx, st, event{Logical: r.Logical, Physical: r.ID, Type: r.Type, Status: status, Reason: reason, Properties: r.Properties})
		}
		return nil
	})
}

// status ends or turns the operation: f changes the stack, and its event tells.
func (o *op) status(status, reason string, f func(*stack)) error {
	return o.commit(func(tx *state.Tx, st stack) error {
		st.Status, st.Reason = status, reason
		if f != nil {
			f(&st)
		}
		o.s.stackEvent(tx, st)
		return nil
	})
}

// stackEvent writes the stack and the event of its status.
func (s *Service) stackEvent(tx *state.Tx, st stack) {
	s.stacks.Put(tx, st.ID, st)
	s.event(tx, st, event{Logical: st.Name, Physical: st.ID, Type: "AWS::CloudFormation::Stack", Status: st.Status, Reason: st.Reason})
}

func (s *Service) event(tx *state.Tx, st stack, e event) {
	e.ID, e.Stack, e.StackName, e.Time, e.Token = s.ids.UUID(), st.ID, st.Name, s.now(), st.Token
	// The key orders a stack's events: by time, and within a millisecond by number.
	s.events.Put(tx, fmt.Sprintf("%s/%015d-%09d", st.ID, e.Time.UnixMilli(), s.eventNumber.Add(1)), e)
}

func (s *Service) resource(stackID, logical string) (r resource, ok bool) {
	s.c.DB.View(func(tx *state.Tx) { r, ok = s.resources.Get(tx, stackID+"/"+logical) })
	return r, ok
}

// resourcesOf are a stack's resources in the order of their names.
func (s *Service) resourcesOf(tx *state.Tx, stackID string) []resource {
	var out []resource
	for _, r := range s.resources.All(tx) {
		if r.Stack == stackID {
			out = append(out, r)
		}
	}
	return out
}

func (o *op) records() (out []resource) {
	o.s.c.DB.View(func(tx *state.Tx) { out = o.s.resourcesOf(tx, o.id) })
	return out
}

// stackTags are the tags that go on every resource.
func (o *op) stackTags(logical string) map[string]string {
	m := o.rev.tagMap()
	m[provider.TagStackID], m[provider.TagStackName], m[provider.TagLogicalID] = o.st.ID, o.st.Name, logical
	return m
}

// request is what a provider gets for a resource.
func (s *Service) request(st stack, r resource) *provider.Request {
	q := &provider.Request{
		Bus: s.c.Bus, Account: s.c.Account, Region: s.c.Region, StackID: st.ID, StackName: st.Name, Logical: r.Logical,
		Generation: r.Generation, ID: r.ID, Properties: r.Properties, Tags: r.Tags,
	}
	for _, f := range r.Former {
		if f.ID != "" {
			q.Others = append(q.Others, f.ID)
		}
	}
	return q
}

// scope evaluates the template's functions with what the stack has by now.
func (o *op) scope(ctx context.Context) *template.Scope {
	sc := o.s.blank(o.st, o.rev, o.tmpl)
	sc.Ref = func(name string) (any, bool, error) {
		r, ok := o.s.resource(o.id, name)
		if !ok || !r.there() {
			return nil, false, nil
		}
		return o.s.ref(o.st, r)
	}
	sc.GetAtt = func(name, attr string) (any, bool, error) {
		r, ok := o.s.resource(o.id, name)
		if !ok || !r.there() {
			return nil, false, nil
		}
		return o.s.attribute(ctx, o.st, r, attr)
	}
	return sc
}

func (s *Service) ref(st stack, r resource) (any, bool, error) {
	if p, ok := s.lookup(r.Type); ok && p.Ref != nil {
		v, err := p.Ref(s.request(st, r))
		return v, true, err
	}
	return r.ID, true, nil
}

func (s *Service) attribute(ctx context.Context, st stack, r resource, name string) (any, bool, error) {
	p, ok := s.lookup(r.Type)
	if !ok || p.Attributes == nil {
		return nil, false, fmt.Errorf("the local region does not know the attribute %s of %s", name, r.Type)
	}
	all, err := p.Attributes(ctx, s.request(st, r))
	if err != nil {
		return nil, false, err
	}
	v, ok := all[name]
	if !ok {
		return nil, false, fmt.Errorf("the local region does not know the attribute %s of %s", name, r.Type)
	}
	return v, true, nil
}

// blank is a scope in which no resource is there yet.
func (s *Service) blank(st stack, rev revision, t *template.Template) *template.Scope {
	return &template.Scope{
		Template: t, Values: rev.Values, Resolved: rev.Resolved, Zones: s.c.Zones,
		Pseudo: map[string]any{
			"AWS::AccountId": s.c.Account, "AWS::NotificationARNs": []string{}, "AWS::Partition": "aws", "AWS::Region": s.c.Region,
			"AWS::StackId": st.ID, "AWS::StackName": st.Name, "AWS::URLSuffix": "amazonaws.com",
		},
		Import: func(name string) (string, error) {
			if e, ok := s.export(name); ok {
				return e.Value, nil
			}
			return "", fmt.Errorf("No export named %s found.", name)
		},
	}
}

// dependencies are the template's, with the orders that providers add.
func (s *Service) dependencies(sc *template.Scope) (map[string][]string, map[string]*template.Node, error) {
	needs, evaluated, err := sc.Template.Dependencies(sc)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range sc.Template.Resources {
		p, ok := s.lookup(r.Type)
		if _, live := needs[r.Name]; !live || !ok {
			continue
		}
		for _, other := range sc.Template.Resources {
			property := p.After[other.Type]
			_, live := needs[other.Name]
			if property == "" || !live || slices.Contains(needs[r.Name], other.Name) || reaches(needs, other.Name, r.Name) {
				continue
			}
			a, b := r.Properties.Get(property), other.Properties.Get(property)
			if property == "*" || a != nil && b != nil && equal(a.Value(), b.Value()) {
				needs[r.Name] = append(needs[r.Name], other.Name)
			}
		}
	}
	return needs, evaluated, nil
}

// reaches tells whether a needs b, over whatever is between them.
func reaches(needs map[string][]string, a, b string) bool {
	seen := map[string]bool{}
	var visit func(string) bool
	visit = func(n string) bool {
		if n == b {
			return true
		}
		if seen[n] {
			return false
		}
		seen[n] = true
		return slices.ContainsFunc(needs[n], visit)
	}
	return visit(a)
}

// evaluate returns a resource's properties as they are to be.
func (o *op) evaluate(ctx context.Context, name string) (properties, error) {
	r := o.tmpl.Resource(name)
	n := r.Properties
	if n == nil {
		return properties{}, nil
	}
	n, err := o.scope(ctx).Eval(n)
	if err != nil {
		return nil, err
	}
	n, problems := o.tmpl.Properties(r, n)
	if len(problems) > 0 {
		return nil, errors.New(say(problems))
	}
	if hasUnknown(n) {
		return nil, fmt.Errorf("a value that %s needs is not there yet", name)
	}
	m, _ := n.Value().(map[string]any)
	return m, nil
}

// walk runs f for every name, each in a goroutine of its own as soon as f is
// done for all that it needs. After a failure what needs the failed one is
// left out, and with stop nothing else is begun either.
func walk(needs map[string][]string, stop bool, f func(name string) error) map[string]error {
	var (
		mu     sync.Mutex
		wg     sync.WaitGroup
		done   = map[string]bool{}
		failed = map[string]error{}
		begun  = map[string]bool{}
		next   func()
	)
	next = func() { // with mu held
		for name, before := range needs {
			if begun[name] || stop && len(failed) > 0 {
				continue
			}
			if slices.ContainsFunc(before, func(b string) bool { _, known := needs[b]; return known && !done[b] }) {
				continue
			}
			begun[name] = true
			wg.Go(func() {
				err := f(name)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					failed[name] = err
				} else {
					done[name] = true
				}
				next()
			})
		}
	}
	mu.Lock()
	next()
	mu.Unlock()
	wg.Wait()
	return failed
}

// await asks f until it says yes: after changes in the database, and at times
// without. ctx's cause is the error when it ends.
func (s *Service) await(ctx context.Context, f func() (bool, error)) error {
	changed, stop := s.c.DB.Watch()
	defer stop()
	began := s.now()
	for {
		if ok, err := f(); ok || err != nil {
			return err
		}
		if err := context.Cause(ctx); err != nil {
			return err
		}
		if s.now().Sub(began) > s.endurance {
			return errors.New("Exceeded attempts to wait")
		}
		select {
		case <-ctx.Done():
		case <-changed:
		case <-s.c.Clock.After(100 * time.Millisecond):
		}
	}
}

// say joins problems to one message.
func say(problems []template.Problem) string {
	var out []string
	for i, p := range problems {
		if i == 10 {
			out = append(out, fmt.Sprintf("and %d more", len(problems)-i))
			break
		}
		out = append(out, sayOne(p))
	}
	return strings.Join(out, "; ")
}

// sayOne puts the position behind the message: clients look at how AWS's
// messages begin.
func sayOne(p template.Problem) string {
	s := p.Message
	if p.Line > 0 {
		s += fmt.Sprintf(" [line %d, column %d]", p.Line, p.Column)
	}
	if p.Hint != "" {
		s += " (" + p.Hint + ")"
	}
	return s
}

// because is an error as a resource's status reason.
func because(typ string, err error) string {
	var p template.Problem
	if errors.As(err, &p) {
		return sayOne(p)
	}
	if s := strings.Split(typ, "::"); len(s) > 1 {
		return provider.Words("Amazon"+s[1], err)
	}
	return err.Error()
}
