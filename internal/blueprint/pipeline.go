package blueprint

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

// Runs is what holds for every run of the pipeline.
type Runs struct {
	Team      string // whose share of the quota it takes, default the blueprint's name
	AtOnce    int    // instances of one run at once, 0 = as many as the server allows
	Supersede bool   // a new run cancels those of the same blueprint that are not over
	Notify    []Notify
}

// Notify is somewhere that hears of runs.
type Notify struct {
	To     string   // name of a file in the server's secrets that holds the address
	Format string   // json or slack
	On     []string // passed, failed, gate, manual; default failed and gate
}

// Stage of a pipeline: suites side by side, a gate, or a deploy.
type Stage struct {
	Name     string
	Suites   []Suite
	Gate     *Gate
	Deploy   string // environment
	Required bool   // the run stops where it fails; otherwise gates may read its results
}

// Gate stops a run until a person, or what was measured, lets it go on.
type Gate struct {
	By      []string      // persons or groups
	Results *Results      // of the suites before it
	Metric  *Metric       // a number that somebody measures
	Command string        // path in the folder, run where a stage before it deployed
	Timeout time.Duration // then it is closed for good; a command may run that long
}

// Results is what the suites before a gate must have brought. -1 is no limit.
type Results struct {
	MinPassed  int // test cases that passed, at least
	MaxFailed  int // test cases
	MaxFlaky   int // suites that passed on a later try only
	MaxSkipped int // test cases
}

// Metric is an address that answers with a number, or with JSON that has one.
type Metric struct {
	URL   string
	Path  string   // in the JSON, such as data.result.0.value.1
	Above *float64 // it must be above
	Below *float64 // it must be below
}

// Suite is a test suite with an environment of its own.
type Suite struct {
	Name        string
	Run         string   // path in the folder
	Manual      []string // steps that a person does
	Checklist   []string // what the person ticks off
	Size        int      // default 3
	Lease       time.Duration
	LeaseMax    time.Duration
	Timeout     time.Duration // default 30m
	Retries     int
	Shards      int
	Parameters  map[string]string
	Credentials map[string]string // variable: SSM parameter
}

// IsManual tells whether a person does the suite.
func (s Suite) IsManual() bool { return s.Run == "" }

const (
	maxSuites = 200
	maxStages = 50
	maxSteps  = 50
	maxText   = 1000
)

func (r *reader) runs(o *object, b *Blueprint) Runs {
	x := r.object(o.node("runs"), "runs")
	out := Runs{
		Team:      x.string("team", b.Name),
		AtOnce:    x.int("at_once", 0, 0, 100_000),
		Supersede: x.bool("supersede", false),
	}
	if !nameForm.MatchString(out.Team) && out.Team != b.Name {
		r.problem(x.position("team"), "", "runs.team must be 2 to 32 of a-z, 0-9 and -, beginning with a letter")
	}
	for i, n := range x.list("notify") {
		path := fmt.Sprintf("runs.notify[%d]", i)
		e := r.object(n, path)
		v := Notify{To: e.string("to", ""), Format: e.oneOf("format", "json", "json", "slack"), On: e.strings("on")}
		if !nameForm.MatchString(v.To) {
			r.problem(e.position("to"), "the address is in a file of that name in the server's folder secrets", "%s.to must be the name of a secret of the server: 2 to 32 of a-z, 0-9 and -", path)
		}
		if len(v.On) == 0 {
			v.On = []string{"failed", "gate"}
		}
		words := []string{"passed", "failed", "gate", "manual"}
		for _, w := range v.On {
			if !slices.Contains(words, w) {
				r.problem(e.position("on"), nearest(w, words), "%s.on cannot have %q; valid: %s", path, w, strings.Join(words, ", "))
			}
		}
		e.done()
		out.Notify = append(out.Notify, v)
	}
	if len(out.Notify) > 10 {
		r.problem(x.position("notify"), "", "runs.notify has %d places; the limit is 10", len(out.Notify))
	}
	x.done()
	return out
}

func (r *reader) pipeline(o *object, b *Blueprint) []Stage {
	var out []Stage
	names := map[string]bool{}
	seen := map[string]string{}
	count, deploys := 0, false
	for i, n := range o.list("pipeline") {
		path := fmt.Sprintf("pipeline[%d]", i)
		x := r.object(n, path)
		s := Stage{Name: x.string("stage", ""), Deploy: x.string("deploy", ""), Required: x.bool("required", true)}
		switch {
		case s.Name == "":
			r.problem(n, "", "%s needs a stage, its name", path)
		case len(s.Name) > 60:
			r.problem(x.position("stage"), "", "%s.stage has more than 60 letters", path)
		case names[s.Name]:
			r.problem(x.position("stage"), "", "there are two stages named %q", s.Name)
		}
		names[s.Name] = true
		what := 0
		if g := x.node("gate"); g != nil {
			s.Gate = r.gate(g, path+".gate", deploys)
			what++
		}
		if s.Deploy != "" {
			what++
			deploys = true
			if _, ok := b.Environments[s.Deploy]; !ok {
				r.problem(x.position("deploy"), "", "%s.deploy names %q, which is not in environments", path, s.Deploy)
			}
			if count == 0 {
				r.problem(x.position("deploy"), "put a stage with suites before it", "%s deploys what no suite before it has tested", path)
			}
		}
		for j, sn := range x.list("suites") {
			u := r.suite(sn, fmt.Sprintf("%s.suites[%d]", path, j), seen)
			s.Suites = append(s.Suites, u)
			count += max(1, u.Shards)
		}
		if x.pairs["suites"] != nil {
			what++
		}
		if what != 1 {
			r.problem(n, "suites: [...], gate: { by: ... } or deploy: ENVIRONMENT", "%s must have one of suites, gate and deploy, and has %d", path, what)
		}
		x.done()
		out = append(out, s)
	}
	if count > maxSuites {
		r.problem(o.position("pipeline"), "", "the pipeline has %d suites, each shard counted; the limit is %d", count, maxSuites)
	}
	if len(out) > maxStages {
		r.problem(o.position("pipeline"), "", "the pipeline has %d stages; the limit is %d", len(out), maxStages)
	}
	return out
}

// commandTime is how long a gate's command may run where nothing is said, and
// commandMost where something is.
const (
	commandTime = 10 * time.Minute
	commandMost = 24 * time.Hour
)

// gate reads a gate; deploys tells whether a stage before it deploys.
func (r *reader) gate(n ast.Node, path string, deploys bool) *Gate {
	x := r.object(n, path)
	g := &Gate{By: x.strings("by"), Command: x.string("command", ""), Timeout: x.duration("timeout", 7*day, time.Second, 90*day)}
	what := min(len(g.By), 1)
	if x.pairs["command"] != nil {
		what++
		at := x.position("command")
		switch {
		case g.Command == "":
			r.problem(at, "command: gates/ready.sh", "%s.command must be a file in the folder", path)
		case !deploys:
			r.problem(at, "put a stage with deploy: ENVIRONMENT before it, or make the command a suite, which has an environment of its own", "%s.command has nothing to run on: the environments of suites are gone when a gate opens, and no stage before it deploys", path)
		}
		if x.pairs["timeout"] == nil {
			g.Timeout = commandTime
		} else if g.Timeout > commandMost {
			r.problem(x.position("timeout"), "", "%s.timeout: a command may run for 24h at most", path)
		}
	}
	for _, by := range g.By {
		if by == "" || len(by) > 100 {
			r.problem(x.position("by"), "", "%s.by must have names of persons or groups, of at most 100 letters", path)
		}
	}
	if n := x.node("results"); n != nil {
		what++
		e := r.object(n, path+".results")
		g.Results = &Results{
			MinPassed:  e.int("min_passed", 0, 0, 1_000_000),
			MaxFailed:  e.int("max_failed", 0, 0, 1_000_000),
			MaxFlaky:   e.int("max_flaky", -1, 0, 1_000_000),
			MaxSkipped: e.int("max_skipped", -1, 0, 1_000_000),
		}
		e.done()
	}
	if n := x.node("metric"); n != nil {
		what++
		e := r.object(n, path+".metric")
		m := &Metric{URL: e.string("url", ""), Path: e.string("path", ""), Above: e.float("above"), Below: e.float("below")}
		u, err := url.Parse(m.URL)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
			r.problem(e.position("url"), "", "%s.metric.url must be an http:// or https:// address without a password", path)
		}
		if m.Above == nil && m.Below == nil {
			r.problem(n, "such as: below: 0.01", "%s.metric needs above or below, the limit of its number", path)
		}
		e.done()
		g.Metric = m
	}
	if what != 1 {
		r.problem(n, "gate: { by: release-managers }", "%s must have one of by, results, metric and command, and has %d", path, what)
	}
	x.done()
	return g
}

func (r *reader) suite(n ast.Node, path string, seen map[string]string) Suite {
	x := r.object(n, path)
	u := Suite{
		Name:       x.string("name", ""),
		Run:        x.string("run", ""),
		Size:       x.int("size", 3, 1, 1000),
		Lease:      x.duration("lease", 8*time.Hour, time.Minute, 30*day),
		LeaseMax:   x.duration("lease_max", 0, time.Minute, 30*day),
		Timeout:    x.duration("timeout", 30*time.Minute, time.Second, 24*time.Hour),
		Retries:    x.int("retries", 0, 0, 5),
		Shards:     x.int("shards", 1, 1, 50),
		Parameters: x.parameters("parameters"),
	}
	u.LeaseMax = max(u.LeaseMax, u.Lease)
	manual := x.node("manual")
	if manual != nil {
		if kindOf(manual) == "a mapping" {
			u.Manual, u.Checklist = r.manual(manual, path)
		} else {
			u.Manual = []string{strings.TrimSpace(x.string("manual", ""))}
		}
		r.steps(manual, path, u)
	}
	if !nameForm.MatchString(u.Name) {
		r.problem(x.position("name"), "", "%s.name must be 2 to 32 of a-z, 0-9 and -, beginning with a letter", path)
	}
	for _, name := range u.names() {
		if other, ok := seen[name]; ok && other == u.Name {
			r.problem(x.position("name"), "", "there are two suites named %q", u.Name)
			break
		} else if ok {
			r.problem(x.position("name"), "choose another name", "a shard or a second try of the suite %q would have the same name as one of the suite %q: %s", u.Name, other, name)
			break
		}
		seen[name] = u.Name
	}
	if (u.Run == "") == (manual == nil) {
		r.problem(n, "", "%s needs either run, a command in the folder, or manual, what a person does", path)
	}
	if manual != nil && (u.Shards > 1 || u.Retries > 0) {
		r.problem(n, "", "%s is manual: it has no shards and no retries", path)
	}
	u.Credentials = x.parameters("credentials")
	r.credentials(x.position("credentials"), path, u.Credentials)
	x.done()
	return u
}

// names are those of the environments that a suite may have.
func (s Suite) names() []string {
	shards := []string{s.Name}
	if s.Shards > 1 {
		shards = nil
		for i := range s.Shards {
			shards = append(shards, ShardName(s.Name, i+1))
		}
	}
	var out []string
	for _, n := range shards {
		for t := range s.Retries + 1 {
			out = append(out, TryName(n, t+1))
		}
	}
	return out
}

// ShardName is the name of a suite's n-th shard.
func ShardName(suite string, n int) string { return suite + "-s" + strconv.Itoa(n) }

// TryName is the name of a suite's n-th try.
func TryName(suite string, n int) string {
	if n <= 1 {
		return suite
	}
	return suite + "-t" + strconv.Itoa(n)
}

// manual reads steps and checklist.
func (r *reader) manual(n ast.Node, path string) (steps, checklist []string) {
	m := r.object(n, path+".manual")
	steps, checklist = m.strings("steps"), m.strings("checklist")
	m.done()
	return steps, checklist
}

func (r *reader) steps(n ast.Node, path string, u Suite) {
	if len(u.Manual) == 0 || u.Manual[0] == "" {
		r.problem(n, `manual: "log in, place an order"`, "%s.manual must say what a person does", path)
	}
	for _, s := range append(slices.Clone(u.Manual), u.Checklist...) {
		if len(s) > maxText {
			r.problem(n, "", "%s.manual has a text of %d bytes; the limit is %d", path, len(s), maxText)
		}
	}
	if len(u.Manual) > maxSteps || len(u.Checklist) > maxSteps {
		r.problem(n, "", "%s.manual has more than %d steps or points", path, maxSteps)
	}
}

var (
	variableForm  = regexp.MustCompile(`^[A-Z][A-Z0-9_]{0,60}$`)
	parameterForm = regexp.MustCompile(`^[A-Za-z0-9_./-]{1,500}$`)
)

func (r *reader) credentials(at ast.Node, path string, wanted map[string]string) {
	for name, from := range wanted {
		if !variableForm.MatchString(name) || strings.HasPrefix(name, "DAYFLY_") {
			r.problem(at, "credentials: { SHOP_TOKEN: /shop/test/token }", "%s.credentials: %q cannot be the name of a variable; it is A-Z, 0-9 and _, and not DAYFLY_…", path, name)
		}
		if !parameterForm.MatchString(from) {
			r.problem(at, "", "%s.credentials.%s must be the name of an SSM parameter, which holds the secret", path, name)
		}
	}
	if len(wanted) > 20 {
		r.problem(at, "", "%s.credentials has %d; the limit is 20", path, len(wanted))
	}
}
