// Package inventory is what an image holds, as a noun: packages, and files that
// are of no package; and what differs between two of them. It does no I/O.
package inventory

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Inventory is what was found on a fresh instance of an image.
type Inventory struct {
	System   string    `json:"system"` // os-release's PRETTY_NAME
	Distro   string    `json:"distro"` // os-release's ID and VERSION_ID, such as debian-12
	Made     time.Time `json:"made"`
	Packages []Package `json:"packages"`
	Files    []File    `json:"files"`          // of no package, or not as their package brought them
	More     bool      `json:"more,omitempty"` // there are more files than are listed
}

// Package is an installed package.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Arch    string `json:"arch"`
	Source  string `json:"source,omitempty"`
	License string `json:"license,omitempty"` // SPDX or the package's own words, where they are machine-readable
}

// File is a plain file or a link.
type File struct {
	Path   string `json:"path"`
	Mode   string `json:"mode"`
	Digest string `json:"digest,omitempty"` // sha256 in hex
	Link   string `json:"link,omitempty"`
}

// Difference is one thing that differs between two images.
type Difference struct {
	Kind string `json:"kind"` // package, file, resource
	Name string `json:"name"`
	What string `json:"what"` // added, removed, changed
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// Diff says what is different in b, in order.
func Diff(a, b Inventory) []Difference {
	out := diff("package", packages(a), packages(b))
	return append(out, diff("file", files(a), files(b))...)
}

// Resources says which of Puppet's resources are different, by two reports.
func Resources(a, b []byte) []Difference {
	return diff("resource", resources(a), resources(b))
}

func diff(kind string, a, b map[string]string) []Difference {
	var out []Difference
	for name, from := range a {
		to, ok := b[name]
		switch {
		case !ok:
			out = append(out, Difference{Kind: kind, Name: name, What: "removed", From: from})
		case from != to:
			out = append(out, Difference{Kind: kind, Name: name, What: "changed", From: from, To: to})
		}
	}
	for name, to := range b {
		if _, ok := a[name]; !ok {
			out = append(out, Difference{Kind: kind, Name: name, What: "added", To: to})
		}
	}
	slices.SortFunc(out, func(x, y Difference) int { return cmp.Compare(x.Name, y.Name) })
	return out
}

func packages(v Inventory) map[string]string {
	out := map[string]string{}
	for _, p := range v.Packages {
		out[p.Name+":"+p.Arch] = p.Version
	}
	return out
}

func files(v Inventory) map[string]string {
	out := map[string]string{}
	for _, f := range v.Files {
		what := f.Mode + " " + f.Digest[:min(12, len(f.Digest))]
		if f.Link != "" {
			what = "→ " + f.Link
		}
		out[f.Path] = what
	}
	return out
}

// A report lists the resources by their names, two spaces deep; each has the
// file and line of its declaration.
var (
	resource = regexp.MustCompile(`(?m)^  (?:\? )?["']?([A-Z][A-Za-z0-9_:]*\[[^\n]*\])["']?: !ruby`)
	section  = regexp.MustCompile(`(?m)^[a-z_]+:`)
)

// resources are those of Puppet's last report, with what tells one state of a
// resource from another as far as a report has it.
func resources(report []byte) map[string]string {
	out := map[string]string{}
	s := string(report)
	i := strings.Index(s, "\nresource_statuses:")
	if i < 0 {
		return out
	}
	s = s[i+len("\nresource_statuses:"):]
	if end := section.FindStringIndex(s); end != nil {
		s = s[:end[0]]
	}
	for _, m := range resource.FindAllStringSubmatch(s, -1) {
		if name := m[1]; !strings.HasPrefix(name, "Schedule[") && !strings.HasPrefix(name, "Filebucket[") {
			out[name] = ""
		}
	}
	return out
}

// Names are the resources of a report, for those who list them.
func Names(report []byte) []string { return slices.Sorted(maps.Keys(resources(report))) }
