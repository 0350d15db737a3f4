package currency

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/environment"
)

// Plan says of every environment that serves how current its image is, what it
// waits for, and what is to be done now. Same input, same answer; the order is
// that of names.
func Plan(o Estate) []Status {
	p := planner{Estate: o, byName: map[string]*environment.Environment{}, status: map[string]*Status{}, etas: map[string]time.Time{}}
	for i, e := range o.Environments {
		if e.Phase != environment.Gone && !e.Destroy && e.Serving != 0 {
			p.byName[e.Name] = &o.Environments[i]
		}
	}
	var all []*Status
	for _, e := range p.byName {
		if e.Run == "" { // a suite's lives for its suite
			s := p.look(e)
			p.status[e.Name] = s
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *Status) int { return strings.Compare(a.Environment, b.Environment) })
	p.spend(all)
	out := make([]Status, len(all))
	for i, s := range all {
		s.ETA = p.eta(s.Environment)
		s.Late = s.State != Current && !s.Due.IsZero() && (o.Now.After(s.Due) || s.ETA.After(s.Due))
		out[i] = *s
	}
	return out
}

type planner struct {
	Estate
	byName map[string]*environment.Environment
	status map[string]*Status
	etas   map[string]time.Time
}

// target is the image that an environment shall run, and since when.
func (p *planner) target(e *environment.Environment) (image string, since time.Time) {
	now := p.Images[e.Image]
	left := func(image string) bool {
		r := e.Refusal(image, p.Now)
		return r != nil && r.Until.IsZero()
	}
	if ch, ok := p.Channels[e.Follow.Channel]; ok && ch.Image != "" && p.launches(ch.Image) {
		if since = ch.Moved; since.Before(e.Follow.From) && now.Revoked.IsZero() {
			return e.Image, e.Follow.From
		}
		if now.Revoked.After(since) {
			since = now.Revoked
		}
		if image = ch.Image; now.Revoked.IsZero() || !left(image) {
			return image, since
		}
	}
	if !now.Revoked.IsZero() { // anything that was good is better
		for _, g := range e.Good {
			if g.Image == e.Image || !p.launches(g.Image) {
				continue
			}
			if !left(g.Image) {
				return g.Image, now.Revoked
			}
			if image == "" {
				image, since = g.Image, now.Revoked
			}
		}
	}
	return image, since
}

func (p *planner) launches(name string) bool {
	i, ok := p.Images[name]
	return ok && i.Launches()
}

// look decides for one environment by itself.
func (p *planner) look(e *environment.Environment) *Status {
	s := &Status{Environment: e.Name, Channel: e.Follow.Channel, Image: e.Image, Size: e.Size, Revoked: !p.Images[e.Image].Revoked.IsZero()}
	s.Target, s.Since = p.target(e)
	if s.Target != "" {
		s.Due = s.Since.Add(cmp.Or(e.Follow.Within, environment.DefaultWithin))
	}
	wait := func(rule, on, message, action string) *Status {
		s.State, s.Blocker = Waiting, &blocker.Blocker{Rule: rule, On: on, Message: message, Since: s.Since, Action: action}
		return s
	}
	until := func(at time.Time) *Status {
		s.Blocker.Until, s.Again = at, at
		return s
	}
	back := func(why string) *Status {
		s.State, s.Step, s.Why, s.Leaves = Due, GoBack, why, e.Want
		return s
	}
	if w := p.Wanted[e.Name]; e.Want != e.Serving && e.Want != 0 && e.Back == nil && !p.Images[w].Revoked.IsZero() && (w != e.Image || s.Target != "" && s.Target != w) {
		// It would be taken all the way there before anybody asked again.
		return back("the image that it was taken to was revoked: " + p.Images[w].Why)
	}
	f, frozen := p.frozen(e.Name)
	// Where it could go back to by a switch, a deploy that waits for the soak
	// does not keep it.
	soaks := e.Shift != nil && !e.Shift.Back && e.Want == e.Serving && e.Back == nil
	if s.Revoked && soaks && e.Shift.From != 0 && p.launches(p.From[e.Name]) && !frozen {
		return back("its image was revoked: " + p.Images[e.Image].Why)
	}
	moving := e.Next != nil || e.Want != e.Serving && e.Want != 0 || e.Back != nil
	switch {
	case s.Target == "" && s.Revoked:
		return wait("image-revoked", "image/"+e.Image, "its image was revoked, and there is no other to go to", "dayfly deploy makes one of another image, or promote one to the channel that it follows")
	case s.Target == "" && e.Follow.Channel != "":
		ch := p.Channels[e.Follow.Channel]
		if ch.Image == "" {
			return wait("channel-empty", "channel/"+e.Follow.Channel, "its channel points to no image", "dayfly image promote IMAGE "+e.Follow.Channel+" --why …")
		}
		return wait("image-quarantined", "image/"+ch.Image, "nothing may be launched from the image that its channel points to", "dayfly image promote ANOTHER "+e.Follow.Channel+" --why …")
	case s.Target == "":
		s.State = None
		return s
	case s.Target == e.Image:
		s.State = Current
		return s
	case moving && p.wanted(e) == s.Target:
		s.State = Moving
		return s
	case moving:
		return wait("deploy-under-way", "environment/"+e.Name, "another deploy is under way", "")
	}
	if frozen {
		wait("frozen", "freeze/"+f.Name, f.Sentence(), "dayfly unfreeze "+f.Name)
		if !f.Until.IsZero() {
			until(f.Until)
		}
		return s
	}
	if r := e.Refusal(s.Target, p.Now); r != nil {
		wait("image-refused", "image/"+s.Target, "the image was tried here, and left: "+r.Why, "dayfly deploy tries it again; another one is taken by itself")
		if !r.Until.IsZero() {
			until(r.Until)
		}
		return s
	}
	if sh := e.Shift; sh != nil && !(s.Revoked && soaks) { // a soak without a way back proves nothing
		wait("soak", "environment/"+e.Name, "the soak of the deploy before is not over", "")
		if !sh.Soak.IsZero() {
			until(sh.Soak)
		}
		return s
	}
	s.State, s.Step = Due, Take
	if s.Revoked {
		s.Why = "its image was revoked: " + p.Images[e.Image].Why
		return s // it waits for nobody
	}
	s.Why = s.Channel + " points to it"
	if !e.Standing && e.Deadline.Before(s.Due) {
		s.State, s.Step = Ending, Nothing
		return s
	}
	if b, at := p.after(e, s.Target); b != nil {
		s.Step = Nothing
		wait(b.Rule, b.On, b.Message, b.Action)
		if !at.IsZero() {
			until(at)
		}
		return s
	}
	if at := e.Follow.Opens(p.Now); at.After(p.Now) {
		s.Step = Nothing
		wait("window", "environment/"+e.Name, "it is taken to another image "+strings.Join(e.Follow.Windows, " or ")+" only", "dayfly deploy does it now")
		return until(at)
	}
	return s
}

func (p *planner) wanted(e *environment.Environment) string {
	if e.Next != nil {
		return e.Next.Image
	}
	return p.Wanted[e.Name]
}

func (p *planner) frozen(name string) (Freeze, bool) {
	for _, n := range []string{All, name} {
		if f, ok := p.Freezes[n]; ok && !f.Over(p.Now) {
			return f, true
		}
	}
	return Freeze{}, false
}

// after is what still speaks against an image because of the environments that
// must run it before, and until when, where that is known.
func (p *planner) after(e *environment.Environment, target string) (*blocker.Blocker, time.Time) {
	for _, name := range e.Follow.After {
		a := p.byName[name]
		block := func(message, action string) *blocker.Blocker {
			return &blocker.Blocker{Rule: "image-after", On: "environment/" + name, Message: message, Action: action}
		}
		switch {
		case a == nil:
			return block(name+", which must run the image before, is not there", "deploy it, or deploy this one by hand"), time.Time{}
		case a.Refusal(target, p.Now) != nil:
			return block(name+" left the image again: "+a.Refusal(target, p.Now).Why, "another image is taken by itself"), time.Time{}
		case a.Image != target:
			return block(name+" does not run the image yet", ""), time.Time{}
		case a.Shift != nil && (p.From[name] != target || proved(a, target).IsZero()): // a soak of another release tells nothing of the image
			return block("its soak in "+name+" is not over", ""), a.Shift.Soak
		}
		at := proved(a, target)
		if at.IsZero() {
			return block("it has not come through its soak in "+name+" yet", ""), time.Time{}
		}
		if end := at.Add(e.Follow.Wait); end.After(p.Now) {
			return block(fmt.Sprintf("it shall have run in %s for %s", name, e.Follow.Wait), ""), end
		}
	}
	return nil, time.Time{}
}

// proved is when an image came through its soak for the first time that is
// remembered.
func proved(e *environment.Environment, image string) (at time.Time) {
	for _, g := range e.Good {
		if g.Image == image && (at.IsZero() || g.At.Before(at)) {
			at = g.At
		}
	}
	return at
}

// spend lets those go that the budget has room for: what was revoked first,
// then what is due first.
func (p *planner) spend(all []*Status) {
	if p.Budget <= 0 {
		return
	}
	used := 0
	var due []*Status
	for _, s := range all {
		switch {
		case s.State == Moving && !p.Launched[s.Environment]:
			used += s.Size
		case s.Step == Take:
			due = append(due, s)
		}
	}
	slices.SortStableFunc(due, func(a, b *Status) int {
		if a.Revoked != b.Revoked {
			if a.Revoked {
				return -1
			}
			return 1
		}
		return a.Due.Compare(b.Due)
	})
	for _, s := range due {
		if used > 0 && used+s.Size > p.Budget {
			s.State, s.Step = Waiting, Nothing
			s.Blocker = &blocker.Blocker{Rule: "image-budget", On: "environment/" + s.Environment, Since: s.Since,
				Message: fmt.Sprintf("%d instances are launched for new images, and --image-budget allows %d at once", used, p.Budget)}
		}
		used += s.Size // also of those that wait: the next one does not overtake
	}
}

// eta is when an environment will be of its target; zero: it is, or nobody knows.
// Where they come after one another in a ring nobody does.
func (p *planner) eta(name string) time.Time {
	if _, known := p.etas[name]; !known {
		p.etas[name] = time.Time{} // while it is being found out
		p.etas[name] = p.find(name)
	}
	return p.etas[name]
}

func (p *planner) find(name string) time.Time {
	s, e := p.status[name], p.byName[name]
	if s == nil {
		return time.Time{}
	}
	takes := p.Usual[name] + e.Strategy.Lasts()
	later := func(t time.Time) time.Time {
		if t.Before(p.Now) {
			t = p.Now
		}
		return t.Add(takes)
	}
	switch {
	case s.State == Moving:
		if t := p.Begun[name].Add(takes); t.After(p.Now) {
			return t
		}
		return p.Now
	case s.State == Due:
		return later(p.Now)
	case s.State != Waiting || s.Target == "":
		return time.Time{}
	}
	switch s.Blocker.Rule {
	case "image-budget":
		return later(p.Now.Add(takes)) // one round of others, at least
	case "image-after":
		first := p.Now
		for _, a := range e.Follow.After {
			if p.status[a] == nil {
				return time.Time{}
			}
			at := proved(p.byName[a], s.Target)
			if at.IsZero() {
				if at = p.eta(a); at.IsZero() || p.status[a].Target != s.Target {
					return time.Time{}
				}
				at = at.Add(p.byName[a].Strategy.Soak)
			}
			if at = at.Add(e.Follow.Wait); at.After(first) {
				first = at
			}
		}
		return later(e.Follow.Opens(first))
	case "window", "soak", "frozen", "image-refused":
		if !s.Blocker.Until.IsZero() {
			return later(e.Follow.Opens(s.Blocker.Until))
		}
	}
	return time.Time{}
}
