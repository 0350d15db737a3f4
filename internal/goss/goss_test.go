package goss

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		name, body string
		passed     bool
		bad        bool
		want       string
	}{
		{"good.yaml", "file:\n  /etc/passwd: { exists: true }\ncommand:\n  true: { exit-status: 0 }\n", true, false, "Failed: 0"},
		{"fails.yaml", "file:\n  /nowhere/at/all: { exists: true }\n", false, false, "/nowhere/at/all"},
		{"wrong.yaml", "file: [\n", false, true, ""},
	} {
		p := filepath.Join(dir, c.name)
		if err := os.WriteFile(p, []byte(c.body), 0o600); err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		passed, err := Run(p, &b)
		if passed != c.passed || (err != nil) != c.bad || !strings.Contains(b.String(), c.want) {
			t.Errorf("%s: passed %v, %v: %s", c.name, passed, err, b.String())
		}
	}
}
