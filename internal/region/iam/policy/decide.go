package policy

import (
	"strings"
)

// Request is what someone wants to do.
type Request struct {
	Action   string // service:Name
	Resource string // ARN or *; a part of an ARN that is not known is *
	Context  map[string]string
	// Principal is who asks, for trust policies: by type AWS or Service.
	PrincipalType string
	Principals    []string // names that mean this principal: ARN, account, …
}

// Decision is what policies say.
type Decision int

// ImplicitDeny is the default; ExplicitDeny wins over Allow.
const (
	ImplicitDeny Decision = iota
	Allow
	ExplicitDeny
)

// Decide evaluates the documents together.
func Decide(docs []*Document, r Request) Decision {
	ctx := make(map[string]string, len(r.Context))
	for k, v := range r.Context {
		ctx[strings.ToLower(k)] = v // condition keys know no case
	}
	r.Context = ctx
	d := ImplicitDeny
	for _, doc := range docs {
		for i := range doc.Statements {
			s := &doc.Statements[i]
			if !s.matches(&r) {
				continue
			}
			if s.Deny {
				return ExplicitDeny
			}
			d = Allow
		}
	}
	return d
}

func (s *Statement) matches(r *Request) bool {
	if s.Actions != nil && !anyAction(s.Actions, r.Action) || s.NotActions != nil && anyAction(s.NotActions, r.Action) {
		return false
	}
	if s.Principals == nil {
		if s.Resources != nil && !s.anyResource(s.Resources, r, s.Deny) || s.NotResources != nil && s.anyResource(s.NotResources, r, !s.Deny) {
			return false
		}
	} else if !s.principal(r) {
		return false
	}
	for _, c := range s.Conditions {
		if !c.holds(r.Context, s.Deny) {
			return false
		}
	}
	return true
}

func anyAction(patterns []string, action string) bool {
	action = strings.ToLower(action)
	for _, p := range patterns {
		if match(strings.ToLower(p), action) {
			return true
		}
	}
	return false
}

// anyResource tells whether a pattern names the resource; unclear is the
// answer for a pattern whose variables can't be resolved.
func (s *Statement) anyResource(patterns []string, r *Request, unclear bool) bool {
	for _, p := range patterns {
		p, ok := expand(p, r.Context)
		if !ok {
			if unclear {
				return true
			}
			continue
		}
		if match(p, r.Resource) {
			return true
		}
	}
	return false
}

func (s *Statement) principal(r *Request) bool {
	for _, p := range s.Principals[r.PrincipalType] {
		if p == "*" {
			return true
		}
		for _, name := range r.Principals {
			if p == name {
				return true
			}
		}
	}
	return false
}

// A variable's value is literal text: its wildcards must not become ours.
const (
	literalStar     = '\x01'
	literalQuestion = '\x02'
)

// expand resolves ${key} and ${key, 'default'}; ok is false where the request
// has no such key.
func expand(p string, ctx map[string]string) (out string, ok bool) {
	if !strings.Contains(p, "${") {
		return p, true
	}
	var b strings.Builder
	for {
		i := strings.Index(p, "${")
		if i < 0 {
			b.WriteString(p)
			return b.String(), true
		}
		b.WriteString(p[:i])
		j := strings.IndexByte(p[i:], '}')
		if j < 0 {
			return "", false
		}
		name, def, hasDef := strings.Cut(p[i+2:i+j], ",")
		p = p[i+j+1:]
		var v string
		switch name {
		case "*", "?", "$":
			v = name
		default:
			got, there := ctx[strings.ToLower(strings.TrimSpace(name))]
			switch {
			case there:
				v = got
			case hasDef:
				v = strings.Trim(strings.TrimSpace(def), "'")
			default:
				return "", false
			}
		}
		b.WriteString(strings.NewReplacer("*", string(literalStar), "?", string(literalQuestion)).Replace(v))
	}
}

// match compares with * (any text) and ? (one byte), without recursion so
// that no pattern takes long.
func match(pattern, s string) bool {
	p, i, star, mark := 0, 0, -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i] || pattern[p] == literalStar && s[i] == '*' || pattern[p] == literalQuestion && s[i] == '?'):
			p++
			i++
		case star >= 0:
			p = star + 1
			mark++
			i = mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}
