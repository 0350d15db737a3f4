package template

import (
	"slices"
	"strings"
)

// edge is a dependency and where it is written.
type edge struct {
	from, to string
	at       Pos
}

// graph is who depends on whom.
type graph struct {
	order []string
	edges map[string][]edge
}

func newGraph(t *Template) *graph {
	g := &graph{edges: map[string][]edge{}}
	for _, r := range t.Resources {
		g.order = append(g.order, r.Name)
	}
	return g
}

func (g *graph) add(from, to string, at Pos) {
	if !slices.ContainsFunc(g.edges[from], func(e edge) bool { return e.to == to }) {
		g.edges[from] = append(g.edges[from], edge{from, to, at})
	}
}

// cycle returns the edges of a circle, nil where there is none.
func (g *graph) cycle() []edge {
	state := map[string]int{} // 1: on the way, 2: done
	var way []edge
	var visit func(string) []edge
	visit = func(n string) []edge {
		state[n] = 1
		for _, e := range g.edges[n] {
			way = append(way, e)
			switch state[e.to] {
			case 1:
				i := slices.IndexFunc(way, func(w edge) bool { return w.from == e.to })
				return slices.Clone(way[i:])
			case 0:
				if c := visit(e.to); c != nil {
					return c
				}
			}
			way = way[:len(way)-1]
		}
		state[n] = 2
		return nil
	}
	for _, n := range g.order {
		if state[n] == 0 {
			if c := visit(n); c != nil {
				return c
			}
		}
	}
	return nil
}

// path writes a circle as A (3:5) -> B (9:5) -> A.
func path(es []edge) string {
	var b strings.Builder
	for _, e := range es {
		b.WriteString(e.from + " (" + e.at.String() + ") -> ")
	}
	return b.String() + es[0].from
}

// circle is the error for a circle of resources.
func (t *Template) circle(es []edge) Problem {
	names := make([]string, len(es))
	for i, e := range es {
		names[i] = e.from
	}
	return t.problem(es[0].at, path(es), "Circular dependency between resources: [%s]", strings.Join(names, ", "))
}

// Dependencies returns, for every resource whose condition holds, the
// resources that it needs, given the scope's parameters; nil and a Problem for
// a circle or anything that cannot be evaluated. The evaluated properties,
// unknown values in them, come with it.
func (t *Template) Dependencies(s *Scope) (deps map[string][]string, properties map[string]*Node, err error) {
	deps, properties = map[string][]string{}, map[string]*Node{}
	live := map[string]bool{}
	for _, r := range t.Resources {
		if live[r.Name], err = s.Condition(r.Condition); err != nil {
			return nil, nil, err
		}
	}
	g := newGraph(t)
	for _, r := range t.Resources {
		if !live[r.Name] {
			continue
		}
		deps[r.Name] = []string{}
		scope := *s
		var dead string
		scope.Used = func(name string) {
			if !live[name] && dead == "" {
				dead = name
			}
			g.add(r.Name, name, r.At)
		}
		n := r.Properties
		if n == nil {
			n = &Node{Pos: r.At, Kind: Map}
		}
		if properties[r.Name], err = scope.Eval(n); err != nil {
			return nil, nil, err
		}
		if dead != "" {
			return nil, nil, t.problem(r.At, "its condition does not hold", "Template format error: Unresolved resource dependencies [%s] in the Resources block of the template", dead)
		}
		for _, d := range r.DependsOn {
			switch {
			case t.Resource(d.Text) == nil:
				return nil, nil, t.unresolved(d.Pos, d.Text)
			case live[d.Text]: // a DependsOn on what is not made is no dependency
				g.add(r.Name, d.Text, d.Pos)
			}
		}
		for _, e := range g.edges[r.Name] {
			deps[r.Name] = append(deps[r.Name], e.to)
		}
	}
	if c := g.cycle(); c != nil {
		return nil, nil, t.circle(c)
	}
	return deps, properties, nil
}
