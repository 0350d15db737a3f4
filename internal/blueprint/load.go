package blueprint

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// maxFile is the largest dayfly.yaml that is read, in bytes.
const maxFile = 256 << 10

const (
	day      = 24 * time.Hour
	maxLease = 365 * day
)

var nameForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}[a-z0-9]$`)

// String is the problem as compilers print it.
func (p Problem) String() string {
	s := p.File
	if p.Line > 0 {
		s += ":" + strconv.Itoa(p.Line) + ":" + strconv.Itoa(p.Column)
	}
	if p.Warning {
		s += ": warning"
	}
	s += ": " + p.Message
	if p.Hint != "" {
		s += " (" + p.Hint + ")"
	}
	return s
}

// Load reads dayfly.yaml and checks that every file that it names is there.
// The blueprint is nil when a problem is more than a warning; err is only for
// folders that cannot be read.
func Load(fsys fs.FS) (*Blueprint, []Problem, error) {
	raw, err := fs.ReadFile(fsys, File)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, []Problem{{File: File, Message: "there is no dayfly.yaml in this folder", Hint: "dayfly init DIR makes a blueprint that works"}}, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", File, err)
	}
	if len(raw) > maxFile {
		return nil, []Problem{{File: File, Message: fmt.Sprintf("the file has %d bytes; the limit is %d", len(raw), maxFile)}}, nil
	}
	r := &reader{file: File, at: map[string]ast.Node{}}
	b := r.parse(raw)
	if b != nil {
		r.files(fsys, b)
	}
	for _, p := range r.problems {
		if !p.Warning {
			return nil, r.problems, nil
		}
	}
	return b, r.problems, nil
}

func (r *reader) parse(raw []byte) *Blueprint {
	f, err := parser.ParseBytes(raw, 0)
	if err != nil {
		p := Problem{File: File, Message: "this is not YAML: " + err.Error()}
		var se *yaml.SyntaxError
		if errors.As(err, &se) && se.Token != nil {
			p.Message, p.Line, p.Column = "this is not YAML: "+se.Message, se.Token.Position.Line, se.Token.Position.Column
		}
		r.problems = append(r.problems, p)
		return nil
	}
	if len(f.Docs) != 1 || f.Docs[0].Body == nil {
		r.problem(nil, "dayfly init DIR makes a blueprint that works", "the file must have one YAML document, and has %d", len(f.Docs))
		return nil
	}
	o := r.object(f.Docs[0].Body, "")
	b := &Blueprint{Name: o.string("name", "")}
	if !nameForm.MatchString(b.Name) {
		r.problem(o.position("name"), "such as: name: shop", "name must be 2 to 32 of a-z, 0-9 and -, beginning with a letter")
	}
	b.Image = r.image(o)
	b.Release = r.release(o)
	b.Handoff = r.handoff(o)
	b.Foundation = o.string("foundation", "foundation.yaml")
	b.Fleet = o.string("fleet", "fleet.yaml")
	b.Parameters = r.parameterNames(o)
	b.Environments = r.environments(o, b.Image.Boot)
	b.Runs = r.runs(o, b)
	b.Pipeline = r.pipeline(o, b)
	o.done()
	return b
}

func (r *reader) image(o *object) Image {
	i := r.object(o.node("image"), "image")
	i.node("puppet")
	im := Image{
		Base: i.string("base", "debian-12"),
		Type: i.string("type", "t3.medium"),
		Role: i.string("role", o.string("name", "")),
		Boot: i.oneOf("boot", "armed", "armed", "puppet"),
	}
	im.KeepFailed = i.duration("keep_failed", 2*time.Hour, 0, day)
	im.Refresh = i.duration("refresh", 0, time.Hour, 30*day)
	im.Verify = i.strings("verify")
	im.SecretsAllow = r.allow(i.node("secrets_allow"))
	im.Puppet = r.puppet(o, im.Role)
	if im.Boot == "puppet" {
		switch {
		case im.Puppet.Server == "":
			r.problem(i.position("boot"), "boot: armed", "boot: puppet runs Puppet's agent against a server at first boot, and image.puppet has none")
		case strings.Contains(im.Puppet.Role, ":"):
			r.problem(i.position("boot"), "such as: role: web", "with boot: puppet image.puppet.role is part of the instances' certnames, which have no colon")
		}
	}
	i.done()
	return im
}

// boxSchemes are the addresses of boxes that there are adapters for.
var boxSchemes = []string{"https", "http", "s3", "file", "git+https", "git+ssh", "git+file"}

// reference is a branch, a tag or a commit that no command takes for a flag.
var reference = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}$`)

func (r *reader) release(o *object) Release {
	n := o.node("release")
	x := r.object(n, "release")
	rel := Release{Box: x.string("box", ""), Follow: x.string("follow", "latest")}
	x.done()
	u, err := url.Parse(rel.Box)
	if err != nil || !slices.Contains(boxSchemes, u.Scheme) {
		r.problem(x.position("box"), `such as: release: { box: "https://box.corp.example/shop" }`, "release.box must be an address that begins with one of %s", strings.Join(boxSchemes, ":// ")+"://")
	} else if _, secret := u.User.Password(); secret {
		r.problem(x.position("box"), "let git find it, by a credential helper or a key of ssh; or let the network decide who may read the box", "release.box holds a password, and a blueprint is no place for one")
	}
	repository := u != nil && strings.HasPrefix(u.Scheme, "git+")
	switch {
	case strings.Contains(rel.Follow, "\\"), strings.Contains(rel.Follow, "/") && !repository:
		r.problem(x.position("follow"), "", "release.follow is latest or the name of an artifact in the box")
	case repository && !reference.MatchString(rel.Follow):
		r.problem(x.position("follow"), "", "release.follow is latest, a branch, a tag or a whole commit of the repository")
	}
	return rel
}

func (r *reader) handoff(o *object) Handoff {
	x := r.object(o.node("handoff"), "handoff")
	h := Handoff{
		Run:      x.string("run", ""),
		Service:  x.string("service", ""),
		User:     x.string("user", "root"),
		Ready:    x.string("ready", ""),
		Deadline: x.duration("deadline", 10*time.Minute, 5*time.Second, 6*time.Hour),
	}
	if h.Run == "" {
		r.problem(x.position("run"), "handoff: { run: deploy/deploy }", "handoff.run must name the deploy script")
	}
	u, err := url.Parse(h.Ready)
	if err != nil || (u.Scheme != "http" && u.Scheme != "tcp") || u.Hostname() != "" || u.Port() == "" {
		r.problem(x.position("ready"), `such as: ready: "http://:8080/healthz"`, "handoff.ready must be http://:PORT/PATH or tcp://:PORT, on the instance itself")
	}
	x.done()
	return h
}

func (r *reader) parameterNames(o *object) ParameterNames {
	x := r.object(o.node("parameters"), "parameters")
	p := ParameterNames{
		Image:         x.string("image", "ImageId"),
		ReleaseURL:    x.string("release_url", "ReleaseUrl"),
		ReleaseMirror: x.string("release_mirror", "ReleaseMirror"),
		ReleaseDigest: x.string("release_digest", "ReleaseDigest"),
		Size:          x.string("size", "Size"),
		MaxSize:       x.string("max_size", "MaxSize"),
		Environment:   x.string("environment", "Environment"),
		Generation:    x.string("generation", "Generation"),
		Bucket:        x.string("bucket", "Bucket"),
		Operation:     x.string("operation", "Operation"),
	}
	x.done()
	return p
}

func (r *reader) environments(o *object, boot string) map[string]Environment {
	x := r.object(o.node("environments"), "environments")
	out := map[string]Environment{}
	for _, k := range x.order {
		e := r.object(x.node(k), "environments."+k)
		if !nameForm.MatchString(k) {
			r.problem(x.pairs[k].Key, "", "an environment's name is 2 to 32 of a-z, 0-9 and -, beginning with a letter")
		}
		out[k] = Environment{
			Name:       k,
			Size:       e.int("size", 3, 1, 1000),
			Zones:      e.int("zones", 3, 1, 6),
			Standing:   standing(e.node("lease")),
			MaxAge:     e.duration("max_age", 0, 10*time.Minute, maxLease),
			Touched:    e.oneOf("touched", "replace", "replace", "report"),
			Parameters: e.parameters("parameters"),
		}
		one := out[k]
		one.Image, one.Follow = r.follow(e, x.node(k), o.string("name", ""), k, x.order)
		if one.Lease = day; !one.Standing {
			one.Lease = e.duration("lease", day, time.Minute, maxLease)
		}
		if lost := e.oneOf("survive", "none", "none", "1 zone", "2 zones"); lost == "1 zone" || lost == "2 zones" {
			one.Survive = int(lost[0] - '0')
			if boot == "puppet" {
				r.problem(e.position("survive"), "boot: armed", "environments.%s.survive: with image.boot: puppet every instance needs the Puppet server at its boot, so a lost zone could not be made good without it", k)
			}
			if one.Survive >= one.Zones {
				r.problem(e.position("survive"), "", "environments.%s.survive: %s of %d cannot be lost, nothing would be left", k, lost, one.Zones)
			} else if n := one.Instances(); n > 1000 {
				r.problem(e.position("survive"), "", "environments.%s.survive: %d instances would be launched; the limit is 1000", k, n)
			}
		}
		one.Strategy = r.strategy(e, x.node(k), k)
		one.LeaseMax = e.duration("lease_max", max(one.Lease, day), time.Minute, maxLease)
		if one.LeaseMax < one.Lease {
			r.problem(e.position("lease_max"), "", "environments.%s.lease_max, how far the lease may be extended, is shorter than the lease", k)
		}
		out[k] = one
		e.done()
	}
	r.circles(x, out)
	if len(out) == 0 {
		r.problem(x.at, "environments: { dev: { size: 3 } }", "environments must have at least one environment")
	}
	return out
}

// files checks that what the blueprint names is in the folder.
func (r *reader) files(fsys fs.FS, b *Blueprint) {
	need := func(what, p string, dir bool) {
		if p == "" {
			return
		}
		clean := path.Clean(strings.TrimSuffix(p, "/"))
		if !fs.ValidPath(clean) {
			r.problem(r.at[what], "paths are relative to the folder of dayfly.yaml", "%s: %q leads out of the folder", what, p)
			return
		}
		st, err := fs.Stat(fsys, clean)
		switch {
		case err != nil:
			r.problem(r.at[what], r.nearestFile(fsys, clean), "%s: there is no %s", what, p)
		case dir && !st.IsDir():
			r.problem(r.at[what], "", "%s: %s must be a folder", what, p)
		case !dir && !st.Mode().IsRegular():
			r.problem(r.at[what], "", "%s: %s must be a file", what, p)
		}
	}
	need("image.puppet.code", b.Image.Puppet.Code, true)
	if b.Image.Puppet.Code != "" {
		need("image.puppet.code", path.Join(b.Image.Puppet.Code, "manifests/site.pp"), false)
	}
	for _, v := range b.Image.Verify {
		need("image.verify", v, false)
	}
	r.goss(fsys, b.Image.Verify)
	need("handoff.run", b.Handoff.Run, false)
	r.checks(fsys, b, need)
	if _, err := fs.Stat(fsys, path.Clean(b.Foundation)); err != nil && b.Foundation == "foundation.yaml" {
		b.Foundation = "" // one template holds both
	}
	need("foundation", b.Foundation, false)
	need("fleet", b.Fleet, false)
	for i, s := range b.Pipeline {
		for j, u := range s.Suites {
			need(fmt.Sprintf("pipeline[%d].suites[%d].run", i, j), u.Run, false)
		}
		if s.Gate != nil {
			what := fmt.Sprintf("pipeline[%d].gate.command", i)
			need(what, s.Gate.Command, false)
			r.small(fsys, what, s.Gate.Command)
		}
	}
}

// nearestFile suggests a file of the same folder.
func (r *reader) nearestFile(fsys fs.FS, p string) string {
	es, err := fs.ReadDir(fsys, path.Dir(p))
	if err != nil {
		return ""
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Name())
	}
	return nearest(path.Base(p), names)
}
