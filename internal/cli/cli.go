// Package cli is the command line: it sends blueprints to the server, shows
// progress, prints records and starts the daemons. It must not decide anything
// that the server decides.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Exit codes.
const (
	exitFailed      = 1
	exitInvalid     = 2
	exitNotFound    = 3
	exitUnavailable = 4
	exitInterrupted = 130
)

type root struct {
	State     string `help:"The server's folder: socket, records, logs." env:"DAYFLY_STATE" default:"${state}" placeholder:"DIR"`
	RegionDir string `help:"The local region's folder." env:"DAYFLY_REGION_DIR" default:"${region}" placeholder:"DIR"`
	Address   string `name:"server" help:"A server that listens elsewhere, with the token of DAYFLY_TOKEN_FILE or ~/.config/dayfly/token; default this machine's." env:"DAYFLY_SERVER" placeholder:"URL"`
	Output    string `help:"text or json." enum:"text,json" default:"text" short:"o"`

	Init     initCmd     `cmd:"" help:"Make a blueprint that works as it is, to begin with."`
	Check    checkCmd    `cmd:"" help:"Check a blueprint: dayfly.yaml, files, templates."`
	Bake     bakeCmd     `cmd:"" help:"Make the blueprint's machine image, or find the one that is there; look into a bake that failed."`
	Images   imagesCmd   `cmd:"" help:"List images, or remove one."`
	Image    imageCmd    `cmd:"" help:"Show one image, promote, revoke or quarantine it; say how current environments are."`
	Release  releaseCmd  `cmd:"" help:"Resolve the most recent release in the box, or list releases."`
	Deploy   deployCmd   `cmd:"" help:"Launch an environment with the most recent release."`
	Redeploy redeployCmd `cmd:"" help:"Deploy an environment again with the most recent release, with the blueprint that the server has: dayfly redeploy shop-dev"`
	Env      envCmd      `cmd:"" help:"List, show and destroy environments."`
	Rollback rollbackCmd `cmd:"" help:"Go back to what served before: dayfly rollback shop-production."`
	Freeze   freezeCmd   `cmd:"" help:"Keep an environment, or all, as it is, or list what is frozen: dayfly freeze shop-production --why audit --for 12h."`
	Unfreeze unfreezeCmd `cmd:"" help:"End a freeze: dayfly unfreeze shop-production."`
	Instance instanceCmd `cmd:"" help:"List and show instances; keep one for a look, or have one replaced."`
	Test     testCmd     `cmd:"" help:"Run the blueprint's suites side by side, each in an environment of its own."`
	Runs     runCmd      `cmd:"" name:"run" aliases:"runs" help:"Start, follow and decide runs of the pipeline: gates, manual suites, results."`
	Trigger  triggerCmd  `cmd:"" help:"Start runs by themselves: by time, by a forge's hook."`
	Top      topCmd      `cmd:"" help:"Show what is under way, again and again."`
	Why      whyCmd      `cmd:"" help:"Say why something waits."`
	Events   eventsCmd   `cmd:"" help:"Say what happened: to everything, to one object, or in one operation."`
	Report   reportCmd   `cmd:"" help:"Say how a period went: failures, uptime, deploys, tests, hours, cost, what was saved."`
	Watch    watchCmd    `cmd:"" help:"Print what changes, as it changes, until Ctrl-C. For example: dayfly watch --kinds environment,run"`
	Sweep    sweepCmd    `cmd:"" help:"Find, and remove, what belongs to nothing."`
	Audit    auditCmd    `cmd:"" help:"Say who did what, when, from where and with which result."`
	Console  consoleCmd  `cmd:"" help:"Print a link that signs a browser in to the console, once and within a minute; the session lasts twelve hours. For example: dayfly console --role viewer"`
	Token    tokenCmd    `cmd:"" help:"Make, list and revoke tokens for the API."`
	Chaos    chaosCmd    `cmd:"" help:"Let things go wrong on purpose, on a leash; the server must allow it (--chaos)."`
	Backup   backupCmd   `cmd:"" help:"Write all records and blueprints to a file, while the server works."`
	Restore  restoreCmd  `cmd:"" help:"Put a backup into an empty database, of either kind."`
	Server   serverCmd   `cmd:"" help:"Start and stop the Dayfly server."`
	Region   regionCmd   `cmd:"" help:"Start and stop the local region, an AWS-compatible endpoint on this machine."`
	Box      boxCmd      `cmd:"" help:"Serve a folder of releases, to try things out."`
	Shell    shellCmd    `cmd:"" name:"completion" help:"Print the completion for a shell."`
	Words    completeCmd `cmd:"" hidden:"" name:"complete-words" help:"Print what the last word could become."`
	Version  versionCmd  `cmd:"" help:"Print the version."`
}

// app is what commands get.
type app struct {
	*root
	version  string
	out, err io.Writer
	client   *client.Client
}

// Main runs the command line and returns the exit code.
func Main(version string, args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var r root
	code := -1
	p, err := kong.New(&r,
		kong.Name("dayfly"),
		kong.Description("Dayfly makes every server disposable: it bakes images with Puppet, launches whole environments from them, tests them side by side and throws them away.\n\nFor example:\n\n  dayfly region start && eval \"$(dayfly region env)\" && dayfly server start\n  dayfly init shop && dayfly deploy shop dev"),
		kong.Vars{"state": defaultDir("dayfly"), "region": defaultDir("dayfly-region")},
		kong.Exit(func(c int) { code = c }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		fmt.Fprintln(os.Stderr, "dayfly:", err)
		return exitFailed
	}
	k, err := p.Parse(args)
	if code >= 0 { // --help was asked for
		return code
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "dayfly: %v\n  dayfly --help shows what there is\n", err)
		return exitInvalid
	}
	a := &app{root: &r, version: version, out: os.Stdout, err: os.Stderr, client: client.New(filepath.Join(r.State, "server.sock"))}
	if r.Address != "" {
		a.client = remote(r.Address)
	}
	return a.report(ctx, k.Run(a))
}

func (a *app) report(ctx context.Context, err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled) && ctx.Err() != nil:
		fmt.Fprintln(a.err, "dayfly: interrupted")
		return exitInterrupted
	}
	fmt.Fprintln(a.err, "dayfly:", err)
	if h := fault.HintOf(err); h != "" {
		fmt.Fprintln(a.err, "  "+h)
	}
	switch fault.KindOf(err) {
	case fault.Invalid:
		return exitInvalid
	case fault.NotFound:
		return exitNotFound
	case fault.Unavailable:
		return exitUnavailable
	}
	return exitFailed
}

// defaultDir is where a daemon keeps what must survive.
func defaultDir(name string) string {
	if os.Geteuid() == 0 {
		return filepath.Join("/var/lib", name)
	}
	if d := os.Getenv("XDG_STATE_HOME"); d != "" {
		return filepath.Join(d, name)
	}
	return filepath.Join(os.Getenv("HOME"), ".local/state", name)
}

// print writes v as JSON, or lets text write it.
func (a *app) print(v any, text func(io.Writer)) error {
	if a.Output == "json" {
		e := json.NewEncoder(a.out)
		e.SetIndent("", "  ")
		return e.Encode(v)
	}
	text(a.out)
	return nil
}

type versionCmd struct{}

func (versionCmd) Run(a *app) error {
	return a.print(map[string]string{"version": a.version}, func(w io.Writer) { fmt.Fprintln(w, "dayfly", a.version) })
}
