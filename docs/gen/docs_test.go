package main

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"unicode"

	"github.com/alecthomas/kong"

	"github.com/dayfly-infra/dayfly/internal/cli"
)

// documents are all pages of the repository.
func documents(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if n := d.Name(); d.IsDir() && p != root && (strings.HasPrefix(n, ".") || n == "bin" || n == "build" || n == "testdata" || n == "node_modules") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(p, ".md") {
			return nil
		}
		raw, err := os.ReadFile(p)
		out[p] = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 8 {
		t.Fatalf("only %d pages were found", len(out))
	}
	return out
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fence   = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")
	inline  = regexp.MustCompile("`([^`\n]+)`")
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// anchor is a heading as links name it.
func anchor(h string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(strings.ReplaceAll(h, "`", "")) {
		switch {
		case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
			b.WriteRune(r)
		case r == ' ':
			b.WriteByte('-')
		}
	}
	return b.String()
}

func TestLinks(t *testing.T) {
	pages := documents(t)
	for p, text := range pages {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			to, part, _ := strings.Cut(m[1], "#")
			if strings.Contains(to, "://") {
				continue
			}
			target := p
			if to != "" {
				target = filepath.Join(filepath.Dir(p), to)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s: the link %s leads nowhere", p, m[1])
				continue
			}
			found := part == ""
			for _, h := range heading.FindAllStringSubmatch(pages[target], -1) {
				found = found || anchor(h[1]) == part
			}
			if !found {
				t.Errorf("%s: the link %s names no heading", p, m[1])
			}
		}
	}
}

// TestCommandsAreReal: what the pages tell people to type is there.
func TestCommandsAreReal(t *testing.T) {
	app, err := cli.Model()
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for p, text := range documents(t) {
		var snippets []string
		for _, m := range fence.FindAllStringSubmatch(text, -1) {
			snippets = append(snippets, m[2])
		}
		for _, m := range inline.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			snippets = append(snippets, m[1])
		}
		for _, s := range snippets {
			if strings.ContainsAny(s, "│─") {
				continue // a drawing
			}
			for _, c := range commands(s) {
				seen++
				if err := known(app.Node, c); err != nil {
					t.Errorf("%s: dayfly %s: %v", p, strings.Join(c, " "), err)
				}
			}
		}
	}
	if seen < 50 {
		t.Errorf("only %d commands were found", seen)
	}
	for _, bad := range []string{"dayfly environment list", "dayfly deploy shop dev --sise 3", "x && dayfly region begin", "dayfly env", "$(dayfly region enw)"} {
		for _, c := range commands(bad) {
			if known(app.Node, c) == nil {
				t.Errorf("%q passes", bad)
			}
		}
	}
}

var call = regexp.MustCompile(`(?:^|[\s(;&|"])dayfly((?:[ \t]+[^\s;&|)#>"]+)+)`)

// commands are the calls of dayfly in a piece of shell, without the name.
func commands(s string) [][]string {
	var out [][]string
	for line := range strings.Lines(s) {
		line, _, _ = strings.Cut(line, " #")
		for _, m := range call.FindAllStringSubmatch(line, -1) {
			out = append(out, strings.Fields(m[1]))
		}
	}
	return out
}

// known walks the model as far as the words are commands and flags; words in
// capitals stand for something.
func known(n *kong.Node, words []string) error {
	takes := map[string]bool{} // flags so far, and whether they take a value
	add := func(n *kong.Node) {
		for _, f := range n.Flags {
			takes["--"+f.Name] = !f.IsBool()
			if f.Short != 0 {
				takes["-"+string(f.Short)] = !f.IsBool()
			}
		}
	}
	add(n)
	for i := 0; i < len(words); i++ {
		w := words[i]
		if w == "--" {
			return nil // what follows is somebody else's
		}
		if strings.HasPrefix(w, "-") {
			name, _, with := strings.Cut(w, "=")
			value, ok := takes[name]
			if !ok {
				return fmt.Errorf("there is no flag %s", name)
			}
			if value && !with {
				i++
			}
			continue
		}
		if len(n.Positional) > 0 || w == strings.ToUpper(w) || w == "[flags]" {
			continue
		}
		var next *kong.Node
		for _, c := range n.Children {
			if c.Name == w {
				next = c
			}
		}
		if next == nil && n.DefaultCmd != nil && len(n.DefaultCmd.Positional) > 0 {
			next = n.DefaultCmd // such as: dayfly bake shop
		}
		if next == nil {
			return fmt.Errorf("there is no command %s", w)
		}
		n = next
		add(n)
		if n.DefaultCmd != nil {
			add(n.DefaultCmd)
		}
	}
	if len(n.Children) > 0 && n.DefaultCmd == nil && words[len(words)-1] != "--help" && words[len(words)-1] != strings.ToUpper(words[len(words)-1]) {
		return fmt.Errorf("%s needs a command", n.Name)
	}
	return nil
}

// TestTutorialParses: the tutorial's blocks are one script of sh.
func TestTutorialParses(t *testing.T) {
	raw, err := os.ReadFile(filepath.Join(root, "docs/tutorial.md"))
	if err != nil {
		t.Fatal(err)
	}
	text := script(string(raw))
	for _, must := range []string{"dayfly region start", "dayfly deploy", "dayfly env destroy", "dayfly region stop"} {
		if !strings.Contains(text, must) {
			t.Errorf("the tutorial does not have %q", must)
		}
	}
	cmd := exec.CommandContext(t.Context(), "sh", "-n")
	cmd.Stdin = strings.NewReader(text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// script is what the sh blocks of a page are together.
func script(page string) string {
	out := "set -eu\n"
	for _, m := range fence.FindAllStringSubmatch(page, -1) {
		if m[1] == "sh" {
			out += m[2]
		}
	}
	return out
}
