package blueprint

import (
	"encoding/base64"
	"regexp"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/template"
)

// marker is the first line of user data that is meant for the agent.
const marker = "#dayfly"

// unknowable stands for what is known at launch only.
const unknowable = "\x00"

// told is a line of the user data, by which an instance learns what it is.
type told struct {
	key, parameter string
	weight         int
}

// How much is lost without a line.
const (
	optional = iota
	wanted   // what happens on the instance is not known
	needed   // the instance has no release
)

// tellings are all lines that the agent reads.
func (b *Blueprint) tellings() []told {
	n, mirror := b.Parameters, optional
	if strings.HasPrefix(b.Release.Box, "file:") {
		mirror = needed // no instance can read the box
	}
	return []told{
		{"DAYFLY_RELEASE_URL", n.ReleaseURL, optional}, {"DAYFLY_RELEASE_MIRROR", n.ReleaseMirror, mirror},
		{"DAYFLY_RELEASE_DIGEST", n.ReleaseDigest, needed}, {"DAYFLY_ENVIRONMENT", n.Environment, wanted},
		{"DAYFLY_GENERATION", n.Generation, wanted}, {"DAYFLY_LAUNCH_HOOK", "", optional}, {"DAYFLY_BUCKET", n.Bucket, wanted},
	}
}

// userDataLines is a UserData that works, to be copied.
func (b *Blueprint) userDataLines(hook string) string {
	s := "add to LaunchTemplateData:\n  UserData:\n    Fn::Base64: !Sub |\n      " + marker
	for _, l := range b.tellings() {
		v := "${" + l.parameter + "}"
		if l.parameter == "" {
			v = hook
		}
		s += "\n      " + l.key + "=" + v
	}
	return s
}

// userData looks whether a launch tells its instances what they need to know.
func (c *checker) userData(t *template.Template, l *template.Resource, data *template.Node) {
	hooks := hooksOf(t, l.Name)
	hook := "launch"
	if len(hooks) > 0 {
		hook = hooks[0]
	}
	lines := c.b.userDataLines(hook)
	n := data.Get("UserData")
	if n == nil {
		c.add(t, l.TypeAt, false, lines, "the launch template %s has no UserData: its instances would not know their release", l.Name)
		return
	}
	raw := c.plainUserData(t, n)
	if raw == unknowable {
		return // nothing of it is known before the launch
	}
	first, rest, _ := strings.Cut(raw, "\n")
	if strings.TrimRight(first, " \t\r") != marker {
		if !strings.Contains(first, unknowable) {
			c.add(t, n.Pos, false, lines, "the first line of UserData is not %s: the agent would take it for somebody else's", marker)
		}
		return
	}
	got := map[string]string{}
	hidden := false // a line may be in what cannot be known
	for _, line := range strings.Split(rest, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, v, ok := strings.Cut(line, "=")
		if k = strings.TrimSpace(k); strings.Contains(k, unknowable) {
			hidden = true
			continue
		}
		if !ok {
			c.add(t, c.find(t, n.Pos, line), false, "write KEY=VALUE", "the agent cannot read this line of UserData: %s", line)
			continue
		}
		got[k] = strings.TrimSpace(v)
		c.unknownKey(t, n, k)
	}
	if !hidden {
		c.missingKeys(t, n, got, lines)
	}
	c.keyValues(t, n, got)
	name, ok := got["DAYFLY_LAUNCH_HOOK"]
	if !ok || name == "" {
		name = "launch"
	}
	if len(hooks) > 0 && !slices.Contains(hooks, name) && !strings.ContainsAny(name, "$"+unknowable) {
		c.add(t, c.find(t, n.Pos, "DAYFLY_LAUNCH_HOOK"), false, "DAYFLY_LAUNCH_HOOK="+hook, "the group has no launch hook %s: its instances would never come into service", name)
	}
}

func (c *checker) unknownKey(t *template.Template, n *template.Node, k string) {
	var keys []string
	for _, l := range c.b.tellings() {
		keys = append(keys, l.key)
	}
	if !strings.HasPrefix(k, "DAYFLY_") || slices.Contains(keys, k) {
		return // the team's own
	}
	hint := ""
	if near := template.Nearest(k, keys); near != "" {
		hint = "did you mean " + near + "?"
	}
	c.add(t, c.find(t, n.Pos, k), true, hint, "the agent does not know %s", k)
}

func (c *checker) missingKeys(t *template.Template, n *template.Node, got map[string]string, lines string) {
	if got["DAYFLY_RELEASE_URL"] == "" && got["DAYFLY_RELEASE_MIRROR"] == "" {
		c.add(t, n.Pos, false, lines, "UserData has neither DAYFLY_RELEASE_URL nor DAYFLY_RELEASE_MIRROR: instances could not fetch their release")
	}
	for _, l := range c.b.tellings() {
		if got[l.key] != "" || l.weight == optional || l.key == "DAYFLY_RELEASE_MIRROR" && got["DAYFLY_RELEASE_URL"] == "" {
			continue
		}
		switch {
		case l.key == "DAYFLY_RELEASE_MIRROR":
			c.add(t, n.Pos, false, l.key+"=${"+l.parameter+"}", "UserData has no %s, and instances cannot read a box that is a folder of the server's machine", l.key)
		case l.weight == needed:
			c.add(t, n.Pos, false, l.key+"=${"+l.parameter+"}", "UserData has no %s: instances would not know their release", l.key)
		default:
			c.add(t, n.Pos, true, l.key+"=${"+l.parameter+"}", "UserData has no %s: reports of failed hand-offs would not be found", l.key)
		}
	}
}

// keyValues looks whether each line has the value that it is for.
func (c *checker) keyValues(t *template.Template, n *template.Node, got map[string]string) {
	for _, l := range c.b.tellings() {
		v := got[l.key]
		if v == "" || l.parameter == "" || strings.Contains(v, "${"+l.parameter+"}") || strings.Contains(v, unknowable) {
			continue
		}
		c.add(t, c.find(t, n.Pos, l.key), l.weight != needed, l.key+"=${"+l.parameter+"}", "%s is %s, and Dayfly passes it in the parameter %s", l.key, v, l.parameter)
	}
}

// find is where a text stands in a template, from a position on; the position
// itself where it does not stand there literally.
func (c *checker) find(t *template.Template, from template.Pos, text string) template.Pos {
	lines := c.source[t.File]
	for i := max(from.Line, 1); i <= len(lines); i++ {
		if at := strings.Index(lines[i-1], text); at >= 0 {
			return template.Pos{Line: i, Column: at + 1}
		}
	}
	return from
}

// hooksOf are the names of the launch hooks of the groups that launch from a
// template; none where one of them is not known.
func hooksOf(t *template.Template, launch string) []string {
	var out []string
	for _, g := range of(t, groupType) {
		if !refersTo(launchOf(g), launch) {
			continue
		}
		hooks := g.Properties.Get("LifecycleHookSpecificationList")
		if hooks == nil {
			continue
		}
		if _, _, computed := hooks.Function(); computed {
			return nil
		}
		for _, h := range hooks.Items {
			if tr := h.Get("LifecycleTransition"); tr == nil || tr.Text != "autoscaling:EC2_INSTANCE_LAUNCHING" {
				continue
			}
			name := h.Get("LifecycleHookName")
			if name == nil || !name.Scalar() {
				return nil
			}
			out = append(out, name.Text)
		}
	}
	return out
}

// plainUserData is what an instance will read, with ${Name} for what is filled
// in; user data must be Base64.
func (c *checker) plainUserData(t *template.Template, n *template.Node) string {
	name, arg, ok := n.Function()
	if ok && name == "Fn::Base64" {
		return rendered(arg)
	}
	text := rendered(n)
	if strings.Contains(text, unknowable) || ok && name == "Ref" {
		return unknowable
	}
	if raw, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), "")); err == nil && len(raw) > 0 {
		return string(raw)
	}
	c.add(t, n.Pos, false, "UserData: { Fn::Base64: !Sub ... }", "UserData must be Base64")
	return text
}

var variable = regexp.MustCompile(`\$\{[^!}][^}]*\}`)

// rendered is the text of a node, with ${Name} for references and unknowable
// for what only a launch can tell.
func rendered(n *template.Node) string {
	if n.Scalar() {
		return n.Text
	}
	name, arg, _ := n.Function()
	switch {
	case name == "Ref":
		return "${" + arg.Text + "}"
	case name == "Fn::Sub" && arg.Scalar():
		return arg.Text
	case name == "Fn::Sub" && len(arg.Items) == 2:
		return variable.ReplaceAllStringFunc(arg.Items[0].Text, func(v string) string {
			if given := arg.Items[1].Get(strings.TrimSpace(v[2 : len(v)-1])); given != nil {
				return rendered(given)
			}
			return v
		})
	case name == "Fn::Join" && len(arg.Items) == 2 && arg.Items[0].Scalar() && arg.Items[1].Kind == template.List:
		var parts []string
		for _, x := range arg.Items[1].Items {
			parts = append(parts, rendered(x))
		}
		return strings.Join(parts, arg.Items[0].Text)
	}
	return unknowable
}
