package blueprint

import (
	"io/fs"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/dayfly-infra/dayfly/internal/environment"
)

// maxCheck is the largest command that judges a deploy, in bytes: it goes to an
// instance within a Run Command.
const maxCheck = 16 << 10

const maxShares = 20

// standing tells whether a lease is the word standing.
func standing(n ast.Node) bool {
	s, ok := n.(*ast.StringNode)
	return ok && s.Value == "standing"
}

// strategy reads how an environment goes from one generation to the next: a
// word, or a mapping with what is to be otherwise than usual.
func (r *reader) strategy(in *object, n ast.Node, k string) environment.Strategy {
	e := r.object(n, "environments."+k)
	e.pairs, e.asked = in.pairs, in.asked
	defer func() { in.asked = e.asked }()
	var s environment.Strategy
	x := &object{r: r, at: in.position("replace"), path: "environments." + k + ".replace", pairs: map[string]*ast.MappingValueNode{}}
	switch e.node("replace").(type) {
	case nil, *ast.StringNode:
		s.Replace = e.oneOf("replace", environment.Recreate, environment.Recreate, environment.BlueGreen, environment.Rolling)
	default:
		x = r.object(e.node("replace"), "environments."+k+".replace")
		s.Replace = x.oneOf("strategy", environment.BlueGreen, environment.Recreate, environment.BlueGreen, environment.Rolling)
	}
	s.Steps = x.numbers("steps", 1, 100)
	s.Pause = x.duration("pause", 2*time.Minute, 0, day)
	s.Check = x.string("check", "")
	s.MaxErrors = x.percent("max_error_rate", 0.01, 100)
	s.MaxLatency = x.duration("max_latency", 0, time.Millisecond, time.Hour)
	s.Manual = x.oneOf("rollback", "auto", "auto", "manual") == "manual"
	x.done()
	s.Soak = e.duration("soak", 10*time.Minute, 0, 7*day)
	if s.Replace == environment.Recreate {
		for _, key := range []string{"steps", "pause", "check", "max_error_rate", "max_latency", "rollback"} {
			if x.pairs[key] != nil {
				r.problem(x.pairs[key].Key, "strategy: blue-green", "environments.%s.replace.%s: recreate moves all traffic at once and has no way back", k, key)
			}
		}
		if e.pairs["soak"] != nil {
			r.problem(e.pairs["soak"].Key, "replace: blue-green", "environments.%s.soak: recreate deletes what served at once", k)
		}
		return environment.Strategy{Replace: s.Replace}
	}
	if len(s.Steps) == 0 {
		s.Steps = map[string][]int{environment.BlueGreen: {1, 10, 50, 100}, environment.Rolling: {25, 50, 75, 100}}[s.Replace]
	}
	if len(s.Steps) > maxShares {
		r.problem(x.position("steps"), "", "environments.%s.replace.steps has %d steps; the limit is %d", k, len(s.Steps), maxShares)
	}
	for i := range s.Steps {
		if i > 0 && s.Steps[i] <= s.Steps[i-1] || i == len(s.Steps)-1 && s.Steps[i] != 100 {
			r.problem(x.position("steps"), "such as [1, 10, 50, 100]", "environments.%s.replace.steps must rise, and end with 100", k)
			break
		}
	}
	return s
}

// small holds a command that goes to an instance by Run Command to what that takes.
func (r *reader) small(fsys fs.FS, what, p string) {
	if p == "" {
		return
	}
	if st, err := fs.Stat(fsys, p); err == nil && st.Size() > maxCheck {
		r.problem(r.at[what], "let it fetch what it needs", "%s has %d bytes; the limit is %d", what, st.Size(), maxCheck)
	}
}

// checks looks at what a strategy needs of the folder.
func (r *reader) checks(fsys fs.FS, b *Blueprint, need func(what, p string, dir bool)) {
	for k, e := range b.Environments {
		what := "environments." + k + ".replace.check"
		need(what, e.Strategy.Check, false)
		r.small(fsys, what, e.Strategy.Check)
		if e.Strategy.Replace != environment.Recreate {
			if _, err := fs.Stat(fsys, "foundation.yaml"); err != nil && b.Foundation == "foundation.yaml" {
				r.problem(r.at["environments."+k+".replace"], "move what lives long into a template of its own, foundation.yaml", "environments.%s.replace: one template holds everything, so each generation is a whole stack with a load balancer of its own: only recreate is possible", k)
			}
		}
	}
}
