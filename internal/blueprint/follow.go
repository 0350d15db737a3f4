package blueprint

import (
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/dayfly-infra/dayfly/internal/environment"
)

// maxWindows is how many windows an environment may name.
const maxWindows = 20

// follow reads which channel an environment follows: its name, or a mapping with
// what must be before.
func (r *reader) follow(in *object, at ast.Node, blueprint, k string, names []string) (channel string, f environment.Follow) {
	e := r.object(at, "environments."+k)
	e.pairs, e.asked = in.pairs, in.asked
	defer func() { in.asked = e.asked }()
	x, key := e, "image"
	n := e.node("image")
	switch n.(type) {
	case nil, *ast.StringNode:
		channel = e.string("image", "")
	default:
		x, key = r.object(n, "environments."+k+".image"), "channel"
		channel = x.string("channel", "")
		f.After, f.Windows = x.strings("after"), x.strings("windows")
		f.Wait = x.duration("wait", 0, 0, 7*day)
		f.Within = x.duration("within", environment.DefaultWithin, 10*time.Minute, 30*day)
		x.done()
	}
	if ch, ok := strings.CutPrefix(channel, blueprint+"/"); n != nil && (!ok || !nameForm.MatchString(ch)) {
		r.problem(x.position(key), "such as: "+key+": "+blueprint+"/stable", "environments.%s.image must be a channel of this blueprint", k)
		return "", environment.Follow{}
	}
	f.Channel = channel
	for _, a := range f.After {
		if !slices.Contains(names, a) || a == k {
			r.problem(x.position("after"), nearest(a, names), "environments.%s.image.after: %q is no other environment of this blueprint", k, a)
		}
	}
	if f.Wait != 0 && len(f.After) == 0 {
		r.problem(x.position("wait"), "after: [staging]", "environments.%s.image.wait: there is no environment in which it could have run so long: after names them", k)
	}
	if len(f.Windows) > maxWindows {
		r.problem(x.position("windows"), "", "environments.%s.image.windows has %d windows; the limit is %d", k, len(f.Windows), maxWindows)
	}
	for _, s := range f.Windows {
		if _, err := environment.ParseWindow(s); err != nil {
			r.problem(x.position("windows"), `such as "mon-thu 09:00-16:00 Europe/Berlin"`, "environments.%s.image.windows: %s", k, err)
		}
	}
	return channel, f
}

// circles finds environments that wait for each other.
func (r *reader) circles(x *object, all map[string]Environment) {
	for _, k := range x.order {
		seen := map[string]bool{}
		for next := slices.Clone(all[k].Follow.After); len(next) > 0; next = next[1:] {
			if a := next[0]; !seen[a] {
				seen[a] = true
				next = append(next, all[a].Follow.After...)
			}
		}
		if seen[k] {
			r.problem(x.pairs[k].Key, "", "environments.%s.image.after: %s would wait for itself", k, k)
		}
	}
}
