package archtest

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"io/fs"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const root = "../.."

// list asks the go command, which needs no package to compile.
func list(t *testing.T) []Package {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Name,Doc,Imports,Deps,GoFiles", "./...")
	cmd.Dir = root
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	raw, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, stderr.String())
	}
	short := func(paths []string) []string {
		for i, p := range paths {
			if rest, ok := strings.CutPrefix(p, Module+"/"); ok {
				paths[i] = rest
			} else if strings.HasPrefix(p, "internal/") {
				paths[i] = "std/" + p // Go's own, not ours
			}
		}
		return paths
	}
	var out []Package
	for d := json.NewDecoder(bytes.NewReader(raw)); ; {
		var p struct {
			ImportPath, Name, Doc  string
			Imports, Deps, GoFiles []string
		}
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(p.GoFiles) == 0 {
			continue // tests only: nothing can import it
		}
		out = append(out, Package{Path: strings.TrimPrefix(p.ImportPath, Module+"/"), Name: p.Name, Doc: p.Doc, Imports: short(p.Imports), Deps: short(p.Deps)})
	}
	return out
}

func TestArchitecture(t *testing.T) {
	ps := list(t)
	for _, v := range Violations(ps) {
		t.Error(v)
	}
	// A rule about packages that are not there any more holds nothing.
	for _, must := range []string{"internal/bake", "internal/rollout", "internal/cloud", "internal/region", "internal/agent", "internal/region/guest", "internal/environment", "internal/cli"} {
		if !slices.ContainsFunc(ps, func(p Package) bool { return p.Path == must }) {
			t.Errorf("%s is not there: the rules are about another tree", must)
		}
	}
}

// TestRulesBreak proves that each rule catches what it is for.
func TestRulesBreak(t *testing.T) {
	for _, c := range []struct{ from, to, rule string }{
		{"internal/image", "internal/cloud", "imports point down"},
		{"internal/environment", "internal/rollout", "nouns know nouns"},
		{"internal/pipeline", "net/http", "nouns do no I/O"},
		{"internal/blueprint", "net/http", "fs.FS"},
		{"internal/template", "os", "nouns do no I/O"},
		{"internal/fault", "internal/clock", "ground knows nobody"},
		{"internal/bake", "internal/rollout", "verbs meet through records"},
		{"internal/advance", "internal/expire", "verbs meet through records"},
		{"internal/sweep", "internal/bake", "verbs meet through records"},
		{"internal/rollout", "net/http", "verbs do no I/O"},
		{"internal/bake", "internal/store/sqlite", "store's kind"},
		{"internal/reconcile", "internal/environment", "engine does not know"},
		{"internal/reconcile", "internal/bake", "imports point down"},
		{"internal/seal", "internal/cloud", "scripts are text"},
		{"internal/handoff", "net/http", "scripts are text"},
		{"internal/store/sqlite", "internal/environment", "store does not know"},
		{"internal/cloud", "internal/blueprint", "driver does not know"},
		{"internal/bake", "github.com/aws/aws-sdk-go-v2/service/ec2", "one driver"},
		{"internal/region/ec2", "github.com/aws/aws-sdk-go-v2/aws", "one driver"},
		{"internal/server", "internal/cloud", "API does not know"},
		{"internal/server", "internal/control", "imports point down"},
		{"internal/client", "internal/server", "client knows errors"},
		{"internal/cli", "internal/store/sqlite", "command line asks"},
		{"internal/control", "internal/region", "over its endpoint"},
		{"internal/cloud", "internal/region/wire", "over its endpoint"},
		{"internal/agent", "internal/region/guest", "over its endpoint"},
		{"demo", "internal/region", "over its endpoint"},
		{"internal/cli", "internal/region/ec2", "no part of it"},
		{"internal/control", "internal/region/state", "does not need the region"},
		{"internal/region/ec2", "internal/cloud", "does not know the platform"},
		{"internal/region", "internal/store", "does not know the platform"},
		{"internal/region/cfn", "internal/blueprint", "does not know the platform"},
		{"internal/region/ec2", "internal/region/iam", "services meet on the bus"},
		{"internal/region/autoscaling", "internal/region/ec2", "services meet on the bus"},
		{"internal/region/ec2", "internal/region/hypervisor/oci", "ports, not"},
		{"internal/region/elb", "internal/region/balancer/haproxy", "ports, not"},
		{"internal/agent", "internal/cloud", "manifest alone"},
		{"internal/handoff", "internal/region/wire", "manifest alone"},
		{"cmd/dayfly-agent", "github.com/aws/aws-sdk-go-v2/config", "manifest alone"},
		{"internal/region/guest", "net", "guest stays small"},
		{"cmd/dayfly-guest", "internal/region/hypervisor", "guest stays small"},
		{"internal/bake", "testing", "support stays in tests"},
		{"internal/control", "internal/store/storetest", "support stays in tests"},
		{"internal/rollout", "internal/cloud/cloudtest", "support stays in tests"},
	} {
		p := Package{Path: c.from, Name: "x", Doc: "x", Imports: []string{c.to}, Deps: []string{c.to}}
		if got := Violations([]Package{p}); !slices.ContainsFunc(got, func(v string) bool { return strings.Contains(v, c.rule) }) {
			t.Errorf("%s → %s: %q does not name the rule %q", c.from, c.to, got, c.rule)
		}
	}
	for _, c := range []struct {
		p    Package
		want string
	}{
		{Package{Path: "internal/newthing", Name: "newthing", Doc: "x"}, "no layer"},
		{Package{Path: "internal/region/util", Name: "util", Doc: "x"}, "says nothing"},
		{Package{Path: "internal/region/strutil", Name: "helpers", Doc: "x"}, "says nothing"},
		{Package{Path: "internal/bake", Name: "bake", Doc: " "}, "no doc comment"},
	} {
		if got := strings.Join(Violations([]Package{c.p}), "\n"); !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q does not say %q", c.p, got, c.want)
		}
	}
}

// TestRulesAllow proves that the rules leave alone what they are not about.
func TestRulesAllow(t *testing.T) {
	for _, c := range [][2]string{
		{"internal/bake", "internal/cloud"}, {"internal/bake", "internal/store"}, {"internal/bake", "io/fs"},
		{"internal/blueprint", "os"}, {"internal/blueprint", "internal/template"}, {"internal/environment", "internal/blocker"},
		{"internal/server", "internal/bake"}, {"internal/cli", "internal/region"}, {"internal/control", "internal/store/sqlite"},
		{"internal/cloud", "github.com/aws/smithy-go"}, {"internal/region/cfn", "internal/template"}, {"internal/region/ec2", "internal/region/network"},
		{"internal/region", "internal/region/hypervisor/oci"}, {"internal/agent", "internal/handoff"}, {"internal/agent", "net/http"},
		{"cmd/dayfly-guest", "internal/region/guest"}, {"internal/store/storetest", "testing"}, {"internal/cloud/cloudtest", "testing"}, {"internal/cloud/cloudtest", "internal/reconcile"}, {"internal/verify", "internal/image"},
	} {
		if got := Violations([]Package{{Path: c[0], Name: "x", Doc: "x", Imports: c[1:], Deps: c[1:]}}); len(got) > 0 {
			t.Errorf("%s → %s: %q", c[0], c[1], got)
		}
	}
}

// timeless are the packages whose decisions take the time from outside.
func timeless(p string) bool {
	return match(p, nouns) || match(p, verbs) || match(p, services) || match(p, []string{"internal/reconcile", "internal/resolve", "internal/cloud", "internal/store/sqlite", "internal/region/state", "internal/region/wire"})
}

// TestSource reads our files for what imports do not show.
func TestSource(t *testing.T) {
	files := 0
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if n := d.Name(); d.IsDir() {
			if p != root && (strings.HasPrefix(n, ".") || n == "testdata" || n == "bin" || n == "build") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(p, ".go") || strings.HasSuffix(p, "_gen.go") {
			return nil
		}
		files++
		rel, err := filepath.Rel(root, filepath.Dir(p))
		if err != nil {
			return err
		}
		found, err := source(p, nil, timeless(filepath.ToSlash(rel)) && !strings.HasSuffix(p, "_test.go"))
		for _, f := range found {
			t.Error(f)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 100 {
		t.Errorf("only %d files were read", files)
	}
}

func TestSourceBreaks(t *testing.T) {
	for _, c := range []struct {
		src, want string
		timeless  bool
	}{
		{"package p\nfunc init() {}", "init", false},
		{"package p\nimport \"time\"\nvar t = time.Now()", "time.Now", true},
		{"package p\nimport \"time\"\nfunc f() { time.Sleep(1) }", "time.Sleep", true},
		{"package p\n// TO" + "DO: later", "TO" + "DO", false},
		{"package p\nimport \"time\"\nvar t = time.Now()", "", false},
		{"package p\nfunc (x) init() {}\ntype x struct{}", "", false},
	} {
		got, err := source("x.go", []byte(c.src), c.timeless)
		if err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(got, "\n"); (c.want == "") != (text == "") || !strings.Contains(text, c.want) {
			t.Errorf("%q: %q, not %q", c.src, text, c.want)
		}
	}
}

// source finds registration by init, the real clock where it is not allowed,
// and work that was left for later.
func source(name string, src []byte, timeless bool) ([]string, error) {
	var from any
	if src != nil {
		from = src
	}
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, name, from, parser.ParseComments)
	if err != nil {
		return nil, err
	}
	var out []string
	say := func(n ast.Node, what string) { out = append(out, fset.Position(n.Pos()).String()+": "+what) }
	for _, d := range f.Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
			say(fn, "init registers behind the reader's back")
		}
	}
	for _, g := range f.Comments {
		if strings.Contains(g.Text(), "TO"+"DO") || strings.Contains(g.Text(), "FIX"+"ME") {
			say(g, "TO"+"DO is left")
		}
	}
	if !timeless {
		return out, nil
	}
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := s.X.(*ast.Ident); ok && x.Name == "time" && slices.Contains([]string{"Now", "Sleep", "Since", "Until", "After", "NewTimer", "NewTicker", "Tick"}, s.Sel.Name) {
				say(s, "time."+s.Sel.Name+": the clock is handed in")
			}
		}
		return true
	})
	return out, nil
}
