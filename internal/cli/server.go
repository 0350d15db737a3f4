package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/control"
	"github.com/dayfly-infra/dayfly/internal/retention"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type serverCmd struct {
	Start   serverStartCmd   `cmd:"" help:"Start the server; it talks to the AWS endpoint of the environment (AWS_ENDPOINT_URL, AWS_PROFILE, ...)."`
	Stop    serverStopCmd    `cmd:"" help:"Stop the server; what it launched goes on."`
	Status  serverStatusCmd  `cmd:"" help:"Say whether it runs, and for which account and region."`
	OpenAPI serverOpenAPICmd `cmd:"" name:"openapi" help:"Print the API's OpenAPI document; no server is needed. For example: dayfly server openapi > dayfly.json"`
	Unit    serverUnitCmd    `cmd:"" help:"Print a hardened systemd unit for the server."`
	Run     serverRunCmd     `cmd:"" hidden:"" help:"Be the server (service managers start this)."`
}

func (a *app) serverDaemon(args ...string) daemon {
	return daemon{name: "server", dir: a.State, args: append([]string{"--state", a.State, "server", "run"}, args...), limit: time.Minute,
		ready: func(ctx context.Context) error {
			var s server.Status
			return client.New(filepath.Join(a.State, "server.sock")).Get(ctx, "/v1/status", nil, &s)
		}}
}

// listenFlags say where the API is reached beside its unix socket.
type listenFlags struct {
	Listen string `help:"Serve the API there, too, to whoever has a token. On other addresses than loopback TLS is needed." env:"DAYFLY_LISTEN" placeholder:"HOST:PORT"`
	Cert   string `name:"tls-cert" help:"Certificate chain, PEM; read again when it changes." env:"DAYFLY_TLS_CERT" placeholder:"FILE"`
	Key    string `name:"tls-key" help:"Its key, PEM." env:"DAYFLY_TLS_KEY" placeholder:"FILE"`
}

func (l listenFlags) args() []string {
	var out []string
	for _, f := range [][2]string{{"--listen", l.Listen}, {"--tls-cert", l.Cert}, {"--tls-key", l.Key}} {
		if f[1] != "" {
			out = append(out, f[0], f[1])
		}
	}
	return out
}

// runFlags are what a server may do, and by which proof.
type runFlags struct {
	TestInstances int           `help:"Instances that the environments of all runs may have at once; 0: no limit." default:"0" env:"DAYFLY_TEST_INSTANCES" placeholder:"N"`
	TestLaunching int           `help:"Instances of all runs that may be on their way into service at once; 0: no limit. Where they share one machine, such as with the local region, 45 for each core keeps them from slowing each other down." default:"0" env:"DAYFLY_TEST_LAUNCHING" placeholder:"N"`
	Figures       time.Duration `name:"figures-period" help:"How long the periods of the load balancer's figures are, by which deploys are judged. AWS counts by the minute; dayfly region env sets what the local region does." default:"1m" env:"DAYFLY_FIGURES_PERIOD" placeholder:"DURATION"`
	ImageBudget   int           `help:"Instances that may be launched at once because of a new image, over all environments; one that is larger goes alone. 0: no limit. AWS gives an account 2 launches a second back: what wants more at once waits until its time is over." default:"200" env:"DAYFLY_IMAGE_BUDGET" placeholder:"N"`
	Keep          string        `help:"How long what is over is kept, at least 7d: environments that are gone, generations, runs and what their suites left, bakes, and releases that nothing names. Runs, bakes and deploys, which reports count, are kept for 401d at least. The last 3 of each always stay." default:"90d" env:"DAYFLY_KEEP" placeholder:"TIME"`
	Metrics       []string      `name:"metric-addresses" sep:"," help:"Where gates may read metrics: hosts, HOST:PORT, ranges such as 10.20.0.0/16 or 10.20.0.0/16:9090; without a port 80 and 443. Default: nowhere. Loopback only by its address; instance metadata never." env:"DAYFLY_METRIC_ADDRESSES" placeholder:"HOST:PORT,..."`
	Outbound      []string      `name:"outbound-addresses" sep:"," help:"What else the server may ask because a blueprint or a trigger names it (boxes, Puppet versions, notifications, commit statuses), in the same form; 'any' is everywhere but this machine. Default: any. Loopback by its address beside it, such as any,127.0.0.1:8088; instance metadata never." env:"DAYFLY_OUTBOUND_ADDRESSES" placeholder:"any,HOST:PORT,..."`
	Chaos         bool          `help:"Allow dayfly chaos, which lets things go wrong on purpose." env:"DAYFLY_CHAOS"`

	Report             string `help:"Price list, and the baseline of the former process, for reports (YAML or JSON)." type:"path" env:"DAYFLY_REPORT" placeholder:"FILE"`
	SigningKey         string `help:"Private key (Ed25519, PEM, mode 0600) that signs how each image was made." type:"path" env:"DAYFLY_SIGNING_KEY" placeholder:"FILE"`
	TrustedKeys        string `help:"Public keys (PEM, several in a file) whose statements about images are believed, beside that of --signing-key." type:"path" env:"DAYFLY_TRUSTED_KEYS" placeholder:"FILE"`
	RequireAttestation bool   `help:"Launch and promote no image without such a statement." env:"DAYFLY_REQUIRE_ATTESTATION"`
}

// args gives the flags to the server's own process.
func (f runFlags) args() []string {
	out := []string{fmt.Sprint("--test-instances=", f.TestInstances), fmt.Sprint("--test-launching=", f.TestLaunching), fmt.Sprint("--image-budget=", f.ImageBudget), fmt.Sprint("--chaos=", f.Chaos), fmt.Sprint("--figures-period=", f.Figures), "--keep=" + f.Keep}
	for _, x := range [][2]string{{"--signing-key", f.SigningKey}, {"--trusted-keys", f.TrustedKeys}, {"--report", f.Report}} {
		if x[1] != "" {
			out = append(out, x[0], x[1])
		}
	}
	if len(f.Metrics) > 0 {
		out = append(out, "--metric-addresses="+strings.Join(f.Metrics, ","))
	}
	if len(f.Outbound) > 0 {
		out = append(out, "--outbound-addresses="+strings.Join(f.Outbound, ","))
	}
	if f.RequireAttestation {
		out = append(out, "--require-attestation")
	}
	return out
}

// keep is how long what is over is kept.
func (f runFlags) keep() (time.Duration, error) {
	d, err := days(f.Keep)
	if err == nil {
		_, err = retention.Keeping(d)
	}
	return d, err
}

func (f runFlags) attestation() control.Attestation {
	return control.Attestation{Key: f.SigningKey, Trusted: f.TrustedKeys, Require: f.RequireAttestation}
}

type serverStartCmd struct {
	databaseFlags
	listenFlags
	runFlags
}

func (c *serverStartCmd) Run(ctx context.Context, a *app) error {
	args, err := c.databaseFlags.args()
	if err != nil {
		return err
	}
	if _, err := c.figures(); err != nil { // here, and not in the log of a process that ended
		return err
	}
	if _, err := c.keep(); err != nil {
		return err
	}
	args = append(append(args, c.listenFlags.args()...), c.runFlags.args()...)
	if err := a.serverDaemon(args...).start(ctx, a); err != nil {
		return err
	}
	return serverStatusCmd{}.Run(ctx, a)
}

type serverStopCmd struct{}

func (serverStopCmd) Run(ctx context.Context, a *app) error { return a.serverDaemon().stop(ctx) }

type serverStatusCmd struct{}

func (serverStatusCmd) Run(ctx context.Context, a *app) error {
	var s server.Status
	if err := a.client.Get(ctx, "/v1/status", nil, &s); err != nil {
		return err
	}
	return a.print(s, func(w io.Writer) {
		where := "AWS"
		if s.Endpoint != "" {
			where = s.Endpoint
		}
		fmt.Fprintf(w, "the server runs (process %d), account %s, region %s at %s\n", s.PID, s.Account, s.Region, where)
	})
}

type serverOpenAPICmd struct{}

func (serverOpenAPICmd) Run(a *app) error {
	a.Output = "json"
	return a.print(server.Document(a.version), nil)
}

type serverRunCmd struct {
	databaseFlags
	listenFlags
	runFlags
}

func (c *serverRunCmd) Run(ctx context.Context, a *app) error {
	database, err := c.address()
	if err != nil {
		return err
	}
	figures, err := c.figures()
	if err != nil {
		return err
	}
	keep, err := c.keep()
	if err != nil {
		return err
	}
	lock, err := a.serverDaemon().hold()
	if err != nil {
		return err
	}
	defer lock.Close()
	return control.Run(ctx, control.Config{Dir: a.State, Database: database, Version: a.version, Log: logger(a.err), TestInstances: c.TestInstances, TestLaunching: c.TestLaunching, ImageBudget: c.ImageBudget, Keep: keep, Chaos: c.Chaos, Figures: c.Figures, MetricAddresses: c.Metrics, OutboundAddresses: c.Outbound, Attestation: c.attestation(), Report: figures, Listen: control.Listen{Address: c.Listen, Cert: c.Cert, Key: c.Key}})
}
