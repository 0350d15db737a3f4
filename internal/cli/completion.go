package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

type shellCmd struct {
	Shell string `arg:"" enum:"bash,zsh,fish" help:"bash, zsh or fish. For example: source <(dayfly completion bash)"`
}

var completions = map[string]string{
	"bash": `_dayfly() {
  local IFS=$'\n'
  COMPREPLY=($(dayfly complete-words -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _dayfly dayfly
`,
	"zsh": `#compdef dayfly
_dayfly() {
  local -a found
  found=("${(@f)$(dayfly complete-words -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
  if [[ -n "${found[1]}" ]]; then compadd -- "${found[@]}"; else _files; fi
}
compdef _dayfly dayfly
`,
	"fish": `function __dayfly
  set -l words (commandline -opc) (commandline -ct)
  dayfly complete-words -- $words[2..-1] 2>/dev/null
end
complete -c dayfly -a '(__dayfly)'
`,
}

func (c *shellCmd) Run(a *app) error {
	_, err := io.WriteString(a.out, completions[c.Shell])
	return err
}

// completeCmd prints what the last of the words could become.
type completeCmd struct {
	Words []string `arg:"" optional:"" passthrough:""`
}

func (c *completeCmd) Run(ctx context.Context, a *app, k *kong.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, w := range candidates(k.Model.Node, c.Words, func(kind string) []string { return a.names(ctx, kind) }) {
		fmt.Fprintln(a.out, w)
	}
	return nil
}

// names asks the server for the records of a kind.
func (a *app) names(ctx context.Context, kind string) (out []string) {
	switch kind {
	case "run":
		rs, _ := client.List[pipeline.Run](ctx, a.client, "runs", "")
		for _, r := range rs {
			out = append(out, r.Name)
		}
	case "env":
		es, _ := client.List[environment.Environment](ctx, a.client, "environments", "")
		for _, e := range es {
			if e.Phase != environment.Gone {
				out = append(out, e.Name)
			}
		}
	}
	return out
}

// candidates are commands, flags, values of flags and names of records that the
// last word could become.
func candidates(root *kong.Node, words []string, names func(kind string) []string) []string {
	if len(words) > 0 && words[0] == "--" {
		words = words[1:]
	}
	last := ""
	if len(words) > 0 {
		last, words = words[len(words)-1], words[:len(words)-1]
	}
	at, flags, group, args := root, slices.Clone(root.Flags), "", 0
	var value *kong.Flag // whose value comes next
	for _, w := range words {
		switch {
		case value != nil:
			value = nil
		case strings.HasPrefix(w, "--"):
			name, _, given := strings.Cut(strings.TrimPrefix(w, "--"), "=")
			for _, f := range flags {
				if f.Name == name && !f.IsBool() && !given {
					value = f
				}
			}
		case strings.HasPrefix(w, "-"):
		default:
			found := false
			for _, c := range at.Children {
				if c.Name == w || slices.Contains(c.Aliases, w) {
					if at == root {
						group = c.Name
					}
					at, found = c, true
					flags = append(flags, c.Flags...)
					break
				}
			}
			if !found {
				args++
			}
		}
	}
	var out []string
	add := func(s string) {
		if strings.HasPrefix(s, last) && s != "" {
			out = append(out, s)
		}
	}
	switch {
	case value != nil:
		for _, v := range value.EnumSlice() {
			add(v)
		}
	case strings.HasPrefix(last, "-"):
		for _, f := range flags {
			if !f.Hidden {
				add("--" + f.Name)
			}
		}
	default:
		for _, c := range at.Children {
			if !c.Hidden {
				add(c.Name)
			}
		}
		if args == 0 && len(at.Positional) > 0 {
			for _, v := range at.Positional[0].EnumSlice() {
				add(v)
			}
			if at.Positional[0].Name == "name" {
				for _, n := range names(group) {
					add(n)
				}
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}
