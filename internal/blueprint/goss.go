package blueprint

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxGoss is the largest goss file that is read, in bytes.
const maxGoss = 256 << 10

// isGoss tells a goss file among the checks from a script.
func isGoss(check string) bool {
	e := path.Ext(check)
	return e == ".yaml" || e == ".yml"
}

// GossAttributes are goss v0.4.9's types of resources with what each of them can
// say. Those of all types are in gossEvery.
var GossAttributes = map[string][]string{
	"addr":         {"address", "local-address", "reachable", "timeout"},
	"command":      {"exec", "exit-status", "stderr", "stdout", "timeout"},
	"dns":          {"addrs", "resolvable", "resolve", "resolveable", "server", "timeout"},
	"file":         {"contains", "contents", "exists", "filetype", "gid", "group", "linked-to", "md5", "mode", "owner", "path", "sha256", "sha512", "size", "uid"},
	"group":        {"exists", "gid", "groupname"},
	"http":         {"allow-insecure", "body", "ca-file", "cert-file", "headers", "key-file", "method", "no-follow-redirects", "password", "proxy", "request-body", "request-headers", "status", "timeout", "url", "username"},
	"interface":    {"addrs", "exists", "mtu", "name"},
	"kernel-param": {"name", "value"},
	"matching":     {"as-reader", "content", "matches"},
	"mount":        {"exists", "filesystem", "mountpoint", "opts", "source", "timeout", "usage", "vfs-opts"},
	"package":      {"installed", "name", "versions"},
	"port":         {"ip", "listening", "port"},
	"process":      {"comm", "running"},
	"service":      {"enabled", "name", "runlevels", "running"},
	"user":         {"exists", "gid", "groups", "home", "shell", "uid", "username"},
}

var gossEvery = []string{"meta", "skip", "title"}

// goss checks the goss files among the image's checks, so that one that cannot
// be read is refused before anything is baked.
func (r *reader) goss(fsys fs.FS, checks []string) {
	for _, c := range checks {
		if !isGoss(c) {
			continue
		}
		raw, err := fs.ReadFile(fsys, path.Clean(c))
		if err != nil {
			continue // said already
		}
		r.problems = append(r.problems, gossProblems(path.Clean(c), raw)...)
	}
}

func gossProblems(name string, raw []byte) []Problem {
	r := &reader{file: name, at: map[string]ast.Node{}}
	if len(raw) > maxGoss {
		r.problem(nil, "take several files", "the file has %d bytes; the limit is %d", len(raw), maxGoss)
		return r.problems
	}
	if strings.Contains(string(raw), "{{") {
		return nil // a template: what it says is known on the machine
	}
	f, err := parser.ParseBytes(raw, 0)
	if err != nil {
		p := Problem{File: name, Message: "this is not YAML: " + err.Error()}
		var se *yaml.SyntaxError
		if errors.As(err, &se) && se.Token != nil {
			p.Message, p.Line, p.Column = "this is not YAML: "+se.Message, se.Token.Position.Line, se.Token.Position.Column
		}
		return append(r.problems, p)
	}
	if len(f.Docs) != 1 || f.Docs[0].Body == nil {
		r.problem(nil, "such as: package: { jq: { installed: true } }", "a goss file has one YAML document, and this has %d", len(f.Docs))
		return r.problems
	}
	var types []string
	for t := range GossAttributes {
		types = append(types, t)
	}
	slices.Sort(types)
	top, resources := r.object(f.Docs[0].Body, ""), 0
	for _, typ := range top.order {
		key := top.pairs[typ].Key
		if typ == "gossfile" {
			r.problem(key, "name each goss file in image.verify of "+File, "goss files do not include others here")
			continue
		}
		attributes, ok := GossAttributes[typ]
		if !ok {
			r.problem(key, nearest(typ, types), "goss has no resource type %q", typ)
			continue
		}
		all := r.object(plain(top.pairs[typ].Value), typ)
		for _, id := range all.order {
			resources++
			one := r.object(plain(all.pairs[id].Value), typ+"."+id)
			known := append(slices.Clone(attributes), gossEvery...)
			said := false
			for _, a := range one.order {
				if !slices.Contains(known, a) {
					r.problem(one.pairs[a].Key, nearest(a, known), "goss's %s has no %q", typ, a)
				}
				said = said || !slices.Contains(gossEvery, a)
			}
			if !said && len(one.order) == 0 {
				r.problem(all.pairs[id].Key, fmt.Sprintf("such as: %s: { %s: ... }", id, attributes[0]), "%s %q says nothing that can be checked", typ, id)
			}
		}
	}
	if resources == 0 && len(r.problems) == 0 {
		r.problem(nil, "such as: package: { jq: { installed: true } }", "the goss file checks nothing")
	}
	return r.problems
}
