package shell

import (
	"os/exec"
	"strings"
	"testing"
)

// Whatever a value holds, the script prints just that.
func FuzzRender(f *testing.F) {
	for _, s := range []string{"", "x", "a'b", `$(id) "x" \ ` + "`id`", "two\nlines", "'; exit 3; '", "-n"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		if strings.Contains(v, "\x00") || strings.HasSuffix(v, "\n") || len(v) > 10000 {
			return
		}
		out, err := exec.Command("sh", "-c", Render(map[string]string{"VALUE": v}, `printf %s "$VALUE"`)).Output()
		if err != nil || string(out) != v {
			t.Fatalf("%q became %q, %v", v, out, err)
		}
	})
}

func TestLastLines(t *testing.T) {
	for _, c := range []struct {
		in       string
		n, limit int
		want     string
	}{
		{"a\nb\nc\n\n", 2, 100, "b\nc"},
		{"a", 5, 100, "a"},
		{"", 5, 100, ""},
		{"aaaa\nbbbb\ncc", 9, 6, "cc"},
	} {
		if got := LastLines(c.in, c.n, c.limit); got != c.want {
			t.Errorf("%q: %q, want %q", c.in, got, c.want)
		}
	}
}
