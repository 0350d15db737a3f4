// Package shell renders the scripts that reach instances by Run Command:
// values come in as quoted variables and never as text of the script. It must
// not know what the scripts do.
package shell

import (
	"encoding/base64"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Quote makes one word for a POSIX shell of any text.
func Quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

var nameForm = regexp.MustCompile(`^[A-Z][A-Z0-9_]*$`)

// prelude is how every script begins.
const prelude = `set -eu
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/puppetlabs/bin
LC_ALL=C.UTF-8
export PATH LC_ALL
`

// Render makes a script of variables and a body.
func Render(vars map[string]string, body string) string {
	var b strings.Builder
	b.WriteString("#!/bin/sh\n")
	b.WriteString(prelude)
	names := make([]string, 0, len(vars))
	for n := range vars {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		if !nameForm.MatchString(n) {
			panic(fmt.Sprintf("shell: %q is no variable's name", n)) // written in our own code
		}
		fmt.Fprintf(&b, "%s=%s\n", n, Quote(strings.ReplaceAll(vars[n], "\x00", "")))
	}
	b.WriteString(body)
	return b.String()
}

// Command makes a script that runs a file of a team's own, with variables in
// its environment. The file travels in the script.
func Command(vars map[string]string, body []byte) string {
	all := map[string]string{"BODY": base64.StdEncoding.EncodeToString(body)}
	maps.Copy(all, vars)
	export := ""
	if len(vars) > 0 {
		export = "export " + strings.Join(slices.Sorted(maps.Keys(vars)), " ") + "\n"
	}
	return Render(all, export+`dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
printf %s "$BODY" | base64 -d >"$dir/command"
chmod 700 "$dir/command"
cd /
"$dir/command"
`)
}

// LastLines is the end of an output: at most n lines and limit bytes.
func LastLines(out string, n, limit int) string {
	out = strings.TrimRight(out, "\n \t")
	if len(out) > limit {
		out = out[len(out)-limit:]
		if _, rest, ok := strings.Cut(out, "\n"); ok {
			out = rest
		}
	}
	lines := strings.Split(out, "\n")
	return strings.ToValidUTF8(strings.Join(lines[max(0, len(lines)-n):], "\n"), "?")
}
