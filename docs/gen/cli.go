package main

import (
	"fmt"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/dayfly-infra/dayfly/internal/cli"
)

// cliPage is the command line, from its model.
func cliPage(string) (string, error) {
	app, err := cli.Model()
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString("# The command line\n\n")
	b.WriteString("`dayfly --help` and `dayfly COMMAND --help` print the same.\n\n## Flags of every command\n\n")
	flags(&b, app.Node)
	b.WriteString("\n")
	b.WriteString(exitCodes)
	for _, n := range app.Children {
		if err := command(&b, n, "dayfly", 2); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}

const exitCodes = `## Exit codes

| code | meaning |
| --- | --- |
| 0 | it is done |
| 1 | it failed |
| 2 | what was asked for is not valid: a flag, a file, a blueprint |
| 3 | there is no such thing |
| 4 | the server, the region or the box does not answer |
| 130 | Ctrl-C, after what the command had begun is gone |

With ` + "`--output json`" + ` standard output has one JSON value and nothing else; progress and errors go to standard error.
`

func command(b *strings.Builder, n *kong.Node, before string, depth int) error {
	if n.Hidden || n.Type != kong.CommandNode {
		return nil
	}
	if n.Help == "" {
		return fmt.Errorf("the command %s %s has no help", before, n.Name)
	}
	name := before + " " + n.Name
	fmt.Fprintf(b, "\n%s %s\n\n%s\n", strings.Repeat("#", depth), name, escape(n.Help))
	if n.Detail != "" {
		fmt.Fprintf(b, "\n%s\n", escape(n.Detail))
	}
	if n.Leaf() || n.DefaultCmd != nil {
		fmt.Fprintf(b, "\n```\n%s%s\n```\n", name, arguments(n))
	}
	list := ""
	for _, p := range n.Positional {
		if p.Help != "" {
			list += fmt.Sprintf("- `%s`: %s%s\n", p.Name, escape(p.Help), fallback(p))
		}
	}
	if list != "" {
		b.WriteString("\n" + list)
	}
	if own(n) {
		b.WriteString("\n")
		flags(b, n)
	}
	for _, c := range n.Children {
		if err := command(b, c, name, min(depth+1, 4)); err != nil {
			return err
		}
	}
	return nil
}

func arguments(n *kong.Node) string {
	s := ""
	for _, p := range n.Positional {
		s += " " + p.Summary()
	}
	if own(n) {
		s += " [flags]"
	}
	return s
}

func own(n *kong.Node) bool {
	for _, f := range n.Flags {
		if !f.Hidden && f.Name != "help" {
			return true
		}
	}
	return false
}

func flags(b *strings.Builder, n *kong.Node) {
	b.WriteString("| flag | meaning |\n| --- | --- |\n")
	for _, f := range n.Flags {
		if f.Hidden || f.Name == "help" {
			continue
		}
		name := "`--" + f.Name
		if !f.IsBool() {
			name += "=" + placeholder(f)
		}
		name += "`"
		if f.Short != 0 {
			name += ", `-" + string(f.Short) + "`"
		}
		more := fallback(f.Value)
		for _, e := range f.Envs {
			more += " Also `" + e + "`."
		}
		fmt.Fprintf(b, "| %s | %s%s |\n", name, escape(f.Help), more)
	}
}

func placeholder(f *kong.Flag) string {
	switch {
	case f.PlaceHolder != "":
		return f.PlaceHolder
	case f.IsSlice():
		return "VALUE,..."
	case f.Target.CanInt():
		return "N"
	}
	return "VALUE"
}

func fallback(v *kong.Value) string {
	if !v.HasDefault || v.IsBool() {
		return ""
	}
	return " Default `" + v.Default + "`."
}

// escape keeps a text from being read as markup.
func escape(s string) string {
	return strings.NewReplacer("|", "\\|", "<", "\\<").Replace(s)
}
