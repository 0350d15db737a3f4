package blueprint

import (
	"strings"
	"testing"
)

func TestGossProblems(t *testing.T) {
	for _, c := range []struct{ name, raw, want string }{
		{"good", "package:\n  jq: { installed: true }\nfile:\n  /etc/motd:\n    exists: true\n    contents: [x]\n    title: the message\n", ""},
		{"an unknown type", "package:\n  jq: { installed: true }\npackge:\n  x: { installed: true }\n", `v/base.yaml:3:1: goss has no resource type "packge" (did you mean "package"?)`},
		{"an unknown attribute", "file:\n  /etc/motd:\n    exist: true\n", `v/base.yaml:3:5: goss's file has no "exist" (did you mean "exists"?)`},
		{"no YAML", "package:\n  jq: [\n", "v/base.yaml:2:7: this is not YAML"},
		{"a list", "- package\n", "v/base.yaml:1:1: the file must be a mapping"},
		{"a resource that says nothing", "package:\n  jq:\n", `v/base.yaml:2:3: package "jq" says nothing that can be checked`},
		{"an include", "gossfile:\n  other.yaml: {}\n", "v/base.yaml:1:1: goss files do not include others here"},
		{"a template", "{{ if true }}\npackage:\n  jq: { installed: true }\n{{ end }}\n", ""},
		{"empty", "", "v/base.yaml"},
		{"nothing to check", "package: {}\n", "the goss file checks nothing"},
		{"a key twice", "package:\n  a: { installed: true }\n  a: { installed: true }\n", "v/base.yaml:3:3:"},
		{"large", strings.Repeat("# x\n", 70_000), "the limit is"},
	} {
		var got []string
		for _, p := range gossProblems("v/base.yaml", []byte(c.raw)) {
			got = append(got, p.String())
		}
		if text := strings.Join(got, "\n"); (c.want == "") != (text == "") || !strings.Contains(text, c.want) {
			t.Errorf("%s: %q, not %q", c.name, text, c.want)
		}
	}
}

func FuzzGoss(f *testing.F) {
	f.Add([]byte("package:\n  jq: { installed: true }\n"))
	f.Add([]byte("file: { /etc: &a { exists: true }, /x: *a }\n"))
	f.Add([]byte("? [a]\n: b\n"))
	f.Fuzz(func(_ *testing.T, raw []byte) { gossProblems("x.yaml", raw) })
}
