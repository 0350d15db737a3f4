// Package archtest holds the rules of the architecture as data and as pure
// functions, and a test that asks the go command which package imports which.
// It must not be imported by anything.
package archtest

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// Module is the path that our own packages begin with.
const Module = "github.com/dayfly-infra/dayfly"

// Package is what the rules need to know of a package. Paths of our own
// packages are without the module, such as internal/bake.
type Package struct {
	Path    string
	Name    string
	Doc     string
	Imports []string // what it imports itself, without its tests
	Deps    []string // what it needs in all
}

// Layer is a row of the picture: packages import from their own row or from
// those below.
type Layer struct {
	Name     string
	Packages []string // patterns
}

// Layers from the top to the bottom.
var Layers = []Layer{
	{"entry", []string{
		"cmd/dayfly",
		"docs/gen",
	}},
	{"shells", []string{
		"internal/cli",
		"internal/control",
	}},
	{"surfaces", []string{
		"internal/server",
		"internal/client",
		"internal/chronicle",
		"internal/web",
		"internal/metrics",
		"internal/trace",
	}},
	{"verbs", []string{
		"internal/bake",
		"internal/rollout",
		"internal/heal",
		"internal/expire",
		"internal/advance",
		"internal/notify",
		"internal/renew",
		"internal/trigger",
		"internal/sweep",
	}},
	{"machinery", []string{
		"internal/reconcile",
		"internal/resolve",
		"internal/puppet",
		"internal/verify",
		"internal/seal",
		"internal/shell",
		"internal/hook",
		"internal/outbound",
		"internal/handoff",
		"internal/identity",
		"internal/manifest",
		"internal/token",
		"internal/audit",
		"internal/attest",
	}},
	{"adapters", []string{
		"internal/store/...",
		"internal/cloud",
		"internal/cloud/limiter",
		"internal/box/...",
	}},
	{"nouns", []string{
		"internal/blueprint",
		"internal/image",
		"internal/release",
		"internal/environment",
		"internal/currency",
		"internal/instance",
		"internal/inventory",
		"internal/pipeline",
		"internal/report",
		"internal/retention",
		"internal/event",
		"internal/access",
		"internal/blocker",
		"internal/chaos",
		"internal/template",
		"internal/template/schema",
	}},
	{"ground", []string{
		"internal/fault",
		"internal/clock",
		"internal/operation",
	}},
}

// Apart are the packages outside of the rows; rules of their own hold them.
var Apart = []string{
	"internal/region/...",
	"internal/agent",
	"cmd/dayfly-agent",
	"internal/autosign",
	"internal/autosign/csrtest",
	"cmd/dayfly-autosign",
	"cmd/dayfly-guest",
	"internal/template/schema/schemagen",
	"internal/archtest",
	"internal/cloud/cloudtest",
	"cmd/dayfly-probe",
	"internal/goss",
	"internal/secrets",
	"internal/inventory/...",
	"demo/...",
	"bench/...",
	"crash/...",
	"soak/...",
	"e2e/...",
	"examples/...",
}

// Rule forbids imports. A path is forbidden when Deny has it and Except has not.
type Rule struct {
	Name   string
	Of     []string // patterns of the packages that it is about
	But    []string // patterns of those that it is not about
	Deny   []string
	Except []string
	Deep   bool // also by way of other packages
}

const ours = "internal/..."

var (
	verbs = layer("verbs")
	nouns = layer("nouns")
	// world is what reaches beyond the process.
	world = []string{"os", "os/exec", "os/signal", "net", "net/http", "syscall", "database/sql"}
	// support is for tests: no binary needs it, and it may import testing.
	support = []string{
		"internal/store/storetest",
		"internal/store/pgtest",
		"internal/box/boxtest",
		"internal/cloud/cloudtest",
		"internal/autosign/csrtest",
		"internal/region/hypervisor/conformance",
		"internal/region/network/conformance",
		"internal/region/balancer/conformance",
	}
	// services of the region, which meet on the bus alone.
	services = []string{
		"internal/region/ec2",
		"internal/region/autoscaling",
		"internal/region/elb",
		"internal/region/cfn",
		"internal/region/cloudwatch",
		"internal/region/ssm",
		"internal/region/iam",
		"internal/region/sts",
		"internal/region/s3",
		"internal/region/imds",
		"internal/region/dns",
	}
)

// Rules of the architecture.
var Rules = []Rule{
	{Name: "nouns know nouns and ground alone", Of: nouns, Deny: []string{ours}, Except: append(layer("ground"), nouns...)},
	{Name: "nouns do no I/O", Of: nouns, But: []string{"internal/blueprint"}, Deny: world},
	// Pack and Unpack write the folder that they are handed, and nothing else.
	{Name: "the blueprint reads through fs.FS", Of: []string{"internal/blueprint"}, Deny: world, Except: []string{"os"}},
	{Name: "ground knows nobody", Of: layer("ground"), Deny: []string{ours}},
	{Name: "verbs meet through records", Of: verbs, Deny: verbs},
	{Name: "verbs do no I/O of their own", Of: verbs, Deny: world},
	{Name: "verbs do not know the store's kind", Of: verbs, Deny: []string{"internal/store/..."}, Except: []string{"internal/store"}},
	{Name: "the engine does not know the loops", Of: []string{"internal/reconcile"}, Deny: []string{ours}, Except: []string{"internal/store", "internal/clock"}},
	{Name: "scripts are text", Of: []string{"internal/puppet", "internal/seal", "internal/verify", "internal/shell", "internal/handoff", "internal/identity"}, Deny: append([]string{"internal/cloud/...", "internal/store/...", "internal/box/..."}, world...)},
	{Name: "the store does not know records", Of: []string{"internal/store/..."}, Deny: []string{ours}, Except: append([]string{"internal/store/..."}, layer("ground")...)},
	{Name: "the driver does not know what it is used for", Of: []string{"internal/cloud"}, Deny: []string{ours}, Except: append([]string{"internal/store"}, layer("ground")...)},
	{Name: "one driver: only cloud has the AWS SDK", Of: []string{"..."}, But: []string{"internal/cloud", "internal/autosign"}, Deny: []string{"github.com/aws/..."}},
	// It runs on the company's CA, without Dayfly and with a role that may only look.
	{Name: "autosign knows claims alone", Of: []string{"internal/autosign", "cmd/dayfly-autosign"}, Deny: []string{ours}, Except: []string{"internal/autosign", "internal/puppet", "internal/handoff", "internal/shell"}, Deep: true},
	{Name: "the API does not know the cloud", Of: []string{"internal/server"}, Deny: []string{"internal/cloud/...", "internal/store/sqlite", "internal/store/postgres", "internal/control"}},
	{Name: "the console is pages before an API", Of: []string{"internal/web"}, Deny: []string{ours}},
	{Name: "the client knows errors alone", Of: []string{"internal/client"}, Deny: []string{ours}, Except: layer("ground")},
	{Name: "the command line asks the server", Of: []string{"internal/cli"}, Deny: []string{"internal/cloud/...", "internal/store/...", "internal/box/...", "internal/rollout", "internal/advance", "internal/expire", "internal/resolve"}},
	{Name: "the region is reached over its endpoint alone", Of: []string{"..."}, But: []string{"internal/region/...", "internal/cli", "cmd/dayfly-guest"}, Deny: []string{"internal/region/..."}},
	{Name: "the command line starts the region and no part of it", Of: []string{"internal/cli"}, Deny: []string{"internal/region/..."}, Except: []string{"internal/region"}},
	{Name: "the platform does not need the region", Of: []string{"internal/control", "internal/server", "internal/client", "internal/chronicle", "internal/metrics", "internal/cloud/..."}, Deny: []string{"internal/region/..."}, Deep: true},
	{Name: "the region does not know the platform", Of: []string{"internal/region/..."}, Deny: []string{ours}, Except: []string{"internal/region/...", "internal/fault", "internal/clock", "internal/template", "internal/template/schema"}, Deep: true},
	{Name: "services meet on the bus", Of: services, Deny: services},
	{Name: "services know ports, not what is behind them", Of: services, Deny: []string{"internal/region/hypervisor/...", "internal/region/network/...", "internal/region/balancer/..."}, Except: []string{"internal/region/hypervisor", "internal/region/network", "internal/region/balancer"}},
	{Name: "the agent knows the hand-off and the manifest alone", Of: []string{"internal/agent", "internal/handoff", "internal/manifest", "cmd/dayfly-agent"}, Deny: []string{ours, "github.com/aws/..."}, Except: []string{"internal/agent", "internal/handoff", "internal/manifest"}, Deep: true},
	{Name: "the guest stays small", Of: []string{"internal/region/guest", "internal/region/hypervisor/launch/inside", "cmd/dayfly-guest"}, Deny: []string{ours, "net", "net/http", "os/exec", "github.com/..."}, Except: []string{"internal/region/guest", "internal/region/hypervisor/launch/inside"}, Deep: true},
	{Name: "what becomes PID 1 knows its plan alone", Of: []string{"internal/region/hypervisor/launch/inside"}, Deny: []string{ours}, Except: []string{"internal/region/hypervisor/launch/inside"}, Deep: true},
	{Name: "a peer does not know what it is compared with", Of: []string{"bench/bareclone"}, Deny: []string{ours}, Deep: true},
	{Name: "tests' support stays in tests", Of: []string{"..."}, But: support, Deny: append([]string{"testing", "internal/archtest"}, support...)},
}

// forbiddenNames are of packages that say nothing.
var forbiddenNames = []string{"util", "utils", "common", "helper", "helpers", "types", "misc", "shared", "base"}

func layer(name string) []string {
	for _, l := range Layers {
		if l.Name == name {
			return l.Packages
		}
	}
	panic("archtest: no layer " + name)
}

// match tells whether a path is one of the patterns: a path, or one with /...
// for itself and all below; ... alone is everything.
func match(p string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pat string) bool {
		if pat == "..." || pat == p {
			return true
		}
		root, ok := strings.CutSuffix(pat, "/...")
		return ok && (p == root || strings.HasPrefix(p, root+"/"))
	})
}

// row is the index of a package's layer, -1 where it has none.
func row(p string) int {
	return slices.IndexFunc(Layers, func(l Layer) bool { return match(p, l.Packages) })
}

// Violations says what is wrong with the packages, a line each.
func Violations(ps []Package) []string {
	var out []string
	for _, p := range ps {
		if row(p.Path) < 0 && !match(p.Path, Apart) {
			out = append(out, p.Path+" is in no layer: add it to archtest.Layers")
		}
		if slices.Contains(forbiddenNames, path.Base(p.Path)) || slices.Contains(forbiddenNames, p.Name) {
			out = append(out, p.Path+": the name says nothing of what the package is for")
		}
		if strings.TrimSpace(p.Doc) == "" {
			out = append(out, p.Path+" has no doc comment")
		}
		out = append(out, imports(p)...)
	}
	return out
}

func imports(p Package) []string {
	var out []string
	mine := row(p.Path)
	for _, i := range p.Imports {
		if theirs := row(i); mine >= 0 && theirs >= 0 && theirs < mine {
			out = append(out, fmt.Sprintf("%s (%s) imports %s (%s): imports point down", p.Path, Layers[mine].Name, i, Layers[theirs].Name))
		}
	}
	for _, r := range Rules {
		if !match(p.Path, r.Of) || match(p.Path, r.But) {
			continue
		}
		from, word := p.Imports, "imports"
		if r.Deep {
			from, word = p.Deps, "needs"
		}
		for _, i := range from {
			if i == p.Path || !match(i, r.Deny) || match(i, r.Except) {
				continue
			}
			out = append(out, fmt.Sprintf("%s %s %s: %s", p.Path, word, i, r.Name))
		}
	}
	return out
}
