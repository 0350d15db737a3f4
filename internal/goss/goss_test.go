package goss

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/goss-org/goss"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
)

// The blueprint's table of attributes is the engine's.
func TestAttributes(t *testing.T) {
	types := reflect.TypeFor[goss.GossConfig]()
	seen := 0
	for i := range types.NumField() {
		typ, _, _ := strings.Cut(types.Field(i).Tag.Get("yaml"), ",")
		if typ == "gossfile" {
			continue
		}
		seen++
		e := types.Field(i).Type.Elem().Elem()
		var want []string
		for j := range e.NumField() {
			if n, _, _ := strings.Cut(e.Field(j).Tag.Get("yaml"), ","); n != "-" && n != "" && n != "title" && n != "meta" && n != "skip" {
				want = append(want, n)
			}
		}
		slices.Sort(want)
		if got := blueprint.GossAttributes[typ]; !slices.Equal(got, want) {
			t.Errorf("%s: %q, not %q", typ, got, want)
		}
	}
	if seen != len(blueprint.GossAttributes) {
		t.Errorf("%d types, not %d", len(blueprint.GossAttributes), seen)
	}
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "motd"), []byte("lives for a day\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, body string
		passed     bool
		bad        bool
		want       []string
	}{
		{"good", "file:\n  /etc/passwd: { exists: true }\ncommand:\n  true: { exit-status: 0 }\n  ignored: { exit-status: 0, skip: true }\n", true, false, []string{"3 resources, 0 failed, 1 skipped"}},
		{"fails", "file:\n  " + dir + "/motd: { exists: true, mode: \"0640\", contents: [lives for a day] }\n  " + dir + "/none: { title: the other, exists: true, mode: \"0644\" }\ncommand:\n  echo bad; exit 3: { exit-status: 0 }\n", false, false,
			[]string{"Command: echo bad; exit 3: exit-status: expected 3", "File: " + dir + "/none (the other): exists: expected false", "3 resources, 2 failed, 0 skipped"}},
		{"no YAML", "file: [\n", false, true, nil},
		{"an unknown type", "packge:\n  x: { installed: true }\n", false, true, nil},
		{"an unknown attribute", "file:\n  /x: { exist: true }\n", false, true, nil},
		{"empty", "", false, true, nil},
	} {
		p := filepath.Join(dir, "x.yaml")
		if err := os.WriteFile(p, []byte(c.body), 0o600); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		passed, err := Run(p, &b)
		if passed != c.passed || (err != nil) != c.bad {
			t.Errorf("%s: passed %v, %v: %s", c.name, passed, err, b.String())
		}
		for _, want := range c.want {
			if !strings.Contains(b.String(), want) {
				t.Errorf("%s: it does not say %q:\n%s", c.name, want, b.String())
			}
		}
	}
}
