package blueprint

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// gossTypes are the resource types of goss 0.4.9. Includes (gossfile) are left
// out: each file is named in image.verify, so that all of them travel.
var gossTypes = []string{"addr", "command", "dns", "file", "group", "http", "interface", "kernel-param", "matching", "mount", "package", "port", "process", "service", "user"}

// maxGoss is the largest goss file that is taken, in bytes.
const maxGoss = 256 << 10

// checkGoss finds what is wrong in a goss file before a machine is made for it.
func checkGoss(files fs.FS, file string) []Problem {
	raw, err := fs.ReadFile(files, path.Clean(file))
	if err != nil {
		return nil // that it is missing is said elsewhere
	}
	one := func(line, column int, hint, format string, args ...any) []Problem {
		return []Problem{{File: path.Clean(file), Line: line, Column: column, Message: fmt.Sprintf(format, args...), Hint: hint}}
	}
	if len(raw) > maxGoss {
		return one(0, 0, "", "a goss file may have %d bytes", maxGoss)
	}
	if bytes.Contains(raw, []byte("{{")) {
		return nil // a template: what it says is known on the machine
	}
	doc, err := parser.ParseBytes(raw, 0)
	if err != nil {
		if e, ok := err.(yaml.Error); ok && e.GetToken() != nil {
			p := e.GetToken().Position
			return one(p.Line, p.Column, "", "%s", e.GetMessage())
		}
		return one(0, 0, "", "%s", err)
	}
	var out []Problem
	for _, d := range doc.Docs {
		if d.Body == nil {
			continue
		}
		var pairs []*ast.MappingValueNode
		switch m := d.Body.(type) {
		case *ast.MappingNode:
			pairs = m.Values
		case *ast.MappingValueNode:
			pairs = []*ast.MappingValueNode{m}
		default:
			p := d.Body.GetToken().Position
			return one(p.Line, p.Column, "such as: file: { /etc/motd: { exists: true } }", "a goss file names resource types, and below each what is checked")
		}
		for _, kv := range pairs {
			p := kv.Key.GetToken().Position
			k := kv.Key.GetToken().Value
			known := false
			for _, t := range gossTypes {
				known = known || t == k
			}
			switch {
			case k == "gossfile":
				out = append(out, one(p.Line, p.Column, "name each file in image.verify", "gossfile: other files are not included")...)
				continue
			case !known:
				hint := "it has " + strings.Join(gossTypes, ", ")
				if n := nearest(k, gossTypes); n != "" {
					hint = n
				}
				out = append(out, one(p.Line, p.Column, hint, "goss has no resource type %q", k)...)
				continue
			}
			switch kv.Value.(type) {
			case *ast.MappingNode, *ast.MappingValueNode:
			default:
				out = append(out, one(p.Line, p.Column, "such as: "+k+": { NAME: { ... } }", "%s must name what is checked, each with its attributes", k)...)
			}
		}
	}
	return out
}
