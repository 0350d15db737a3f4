package main

import (
	"fmt"
	"go/ast"
	"go/printer"
	"go/token"
	"slices"
	"strings"
)

// meanings of dayfly.yaml's keys. NAME stands for a name that the file gives.
var meanings = map[string]string{
	"name":                                     "The blueprint's name.",
	"foundation":                               "Template of the long-lived stack: network, access, roles, load balancer. Without the file the fleet's template holds everything.",
	"fleet":                                    "Template of a generation: launch template and Auto Scaling group. A new stack for every deploy.",
	"image":                                    "How the machine image is made.",
	"image.base":                               "`debian-12`, `debian-12-slim`, an `ami-…`, or the name of an SSM parameter that holds one.",
	"image.type":                               "Instance type of the builder.",
	"image.role":                               "Role of the machines; the fact `dayfly_role` and `$DAYFLY_ROLE`. Default: the blueprint's name.",
	"image.boot":                               "`armed`: the agent fires at boot what the bake armed. `puppet`: Puppet's agent runs against `image.puppet.server` first; [what that costs](../howto/puppet.md#boot-puppet).",
	"image.keep_failed":                        "How long a failed bake keeps its builder, for a look and for `dayfly bake --resume`; `0s`: not at all.",
	"image.refresh":                            "How often the image is made anew although nothing of the blueprint changed: base image, packages and the Puppet server's code may have. The newest inputs of the blueprint are; `NAME/candidate` moves to what they give. Without it: never. See [images](../howto/images.md#baked-anew).",
	"image.verify":                             "What every image must pass on two fresh instances: scripts, and goss files (`.yaml`; goss 0.4.9).",
	"image.secrets_allow":                      "What may look like a secret on the image: a list of `{ path, reason }`. Without it a key, token or password on a fresh instance fails the bake.",
	"image.secrets_allow[].path":               "Absolute, or a pattern; with a slash at the end, all below a folder.",
	"image.secrets_allow[].reason":             "Why it may be there.",
	"image.puppet":                             "Where the catalog comes from: `code` or `server`.",
	"image.puppet.code":                        "Folder with `manifests/site.pp`, and `modules/`, `data/`, `hiera.yaml` at need.",
	"image.puppet.server":                      "The company's Puppet server, `HOST` or `HOST:PORT`, by a name that its certificate has. Default port 8140. See [Puppet](../howto/puppet.md).",
	"image.puppet.address":                     "IP address of the server, for the bake only, where no name server knows its name.",
	"image.puppet.version":                     "Version of the server's environment. Another one makes another image; the server's `config_version` must be the same, where it has one.",
	"image.puppet.version_url":                 "Address that answers with that version, asked when a bake is started.",
	"image.puppet.ca_fingerprint":              "SHA-256 of the CA's bundle as the server gives it (`sha256sum ca_crt.pem` on the CA; not the fingerprint of the certificate that `openssl` prints). Without it the first CA that answers is believed.",
	"image.puppet.maxwaitforcert":              "How long the CA may take to sign.",
	"image.puppet.environment":                 "Puppet's environment; the run is pinned to it.",
	"image.puppet.role":                        "Role of the builder; `pp_role` in its certificate. Default: `image.role`.",
	"image.puppet.max_runs":                    "Runs until one changes nothing; one more is a failed bake.",
	"image.puppet.deadline":                    "Time for all runs together.",
	"release":                                  "Where the team's code comes from.",
	"release.box":                              "`https://`, `http://`, `s3://` or `file://` address of a folder with artifacts, `SHA256SUMS` and `LATEST`; or `git+https://`, `git+ssh://`, `git+file://` and a repository: a release is then the archive of a commit.",
	"release.follow":                           "`latest`, or the name of an artifact.",
	"handoff":                                  "The team's own deploy script and what it starts.",
	"handoff.run":                              "The deploy script. Its whole folder goes into the image.",
	"handoff.service":                          "Command that the agent keeps running after the script. Without it the script starts something itself.",
	"handoff.user":                             "User of the service.",
	"handoff.ready":                            "`http://:PORT/PATH` or `tcp://:PORT` on the instance itself: ready when it answers.",
	"handoff.deadline":                         "From boot to ready.",
	"parameters":                               "Names of the template parameters that Dayfly passes its values in. A template that lacks one does not get it.",
	"parameters.image":                         "The image's AMI.",
	"parameters.release_url":                   "The release's address in the box.",
	"parameters.operation":                     "Id of what the launch is part of, as in logs and `dayfly events`.",
	"parameters.release_mirror":                "The release's `s3://` address in Dayfly's bucket.",
	"parameters.release_digest":                "The release's digest.",
	"parameters.size":                          "How many instances.",
	"parameters.max_size":                      "The group's MaxSize.",
	"parameters.environment":                   "The environment's name.",
	"parameters.generation":                    "The generation's number.",
	"parameters.bucket":                        "Dayfly's own bucket, for reports.",
	"environments":                             "Environments by purpose; `dayfly deploy DIR NAME` makes one.",
	"environments.NAME.size":                   "How many instances.",
	"environments.NAME.zones":                  "How many availability zones are meant. The template decides; Dayfly does not check it yet.",
	"environments.NAME.survive":                "How many zones may be lost without falling below `size`. More instances are launched for it: 69 for 45 in three zones of which one may go. `dayfly deploy --size` says how many are launched in all.",
	"environments.NAME.lease":                  "How long it may live after a deploy. Then it is destroyed. `standing`: Dayfly renews it until somebody destroys the environment.",
	"environments.NAME.lease_max":              "How far its lease may be extended, from the moment when it was made. Default: 24h, or the lease where that is longer.",
	"environments.NAME.max_age":                "Maximum age of an instance. It is replaced before, at a moment of its own, and another serves first. Without it instances live as long as their generation.",
	"environments.NAME.touched":                "What becomes of instances that somebody changed (a login, a Run Command, a protected file): `replace`, or only `report`.",
	"environments.NAME.replace":                "How a generation follows another, a word or a mapping: `recreate`, all traffic at once, and the old one ends; `blue-green`, a whole new one gets traffic by steps, and the old one stays through the soak; `rolling`, the new one grows by steps while the old one shrinks. See [deploys](../howto/deploys.md).",
	"environments.NAME.replace.strategy":       "The word, where there is more to say.",
	"environments.NAME.replace.steps":          "Shares of the traffic in per cent, the last is 100. Default: `[1, 10, 50, 100]` for `blue-green`, `[25, 50, 75, 100]` for `rolling`.",
	"environments.NAME.replace.pause":          "Each step lasts so long at least.",
	"environments.NAME.replace.check":          "A command of the team's, in the folder, 16 KB at most. It runs on an instance of the new generation at every step; another exit code than 0 goes back.",
	"environments.NAME.replace.max_error_rate": "How many of a hundred requests the new generation may answer with 5xx, such as `1%`, by the load balancer's figures, at every step and through the soak; more goes back. Without it nobody looks. See [deploys](../howto/deploys.md).",
	"environments.NAME.replace.max_latency":    "How long instances of the new generation may take on average until they begin to answer, such as `500ms`, by the same figures; more goes back. Without it nobody looks.",
	"environments.NAME.replace.rollback":       "`auto`: what fails goes back by itself; `manual`: it waits for `dayfly rollback`.",
	"environments.NAME.soak":                   "What served before stays so long after all traffic has moved; going back is then a switch of traffic.",
	"environments.NAME.image":                  "A channel of this blueprint that the environment follows, such as `shop/stable`, or a mapping: a deploy takes the image that it points to, and when the channel moves, Dayfly takes the environment there by itself. With `shop/candidate` a deploy bakes the image of the blueprint's own inputs at need. Without the key it does so too, and follows nothing. See [images](../howto/images.md).",
	"environments.NAME.image.channel":          "The channel.",
	"environments.NAME.image.after":            "Environments of this blueprint, deployed under their usual names, that must have run an image through their soak before this one is taken to it. A deploy asks nobody.",
	"environments.NAME.image.wait":             "And so long after that.",
	"environments.NAME.image.within":           "How soon all instances shall be of a new image: `dayfly image currency` says what will be late, and why.",
	"environments.NAME.image.windows":          "When a rollout of an image may begin, such as `mon-thu 09:00-16:00 Europe/Berlin`, `sat,sun 22:00-04:00` (UTC) or `daily 02:00-05:00`. Without it: at any time. A revoked image waits for none.",
	"environments.NAME.parameters":             "Values for both templates' parameters, where they have them.",
	"runs":                                     "What holds for every run of the pipeline.",
	"runs.team":                                "Whose share of the server's quota of instances a run takes. Default: the blueprint's name.",
	"runs.at_once":                             "Instances that one run may have at once; 0: as many as the server allows.",
	"runs.supersede":                           "A new run cancels the earlier ones of the blueprint that are not over, unless they are deploying.",
	"runs.notify":                              "Who hears of runs.",
	"runs.notify[].to":                         "Name of a file in the server's folder `secrets`; its line is the address, which stays out of the blueprint and of all records.",
	"runs.notify[].format":                     "`json`: the run as the API has it; `slack`: a message.",
	"runs.notify[].on":                         "When: `passed`, `failed`, `gate` (one waits for a person), `manual` (a suite waits for a tester). Default: `failed` and `gate`.",
	"pipeline":                                 "Stages in order; the suites of a stage run side by side. `dayfly run start` runs it all, `dayfly test` the automated suites only. See [Pipelines](../howto/pipelines.md).",
	"pipeline[].stage":                         "The stage's name.",
	"pipeline[].required":                      "`false`: the run goes on when the stage fails; a gate after it may read its results.",
	"pipeline[].deploy":                        "Environment that the stage deploys, with the image and the release that the run has tested. `dayfly deploy` refuses it past the pipeline.",
	"pipeline[].gate":                          "The run waits here: one of `by`, `results`, `metric` and `command`.",
	"pipeline[].gate.by":                       "Persons or groups, one of whom approves or rejects.",
	"pipeline[].gate.timeout":                  "Then the gate is closed for good. A `command` may run that long: default `10m`, at most `24h`.",
	"pipeline[].gate.command":                  "A file in the folder, of at most 16 KiB, run on an instance of the environment that the last `deploy` stage before it deployed; exit code 0 opens the gate.",
	"pipeline[].gate.results":                  "It opens when the suites before it keep to these limits.",
	"pipeline[].gate.results.min_passed":       "Test cases that passed, at least.",
	"pipeline[].gate.results.max_failed":       "Test cases that failed, at most.",
	"pipeline[].gate.results.max_flaky":        "Suites that passed at a later try only, at most; -1: any number.",
	"pipeline[].gate.results.max_skipped":      "Test cases that were skipped, at most; -1: any number.",
	"pipeline[].gate.metric":                   "It opens when a number keeps to its limits.",
	"pipeline[].gate.metric.url":               "Address that the server reads every 10 s: a number, or JSON with one. The server reads only what its operator allows: `dayfly server start --metric-addresses`.",
	"pipeline[].gate.metric.path":              "Where it is in the JSON, such as `data.result.0.value.1`.",
	"pipeline[].gate.metric.above":             "It must be above.",
	"pipeline[].gate.metric.below":             "It must be below.",
	"pipeline[].suites":                        "Suites of the stage, each in an environment of its own.",
	"pipeline[].suites[].name":                 "The suite's name.",
	"pipeline[].suites[].run":                  "Command in the folder.",
	"pipeline[].suites[].manual":               "What a person does: a text, or `steps` and `checklist`.",
	"pipeline[].suites[].manual.steps":         "Steps to follow.",
	"pipeline[].suites[].manual.checklist":     "Points, all of which must be checked to pass.",
	"pipeline[].suites[].size":                 "Instances of the suite's environment.",
	"pipeline[].suites[].lease":                "How long a manual suite's environment stays up for its tester.",
	"pipeline[].suites[].lease_max":            "How far a manual suite's lease may be extended (`dayfly env extend`). Default: the lease.",
	"pipeline[].suites[].timeout":              "How long the command may take.",
	"pipeline[].suites[].retries":              "How often a suite that failed is tried again, in a new environment. One that passes then is shown as flaky.",
	"pipeline[].suites[].shards":               "So many environments, each with `$DAYFLY_SHARD` of `$DAYFLY_SHARDS`.",
	"pipeline[].suites[].parameters":           "Values for the fleet template's parameters.",
	"pipeline[].suites[].credentials":          "Secrets for the command: a variable's name, and the SSM parameter that holds its value. The command gets a file, named by the variable.",
}

// given are the paths that functions get from their callers.
var given = map[string]string{"suite": "pipeline[].suites[]", "gate": "pipeline[].gate", "manual": "pipeline[].suites[]"}

type setting struct{ path, kind, def, limits string }

const yamlHead = `# dayfly.yaml

The blueprint's description. An unknown key, a wrong type, a missing file or a value out of its limits is an error with file, line and column,
and with the nearest valid word. ` + "`dayfly check DIR`" + ` shows all of them. Durations are written ` + "`30s`, `10m`, `24h` or `7d`" + `. Paths are relative to the folder.
Names are 2 to 32 of a-z, 0-9 and -, beginning with a letter.

| key | type | default | limits | meaning |
| --- | --- | --- | --- | --- |
`

func yamlPage(root string) (string, error) {
	ss, err := settings(root)
	if err != nil {
		return "", err
	}
	var code []string
	for _, s := range ss {
		code = append(code, s.path)
	}
	if err := agree("dayfly.yaml: the key", code, keys(meanings)); err != nil {
		return "", err
	}
	slices.SortStableFunc(ss, func(a, b setting) int { return strings.Compare(order(a.path), order(b.path)) })
	var b strings.Builder
	b.WriteString(yamlHead)
	for _, s := range ss {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", s.path, s.kind, s.def, s.limits, meanings[s.path])
	}
	return b.String(), nil
}

// order groups keys by their first word, in the order in which a file has them.
func order(path string) string {
	first, _, _ := strings.Cut(strings.ReplaceAll(path, "[]", ""), ".")
	return fmt.Sprintf("%02d", slices.Index([]string{"name", "image", "release", "handoff", "foundation", "fleet", "parameters", "environments", "runs", "pipeline"}, first))
}

// settings are the keys that the blueprint's reader asks for.
func settings(root string) ([]setting, error) {
	files, err := parse(root, "internal/blueprint")
	if err != nil {
		return nil, err
	}
	words := constants(files)
	var out []setting
	for _, f := range files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil || receiver(fn) != "reader" {
				continue
			}
			found, err := asked(fn, words)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", fn.Name.Name, err)
			}
			for _, s := range found {
				if !slices.ContainsFunc(out, func(o setting) bool { return o.path == s.path }) {
					out = append(out, s)
				}
			}
		}
	}
	return out, nil
}

// constants are the package's string constants.
func constants(files []*ast.File) map[string]string {
	out := map[string]string{}
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			if v, ok := n.(*ast.ValueSpec); ok && len(v.Names) == len(v.Values) {
				for i, name := range v.Names {
					if t, ok := text(v.Values[i]); ok {
						out[name.Name] = t
					}
				}
			}
			return true
		})
	}
	return out
}

func receiver(fn *ast.FuncDecl) string {
	t := fn.Recv.List[0].Type
	if s, ok := t.(*ast.StarExpr); ok {
		t = s.X
	}
	if id, ok := t.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}

// asked follows one function of the reader: which variable is which object of
// the file, and which keys it is asked for.
func asked(fn *ast.FuncDecl, words map[string]string) ([]setting, error) {
	objects, texts := map[string]string{}, map[string]string{"path": given[fn.Name.Name]}
	for _, p := range fn.Type.Params.List { // the whole file, handed in
		if s, ok := p.Type.(*ast.StarExpr); ok {
			if id, ok := s.X.(*ast.Ident); ok && id.Name == "object" {
				for _, n := range p.Names {
					objects[n.Name] = ""
				}
			}
		}
	}
	var out []setting
	var failed error
	ast.Inspect(fn, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			for i, l := range n.Lhs {
				id, ok := l.(*ast.Ident)
				if !ok || i >= len(n.Rhs) {
					continue
				}
				c, ok := n.Rhs[i].(*ast.CallExpr)
				if !ok {
					continue
				}
				switch name := method(c); {
				case name == "object" && len(c.Args) == 2:
					p, err := pathOf(c.Args[1], texts)
					if err != nil {
						failed = err
					}
					objects[id.Name] = p
				case name == "Sprintf": // pipeline[%d]
					if t, ok := text(c.Args[0]); ok {
						texts[id.Name] = strings.ReplaceAll(t, "%d", "")
					}
				}
			}
		case *ast.CallExpr:
			sel, ok := n.Fun.(*ast.SelectorExpr)
			if !ok || len(n.Args) == 0 {
				return true
			}
			id, ok := sel.X.(*ast.Ident)
			if !ok {
				return true
			}
			at, known := objects[id.Name]
			key, isText := text(n.Args[0])
			kind, reads := kinds[sel.Sel.Name]
			if !known || !isText || !reads {
				return true
			}
			if at != "" {
				key = at + "." + key
			}
			s := setting{path: key, kind: kind}
			s.details(sel.Sel.Name, n.Args[1:], words)
			out = append(out, s)
		}
		return true
	})
	return out, failed
}

// kinds are the reader's methods, and what they read.
var kinds = map[string]string{"string": "text", "int": "number", "duration": "duration", "oneOf": "word", "strings": "list of texts", "parameters": "texts by name", "list": "list", "node": "group", "bool": "true or false", "float": "number", "numbers": "list of numbers", "percent": "per cent"}

func method(c *ast.CallExpr) string {
	if s, ok := c.Fun.(*ast.SelectorExpr); ok {
		return s.Sel.Name
	}
	return ""
}

func pathOf(e ast.Expr, texts map[string]string) (string, error) {
	if t, ok := text(e); ok {
		return t, nil
	}
	switch e := e.(type) {
	case *ast.Ident:
		if t := texts[e.Name]; t != "" {
			return t, nil
		}
		return "NAME", nil
	case *ast.BinaryExpr:
		l, err := pathOf(e.X, texts)
		if err != nil {
			return "", err
		}
		r, err := pathOf(e.Y, texts)
		return l + r, err
	}
	return "", fmt.Errorf("a path of another form than docs/gen knows: %T", e)
}

func (s *setting) details(method string, args []ast.Expr, words map[string]string) {
	switch method {
	case "string":
		if t, ok := text(args[0]); ok && t != "" {
			s.def = "`" + t + "`"
		}
	case "bool":
		s.def = "`" + plain(args[0]) + "`"
	case "oneOf":
		s.def = word(args[0], words)
		var all []string
		for _, a := range args[1:] {
			all = append(all, word(a, words))
		}
		s.limits = strings.Join(all, ", ")
	case "numbers", "percent":
		s.limits = plain(args[0]) + " to " + plain(args[1])
	case "int", "duration":
		s.def = plain(args[0])
		s.limits = plain(args[1]) + " to " + plain(args[2])
	}
}

// word is a literal, or a constant as string(Recreate) has it.
func word(e ast.Expr, words map[string]string) string {
	if t, ok := text(e); ok {
		return "`" + t + "`"
	}
	if c, ok := e.(*ast.CallExpr); ok && len(c.Args) == 1 {
		if id, ok := c.Args[0].(*ast.Ident); ok && words[id.Name] != "" {
			return "`" + words[id.Name] + "`"
		}
	}
	return plain(e)
}

// plain is a constant expression as people write it: 30*time.Minute is 30m.
func plain(e ast.Expr) string {
	var b strings.Builder
	if err := printer.Fprint(&b, token.NewFileSet(), e); err != nil {
		return "?"
	}
	s := strings.ReplaceAll(b.String(), " ", "")
	if s == "maxLease" {
		return "365d"
	}
	for _, u := range [][2]string{{"time.Second", "s"}, {"time.Minute", "m"}, {"time.Hour", "h"}, {"day", "d"}} {
		if n, ok := strings.CutSuffix(s, "*"+u[0]); ok {
			return n + u[1]
		}
		if s == u[0] {
			return "1" + u[1]
		}
	}
	return s
}
