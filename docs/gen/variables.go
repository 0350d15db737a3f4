package main

import (
	"fmt"
	"go/ast"
	"regexp"
	"slices"
	"strings"
)

// place is a part of the code that sets or reads variables.
type place struct {
	title, text string
	// where they are found: package and function, "" for every function.
	in   [][2]string
	rows []row
}

type row struct{ name, meaning string }

var places = []place{
	{
		title: "The deploy script and the service",
		text: `An instance's agent sets these for the deploy script (` + "`handoff.run`" + `). The service (` + "`handoff.service`" + `) has them too, but for
the address of the release. They are also in ` + "`/etc/dayfly/instance.env`" + `, which systemd units can name as their EnvironmentFile.
` + "`PATH`, `HOME`, `USER`, `LANG` and `AWS_REGION`" + ` are set, and nothing else that the agent did not get itself. The script runs as root in its own
folder; what it prints is in ` + "`/var/log/dayfly/handoff.log`" + `.`,
		in: [][2]string{{"internal/agent", "variables"}, {"internal/agent", "deploy"}},
		rows: []row{
			{"DAYFLY_RELEASE_URL", "Address of the release on this very instance, for the deploy script alone. The agent fetches from the box, or from the mirror, and proves the digest while it streams. A script that ends well without having fetched all of it has failed."},
			{"DAYFLY_RELEASE_DIGEST", "`sha256:` and 64 hex digits: the release's name for ever."},
			{"DAYFLY_RELEASE_FILE", "The artifact's file name in the box."},
			{"DAYFLY_ENVIRONMENT", "The environment's name, such as `shop-dev`."},
			{"DAYFLY_GENERATION", "The generation's number in its environment."},
			{"DAYFLY_OPERATION", "Id of what the launch is part of, as in the server's logs and `dayfly events --op`; empty where the fleet's template does not pass `Operation` on."},
			{"DAYFLY_ROLE", "`image.role` of dayfly.yaml."},
			{"DAYFLY_INSTANCE_ID", "The instance's id."},
			{"DAYFLY_IMAGE_ID", "The machine image's id (AMI)."},
			{"DAYFLY_REGION", "The region's name."},
			{"DAYFLY_ZONE", "The availability zone's name."},
		},
	},
	{
		title: "Test suites",
		text: `A suite's command runs on one instance of the suite's own environment, as root, in a copy of the blueprint's folder.
It passes when it ends with 0 and no test case failed. It may leave JUnit files in ` + "`$DAYFLY_RESULTS`" + `; without any, the exit code is the one test case. The blueprint's ` + "`credentials`" + ` name further variables, each of which names a file with a secret.`,
		in: [][2]string{{"internal/advance", "suiteScript"}, {"internal/agent", "runSuite"}},
		rows: []row{
			{"DAYFLY_ADDRESS", "URL that the suite's environment serves at."},
			{"DAYFLY_RESULTS", "Folder for JUnit files (`*.xml`) and whatever else shall be kept."},
			{"DAYFLY_ENVIRONMENT", "The suite's environment."},
			{"DAYFLY_RUN", "The test run's name."},
			{"DAYFLY_STAGE", "The stage's name."},
			{"DAYFLY_SUITE", "The suite's name."},
			{"DAYFLY_SHARD", "Which shard of the suite this is, from 1."},
			{"DAYFLY_SHARDS", "How many shards the suite has; 1 where it has none."},
			{"DAYFLY_TRY", "Which try this is, from 1."},
			{"DAYFLY_SIZE", "How many instances the environment has."},
			{"DAYFLY_IMAGE", "The image record's name."},
			{"DAYFLY_RELEASE", "The release record's name."},
		},
	},
	{
		title: "Commands of gates",
		text:  `A gate's command runs on one instance of the environment that the last deploy stage before it deployed, as root, alone: the rest of the blueprint is not there.`,
		in:    [][2]string{{"internal/advance", "gateScript"}},
		rows: []row{
			{"DAYFLY_ADDRESS", "URL that the environment serves at."},
			{"DAYFLY_ENVIRONMENT", "The environment."},
			{"DAYFLY_RUN", "The run's name."},
			{"DAYFLY_STAGE", "The gate's stage."},
			{"DAYFLY_IMAGE", "The image record's name."},
			{"DAYFLY_RELEASE", "The release record's name."},
		},
	},
	{
		title: "User data",
		text: "What a fleet template's launch template passes to the agent: user data whose first line is `#dayfly`, then `NAME=VALUE` lines.\n" +
			"User data with another first line is left to whoever it is for, and the hand-off stays armed. Unknown names are left alone.",
		in: [][2]string{{"internal/handoff", "ParseLaunch"}},
		rows: []row{
			{"DAYFLY_RELEASE_URL", "The release in the box. Without release, mirror and digest the hand-off stays armed: so it is on builders."},
			{"DAYFLY_RELEASE_MIRROR", "`s3://BUCKET/KEY`: the release in Dayfly's bucket, read with the instance's role."},
			{"DAYFLY_RELEASE_DIGEST", "`sha256:` and 64 hex digits. What does not match is not handed to the deploy script as whole."},
			{"DAYFLY_ENVIRONMENT", "The environment's name; it becomes part of the host name."},
			{"DAYFLY_GENERATION", "The generation's number."},
			{"DAYFLY_LAUNCH_HOOK", "Name of the launch lifecycle hook that the agent completes; default `launch`."},
			{"DAYFLY_OPERATION", "Id of what the launch is part of; in the agent's log and report."},
			{"DAYFLY_BUCKET", "Bucket for the report of the hand-off; none without it."},
		},
	},
	{
		title: "Dayfly itself",
		text:  "What the commands and the daemons read, beside the AWS SDK's own (`AWS_ENDPOINT_URL`, `AWS_REGION`, `AWS_PROFILE`, ...).",
		in:    [][2]string{{"internal/cli", ""}},
		rows: []row{
			{"DAYFLY_SERVER", "Address of a server that listens elsewhere, as `--server`."},
			{"DAYFLY_TOKEN_FILE", "A file of mode 0600 with the token for that server; default `~/.config/dayfly/token`."},
			{"DAYFLY_LISTEN", "Where the server is reached beside its unix socket, as `--listen`."},
			{"DAYFLY_TLS_CERT", "Its certificate chain, as `--tls-cert`."},
			{"DAYFLY_TLS_KEY", "The certificate's key, as `--tls-key`."},
			{"DAYFLY_DATABASE", "Address of a PostgreSQL database that servers share, as `--database`; here it may hold a password."},
			{"DAYFLY_DATABASE_FILE", "A file of mode 0600 that holds that address, as `--database-file`."},
			{"DAYFLY_IMAGE_BUDGET", "Instances that may be launched at once because of a new image; 0: no limit."},
			{"DAYFLY_KEEP", "How long what is over is kept, as `--keep`: at least `7d`; default `90d`."},
			{"DAYFLY_TEST_LAUNCHING", "Instances of all runs that may be on their way into service at once; 0: no limit."},
			{"DAYFLY_FIGURES_PERIOD", "How long the periods of the load balancer's figures are, as `--figures-period`: a minute on AWS. `dayfly region env` sets what the local region has."},
			{"DAYFLY_OUTBOUND_ADDRESSES", "What else the server may ask because a blueprint or a trigger names it, as `--outbound-addresses`: the same, and `any`, everywhere but this machine; empty: `any`."},
			{"DAYFLY_METRIC_ADDRESSES", "Where gates may read metrics, as `--metric-addresses`: hosts, `HOST:PORT`, ranges such as `10.20.0.0/16`, with commas; empty: nowhere."},
			{"DAYFLY_CHAOS", "Allow `dayfly chaos run`, as `--chaos`."},
			{"DAYFLY_TEST_INSTANCES", "Instances that the environments of all runs may have at once; 0: no limit."},
			{"DAYFLY_SIGNING_KEY", "File of the private key that signs how images were made, as `--signing-key`."},
			{"DAYFLY_TRUSTED_KEYS", "File of public keys whose statements about images are believed, as `--trusted-keys`, and for `dayfly image verify`."},
			{"DAYFLY_REQUIRE_ATTESTATION", "true: launch and promote no image without a signed statement."},
			{"DAYFLY_REPORT", "File with the price list and the baseline for reports, as `--report`."},
			{"DAYFLY_STATE", "The server's folder, as `--state`."},
			{"DAYFLY_REGION_DIR", "The local region's folder, as `--region-dir`."},
			{"DAYFLY_LOG", "`debug` makes the daemons' logs say more."},
		},
	},
	{
		title: "The demo",
		text:  "What `make demo` reads.",
		in:    [][2]string{{"demo", "setup"}},
		rows: []row{
			{"DEMO_INSTANCES", "Instances of the development environment; default 45."},
			{"DEMO_PUPPET", "`code` (default): the image is baked by the blueprint's own Puppet code; `server`: against a Puppet server that the demo starts as an instance."},
			{"DEMO_SUITES", "Test suites side by side, 1 to 6; default 6."},
		},
	},
}

var variable = regexp.MustCompile(`\b(DAYFLY|DEMO)_[A-Z][A-Z_]*[A-Z]\b`)

// internals are not for people: a mark by which the agent knows its own, and
// what the demo sets and others read.
var internals = []string{"DAYFLY_SUPERVISED"}

func variablesPage(root string) (string, error) {
	var b strings.Builder
	b.WriteString("# Variables\n\nEverything that crosses a border by its name.\n")
	for _, p := range places {
		var code []string
		for _, in := range p.in {
			found, err := variables(root, in[0], in[1])
			if err != nil {
				return "", err
			}
			code = append(code, found...)
		}
		if p.title == "The demo" {
			code = slices.DeleteFunc(code, func(v string) bool { return strings.HasPrefix(v, "DAYFLY_") })
		}
		var rows []string
		for _, r := range p.rows {
			rows = append(rows, r.name)
		}
		if err := agree(p.title+": the variable", code, rows); err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| variable | meaning |\n| --- | --- |\n", p.title, p.text)
		for _, r := range p.rows {
			fmt.Fprintf(&b, "| `%s` | %s |\n", r.name, r.meaning)
		}
	}
	return b.String(), nil
}

// variables are the names in a function's string literals, or in those and the
// struct tags of a whole package.
func variables(root, pkg, function string) ([]string, error) {
	files, err := parse(root, pkg)
	if err != nil {
		return nil, err
	}
	var out []string
	collect := func(n ast.Node) {
		ast.Inspect(n, func(n ast.Node) bool {
			l, ok := n.(*ast.BasicLit)
			if !ok {
				return true
			}
			for _, v := range variable.FindAllString(l.Value, -1) {
				if !slices.Contains(out, v) && !slices.Contains(internals, v) {
					out = append(out, v)
				}
			}
			return true
		})
	}
	seen := false
	for _, f := range files {
		for _, d := range f.Decls {
			fn, isFunc := d.(*ast.FuncDecl)
			if function == "" || (isFunc && fn.Name.Name == function) {
				seen = true
				collect(d)
			}
		}
	}
	if !seen {
		return nil, fmt.Errorf("%s has no function %s any more", pkg, function)
	}
	return out, nil
}
