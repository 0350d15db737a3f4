package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-infra/dayfly/internal/access"
)

// fields knows the schemas of the document.
type fields struct{ doc *huma.OpenAPI }

func (f fields) schema(s *huma.Schema) *huma.Schema {
	if s.Ref != "" {
		return f.doc.Components.Schemas.SchemaFromRef(s.Ref)
	}
	return s
}

func (f fields) each(do func(op *huma.Operation)) {
	for _, path := range slices.Sorted(maps.Keys(f.doc.Paths)) {
		item := f.doc.Paths[path]
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				do(op)
			}
		}
	}
}

func (f fields) body(op *huma.Operation) *huma.Schema {
	if op.RequestBody == nil || op.RequestBody.Content["application/json"] == nil {
		return nil
	}
	return f.schema(op.RequestBody.Content["application/json"].Schema)
}

// unbounded are the parts of a schema that have no limit.
func (f fields) unbounded(s *huma.Schema, at string) (out []string) {
	switch s = f.schema(s); s.Type {
	case huma.TypeString:
		if s.MaxLength == nil && len(s.Enum) == 0 && s.Format != "date-time" {
			return []string{at}
		}
	case huma.TypeInteger, huma.TypeNumber:
		if s.Minimum == nil || s.Maximum == nil {
			return []string{at}
		}
	case huma.TypeArray:
		if s.MaxItems == nil {
			out = append(out, at)
		}
		out = append(out, f.unbounded(s.Items, at+"/0")...)
	case huma.TypeObject:
		if s.AdditionalProperties != false {
			out = append(out, at+" (other fields)")
		}
		for name, p := range s.Properties {
			out = append(out, f.unbounded(p, at+"/"+name)...)
		}
	case huma.TypeBoolean:
	default:
		out = append(out, at+" (any type)")
	}
	return out
}

// wrong are values that a schema does not allow, by what is wrong with them.
func (f fields) wrong(s *huma.Schema) map[string]any {
	s = f.schema(s)
	out := map[string]any{"an object": map[string]any{"a": 1}}
	if s.Type != huma.TypeArray {
		out["a list"] = []any{1}
	}
	switch s.Type {
	case huma.TypeString:
		out["a number"], out["a bool"] = 7, true
		switch {
		case s.Format == "date-time":
			out["no time"], out["too long"] = "yesterday", strings.Repeat("2", 1000)
		case len(s.Enum) > 0:
			out["not of the list"] = "nonsense"
		default:
			out["too long"] = strings.Repeat("a", *s.MaxLength+1)
			out["much too long"] = strings.Repeat("é", 100_000)
		}
		if s.Pattern != "" {
			out["not of the form"] = "\u202e \x00"
		}
		if s.MinLength != nil {
			out["too short"] = ""
		}
	case huma.TypeInteger:
		out["text"], out["a fraction"] = "many", 1.5
		out["too large"], out["too small"] = *s.Maximum+1, *s.Minimum-1
		out["huge"] = json.RawMessage("1e300")
	case huma.TypeBoolean:
		out["text"], out["a number"] = "yes", 1
	case huma.TypeArray:
		out["text"] = "a"
		out["too many"] = slices.Repeat([]any{"a"}, *s.MaxItems+1)
	}
	return out
}

// right is a value that a schema allows.
func (f fields) right(s *huma.Schema) any {
	s = f.schema(s)
	switch {
	case len(s.Enum) > 0:
		return s.Enum[0]
	case strings.HasPrefix(s.Pattern, "^sha256"):
		return digest
	case s.Format == "date-time":
		return "2030-01-01T00:00:00Z"
	case s.Type == huma.TypeString:
		return "aa"
	case s.Type == huma.TypeInteger:
		return *s.Minimum
	case s.Type == huma.TypeBoolean:
		return true
	}
	return []any{}
}

// Every field of every request has limits, and what is beyond them is refused
// with a pointer to it; the backend hears nothing of it (here it would panic).
func TestEveryField(t *testing.T) {
	l := DefaultLimits
	l.Rate, l.Burst = 1e6, 1e6
	w := start(t, l)
	f := fields{w.s.OpenAPI()}
	admin := w.secrets[access.Admin]
	asked := 0
	check := func(op *huma.Operation, path, body, what string, ok func(m Mistake) bool) {
		t.Helper()
		asked++
		got := w.ask(admin, op.Method, path, body)
		if got.status < 400 || got.status >= 500 {
			t.Errorf("%s: %s: %d %.300s", op.OperationID, what, got.status, got.body)
			return
		}
		if p := got.problem(t); len(p.Errors) == 0 || !slices.ContainsFunc(p.Errors, ok) {
			t.Errorf("%s: %s: nothing points to it: %.500s", op.OperationID, what, got.body)
		}
	}
	f.each(func(op *huma.Operation) {
		path, bounded := op.Path, true
		for _, p := range op.Parameters {
			for _, at := range f.unbounded(p.Schema, p.In+" "+p.Name) {
				t.Errorf("%s: %s has no limit", op.OperationID, at)
				bounded = false
			}
			if p.In == "path" && len(p.Schema.Enum) == 0 {
				path = strings.ReplaceAll(path, "{"+p.Name+"}", "aa")
			} else if p.In == "path" {
				path = strings.ReplaceAll(path, "{"+p.Name+"}", fmt.Sprint(p.Schema.Enum[0]))
			}
		}
		if !bounded {
			return
		}
		for _, p := range op.Parameters {
			for what, v := range f.wrong(p.Schema) {
				s, ok := v.(string)
				if !ok {
					if p.Schema.Type == huma.TypeString || what == "a list" || what == "an object" || what == "too many" {
						continue // in a query everything is text
					}
					s = fmt.Sprint(v)
				}
				if len(s) > 20_000 {
					s = s[:20_000] // what a request line holds
				}
				if s == "" && p.In != "query" || s == "1" && p.Schema.Type == huma.TypeBoolean {
					continue // another path; what a query takes for true
				}
				to := path
				switch p.In {
				case "path":
					to = strings.Replace(op.Path, "{"+p.Name+"}", url.PathEscape(s), 1)
					for _, q := range op.Parameters {
						to = strings.ReplaceAll(to, "{"+q.Name+"}", "aa")
					}
				case "query":
					to += "?" + url.QueryEscape(p.Name) + "=" + url.QueryEscape(s)
				default:
					continue // TestIdempotency, TestWatchRefuses
				}
				if p.Schema.Type == huma.TypeArray && what == "text" {
					continue
				}
				check(op, to, "", p.In+" "+p.Name+" "+what, func(m Mistake) bool { return m.In == p.In && m.Parameter == p.Name })
			}
		}
		s := f.body(op)
		if s == nil {
			return
		}
		for _, at := range f.unbounded(s, "") {
			t.Errorf("%s: the field %s has no limit", op.OperationID, at)
			bounded = false
		}
		if !bounded {
			return
		}
		send := func(change func(in map[string]any)) string {
			in := map[string]any{}
			for _, name := range s.Required {
				in[name] = f.right(s.Properties[name])
			}
			change(in)
			raw, err := json.Marshal(in)
			if err != nil {
				t.Fatal(err)
			}
			return string(raw)
		}
		for name, p := range s.Properties {
			for what, v := range f.wrong(p) {
				check(op, path, send(func(in map[string]any) { in[name] = v }), name+" is "+what, func(m Mistake) bool { return m.Pointer == "#/"+name || strings.HasPrefix(m.Pointer, "#/"+name+"/") })
			}
			if p = f.schema(p); p.Type == huma.TypeArray {
				for what, v := range f.wrong(p.Items) {
					check(op, path, send(func(in map[string]any) { in[name] = []any{f.right(p.Items), v} }), name+"/1 is "+what, func(m Mistake) bool { return m.Pointer == "#/"+name+"/1" })
				}
			}
		}
		for _, name := range s.Required {
			check(op, path, send(func(in map[string]any) { delete(in, name) }), name+" is not there", func(m Mistake) bool { return m.Pointer == "#/"+name })
			check(op, path, send(func(in map[string]any) { in[name] = nil }), name+" is null", func(m Mistake) bool { return m.Pointer == "#/"+name })
		}
		check(op, path, send(func(in map[string]any) { in["nonsense"] = 1 }), "a field that is not there", func(m Mistake) bool { return m.Pointer == "#/nonsense" })
		check(op, path, "[]", "a list", func(m Mistake) bool { return m.Pointer == "#" || m.Pointer == "" })
		for _, raw := range []string{"", "{", "null", `{"a":`, strings.Repeat("[", 50_000), "\xff"} {
			got := w.ask(admin, op.Method, path, raw, "Content-Type", "application/json")
			if got.status < 400 || got.status >= 500 {
				t.Errorf("%s: the body %.20q: %d %s", op.OperationID, raw, got.status, got.body)
			}
			got.problem(t)
		}
	})
	if asked < 300 {
		t.Errorf("only %d requests were made", asked)
	}
	if n := w.b.count(); n != 0 {
		t.Errorf("%d deploys came through", n)
	}
	if got := w.ask(admin, http.MethodGet, "/v1/whoami", ""); got.status != http.StatusOK {
		t.Errorf("afterwards: %d", got.status)
	}
}
