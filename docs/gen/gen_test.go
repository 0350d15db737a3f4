package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const root = "../.."

// TestFresh compares the pages with the code.
func TestFresh(t *testing.T) {
	ps, err := pages(root)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range ps {
		got, err := os.ReadFile(filepath.Join(root, p))
		if err != nil || string(got) != want {
			t.Errorf("%s is not what the code says (%v): go run ./docs/gen", p, err)
		}
	}
}

func TestAgree(t *testing.T) {
	for _, c := range []struct {
		code, rows, want string
	}{
		{"a b", "b a", ""},
		{"a b", "a", "b is in the code"},
		{"a", "a b", "b has a row"},
	} {
		err := agree("x", strings.Fields(c.code), strings.Fields(c.rows))
		if (err == nil) != (c.want == "") || (err != nil && !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%q %q: %v", c.code, c.rows, err)
		}
	}
}

// TestAsked reads keys out of a small reader.
func TestAsked(t *testing.T) {
	src := `package p
func (r *reader) all(o *object) {
	o.string("name", "")
	x := r.object(o.node("image"), "image")
	x.duration("deadline", 30*time.Minute, time.Second, 6*time.Hour)
	for k := range m {
		e := r.object(x.node(k), "environments."+k)
		e.oneOf("replace", string(Recreate), string(Recreate), "other")
	}
	path := fmt.Sprintf("stages[%d]", i)
	g := r.object(n, path+".gate")
	g.int("size", 3, 1, 1000)
}`
	f, err := parser.ParseFile(token.NewFileSet(), "x.go", src, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := asked(f.Decls[0].(*ast.FuncDecl), map[string]string{"Recreate": "recreate"})
	if err != nil {
		t.Fatal(err)
	}
	want := []setting{
		{"name", "text", "", ""}, {"image", "group", "", ""}, {"image.deadline", "duration", "30m", "1s to 6h"},
		{"environments.NAME.replace", "word", "`recreate`", "`recreate`, `other`"}, {"stages[].gate.size", "number", "3", "1 to 1000"},
	}
	for _, w := range want {
		found := false
		for _, s := range got {
			found = found || s == w
		}
		if !found {
			t.Errorf("%+v is not in %+v", w, got)
		}
	}
}

// TestVariablesGone: a function that was renamed is noticed.
func TestVariablesGone(t *testing.T) {
	if _, err := variables(root, "internal/handoff", "NoSuchFunction"); err == nil {
		t.Error("a function that is not there was read")
	}
	vs, err := variables(root, "internal/handoff", "ParseLaunch")
	if err != nil || len(vs) < 5 {
		t.Errorf("%v %v", vs, err)
	}
}
