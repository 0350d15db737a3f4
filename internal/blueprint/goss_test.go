package blueprint

import (
	"strings"
	"testing"
	"testing/fstest"
)

func TestCheckGoss(t *testing.T) {
	for _, c := range []struct{ name, body, want string }{
		{"good", "file:\n  /etc/motd:\n    exists: true\nport:\n  tcp:22: { listening: true }\n", ""},
		{"one type", "file: { /etc/motd: { exists: true } }\n", ""},
		{"empty", "", ""},
		{"template", "{{range .Vars.x}}\nfile:\n{{end}}", ""},
		{"unknown type", "file:\n  /x: { exists: true }\npakage:\n  cron: { installed: true }\n", "verify/a.yaml:3:1: goss has no resource type \"pakage\" (did you mean \"package\"?)"},
		{"include", "gossfile:\n  other.yaml: {}\n", "verify/a.yaml:1:1: gossfile: other files are not included"},
		{"no names", "file: true\n", "verify/a.yaml:1:1: file must name what is checked"},
		{"a list", "- file\n", "a goss file names resource types"},
		{"no YAML", "file:\n\t/x: y\n", "verify/a.yaml:2:1"},
		{"too long", strings.Repeat("#", maxGoss+1), "a goss file may have"},
	} {
		var got []string
		for _, p := range checkGoss(fstest.MapFS{"verify/a.yaml": {Data: []byte(c.body)}}, "verify/a.yaml") {
			got = append(got, p.String())
		}
		if s := strings.Join(got, "; "); (c.want == "") != (s == "") || !strings.Contains(s, c.want) {
			t.Errorf("%s: %q, want %q", c.name, s, c.want)
		}
	}
}

func FuzzCheckGoss(f *testing.F) {
	f.Add([]byte("file:\n  /x: { exists: true }\n"))
	f.Add([]byte("a: [\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, p := range checkGoss(fstest.MapFS{"a.yaml": {Data: body}}, "a.yaml") {
			_ = p.String()
		}
	})
}
