// Package control wires the server: store, driver, loops, API, and runs them
// until it is told to end. It must not hold logic that a loop or a noun could
// hold.
package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/dayfly-infra/dayfly/internal/advance"
	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/box"
	"github.com/dayfly-infra/dayfly/internal/box/dir"
	"github.com/dayfly-infra/dayfly/internal/box/git"
	"github.com/dayfly-infra/dayfly/internal/box/https"
	"github.com/dayfly-infra/dayfly/internal/box/s3"
	"github.com/dayfly-infra/dayfly/internal/chronicle"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/limiter"
	"github.com/dayfly-infra/dayfly/internal/event"
	"github.com/dayfly-infra/dayfly/internal/expire"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/heal"
	"github.com/dayfly-infra/dayfly/internal/metrics"
	"github.com/dayfly-infra/dayfly/internal/notify"
	"github.com/dayfly-infra/dayfly/internal/operation"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/renew"
	"github.com/dayfly-infra/dayfly/internal/report"
	"github.com/dayfly-infra/dayfly/internal/resolve"
	"github.com/dayfly-infra/dayfly/internal/rollout"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/cached"
	"github.com/dayfly-infra/dayfly/internal/sweep"
	"github.com/dayfly-infra/dayfly/internal/template"
	"github.com/dayfly-infra/dayfly/internal/trace"
	"github.com/dayfly-infra/dayfly/internal/trigger"
	"github.com/dayfly-infra/dayfly/internal/web"
)

// Config of a server.
type Config struct {
	Dir     string // records, blueprints, socket
	Version string
	Log     *slog.Logger
	Agent   string // path of dayfly-agent; "" = beside this binary
	// Database is a connection string of PostgreSQL, which several servers may
	// share; "" is SQLite in Dir.
	Database string

	// TestInstances is how many instances the environments of all runs may have
	// at once; 0 = no limit.
	TestInstances int
	// TestLaunching is how many of those may be on their way into service at
	// once; 0: as many as want to.
	TestLaunching int
	// Figures is how long the periods of a load balancer's figures are; 0: a
	// minute, as on AWS.
	Figures time.Duration
	// ImageBudget is how many instances may be launched for new images at once;
	// 0: as many as are due.
	ImageBudget int
	// MetricAddresses are where gates may read metrics, as package outbound reads
	// them; none: nowhere.
	MetricAddresses []string
	// OutboundAddresses are what else the server may ask because others named it,
	// such as boxes; none: everywhere but this machine.
	OutboundAddresses []string
	// Keep is how long the records of what is over are kept; 0: retention.Usual.
	Keep time.Duration
	// Chaos allows that things go wrong on purpose.
	Chaos bool

	Attestation Attestation
	// Report is what the operator says for reports: prices, the former process.
	Report report.Config

	replica string                          // this server's name among those
	free    func(dir string) (int64, error) // space on the disk of a folder; nil asks the system
	Listen  Listen
}

// builderLease is how long a builder may live at most.
const builderLease = 8 * time.Hour

// patience is how long a deploy waits for a box that is down.
const patience = 5 * time.Minute

// Run is the server; it returns when ctx ends, with nothing running any more.
func Run(ctx context.Context, cfg Config) error {
	// First: what is refused needs no cloud.
	_, metrics := cfg.measurable()
	_, reachable := cfg.reachable()
	if err := cmp.Or(metrics, reachable); err != nil {
		return err
	}
	if _, err := cfg.policy(); err != nil {
		return err
	}
	tcp, err := cfg.Listen.open(cfg.Log)
	if err != nil {
		return err
	}
	if tcp.Listener != nil {
		defer tcp.Close()
	}
	c, err := open(ctx, cfg)
	if err != nil {
		return err
	}
	defer c.store.Close()
	l, err := listen(filepath.Join(cfg.Dir, "server.sock"))
	if err != nil {
		return err
	}
	api := server.New(server.Config{Metrics: c.metrics.Handler(), Answered: c.metrics.Request, Backend: c, Store: c.store, Clock: c.clock, Log: cfg.Log, Version: cfg.Version})
	pages, err := web.New(api)
	if err != nil {
		return err
	}
	c.console = tcp.url(cfg.Listen)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := c.engine.Run(ctx); err != nil {
			cfg.Log.Error("the loops ended", "error", err)
		}
	})
	wg.Go(func() { c.sweepNowAndThen(ctx) })
	wg.Go(func() { c.traceNowAndThen(ctx) })
	wg.Go(func() { c.tidyNowAndThen(ctx, api) })
	cfg.Log.Info("the server runs", "socket", l.Addr().String(), "listen", tcp.address(), "region", c.cloud.Region(), "owner", c.cloud.Owner())
	// Outside of systemd nobody listens, and this does nothing.
	if _, err := daemon.SdNotify(true, daemon.SdNotifyReady); err != nil {
		cfg.Log.Warn("systemd does not hear that the server works", "error", err)
	}
	err = serve(ctx, cfg.Log, api, pages, l, tcp)
	stop()
	wg.Wait()
	return err
}

// sweepEvery is how often the active server looks for what belongs to nothing.
const sweepEvery = 10 * time.Minute

func (c *Control) sweepNowAndThen(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.clock.After(sweepEvery):
		}
		epoch, active := c.engine.Owner()
		if !active {
			continue
		}
		if _, err := c.Sweep(reconcile.WithEpoch(ctx, epoch), false); err != nil {
			c.cfg.Log.Warn("the sweep failed", "error", err)
		}
	}
}

// orphans writes down what a sweep found and removed.
func (c *Control) orphans(ctx context.Context, r sweep.Report) {
	var es []event.Event
	for _, o := range r.Orphans {
		if o.Removed {
			es = append(es, event.New("orphan", o.Kind+"/"+o.ID, "OrphanRemoved", event.Warning, "it belonged to nothing and was removed: %s", o.Why))
		} else {
			c.cfg.Log.WarnContext(ctx, "orphan", "kind", o.Kind, "id", o.ID, "why", o.Why)
		}
	}
	if err := c.chronicle.Note(ctx, reconcile.Epoch(ctx), es...); err != nil {
		c.cfg.Log.WarnContext(ctx, "what the sweep removed is not written down", "error", err)
	}
}

// Control is a server that is wired and not running yet.
type Control struct {
	console   string // where a browser finds it; "" = nowhere
	cfg       Config
	store     store.Store
	chronicle *chronicle.Store
	cloud     driver
	files     *files
	bakes     *bake.Loop
	resolver  *resolve.Resolver
	sweeper   *sweep.Sweeper
	engine    *reconcile.Engine
	clock     clock.Clock
	metrics   *metrics.Set
	traces    *trace.Exporter // nil: nobody wants any
	deployed  chan event.Event
	limiter   *limiter.Limiter // nil in tests
	swept     atomic.Pointer[swept]
	reporting sync.Mutex
	full      atomic.Pointer[blocker.Blocker] // while the disk is nearly full
}

// driver is all that the server needs of the cloud.
type driver interface {
	bake.Cloud
	rollout.Cloud
	advance.Cloud
	resolve.Cloud
	sweep.Cloud
	heal.Cloud
	Identity(ctx context.Context) (account, arn string, err error)
	Console(ctx context.Context, id string) (string, error)
}

func open(ctx context.Context, cfg Config) (*Control, error) {
	key, trusted, err := cfg.Attestation.read()
	if err != nil {
		return nil, err
	}
	for _, d := range []string{cfg.Dir, filepath.Join(cfg.Dir, "blueprints"), filepath.Join(cfg.Dir, "tmp")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	agent, err := beside("dayfly-agent", cfg.Agent)
	if err != nil {
		return nil, err
	}
	probe, err := beside("dayfly-probe", "")
	if err != nil {
		return nil, err
	}
	clk := clock.NewSteady(func(jump, hold time.Duration) {
		cfg.Log.Warn("the clock of this machine was set forward; deadlines do not follow it until that has lasted", "jump", jump.Round(time.Second), "hold", hold)
	})
	cfg.Log = slog.New(operation.Handler(cfg.Log.Handler()))
	st, err := openStore(ctx, cfg, clock.Real{})
	if err != nil {
		return nil, err
	}
	st = cached.New(cached.Config{Store: st, Kinds: remembered, Clock: clock.Real{}})
	owner, err := ownerID(ctx, st, cfg)
	if err == nil {
		cfg.replica, err = replicaName(cfg.Dir)
	}
	if err != nil {
		st.Close()
		return nil, err
	}
	c := &Control{deployed: make(chan event.Event, 100), cfg: cfg, store: st, clock: clk, metrics: metrics.New(), limiter: limiter.New(clk, cfg.Log)}
	if c.traces, err = trace.FromEnvironment(os.Getenv, cfg.Version); err != nil {
		st.Close()
		return nil, err
	}
	d, err := cloud.New(ctx, cloud.Config{Limiter: c.limiter, Answered: c.metrics.Call, Endpoint: os.Getenv("AWS_ENDPOINT_URL"), Owner: owner, Store: st, Clock: clk, Log: cfg.Log, Epoch: reconcile.Epoch, Figures: cfg.Figures})
	if err != nil {
		st.Close()
		return nil, err
	}
	if _, _, err := d.Identity(ctx); err != nil {
		st.Close()
		return nil, fmt.Errorf("who are we in the cloud: %w", err)
	}
	c.cloud = d
	c.wire(agent, probe, boxes{d, filepath.Join(cfg.Dir, "tmp"), cfg}.open)
	c.bakes.Key, c.bakes.Trusted = key, trusted
	if err := errors.Join(c.sweeper.Settle(ctx), tidy(cfg.Dir)); err != nil {
		st.Close()
		return nil, err
	}
	if cfg.Database == "" {
		if err := c.files.adopt(ctx); err != nil {
			st.Close()
			return nil, err
		}
	}
	return c, nil
}

// wire makes the loops over store, cloud and clock.
func (c *Control) wire(agent, probe []byte, openBox func(address string) (box.Box, error)) {
	c.chronicle = chronicle.New(metered{c.store, c.metrics}, c.clock, c.cfg.Log, c.happened)
	c.store = c.chronicle
	cfg, st, clk, owner := c.cfg, c.store, c.clock, c.cloud.Owner()
	name := func(record string) string { return rollout.StackName(owner, record) }
	c.files = &files{dir: filepath.Join(cfg.Dir, "blueprints"), store: st, cloud: c.cloud, got: map[string]*blueprint.Blueprint{}}
	c.bakes = &bake.Loop{Store: st, Cloud: c.cloud, Blueprints: c.files, Versions: versions{cfg.asks()}, Clock: clk, Log: cfg.Log, Agent: agent, Probe: probe, StackName: name, Lease: builderLease, Owner: owner}
	c.resolver = &resolve.Resolver{Store: st, Cloud: c.cloud, Open: openBox, Dir: filepath.Join(cfg.Dir, "tmp"), Clock: clk, Log: cfg.Log, Epoch: reconcile.Epoch}
	c.sweeper = &sweep.Sweeper{Store: st, Cloud: c.cloud, Live: c.live, Clock: clk}
	rc := rollout.Config{Store: st, Cloud: c.cloud, Blueprints: c.files, Templates: templates{}, Images: c.bakes, Releases: c.resolver, Clock: clk, Log: cfg.Log, Patience: patience}
	c.engine = reconcile.New(reconcile.Config{Store: st, Clock: clk, Log: cfg.Log, Holder: cmp.Or(cfg.replica, owner), Ran: c.metrics.Run, Context: c.context, Loops: []reconcile.Loop{
		c.bakes, bake.Refreshes{Loop: c.bakes},
		&rollout.Foundations{Config: rc}, &rollout.Generations{Config: rc}, &rollout.Environments{Config: rc},
		&advance.Loop{Store: st, Cloud: c.cloud, Blueprints: suiteFiles{c.files}, Images: c.bakes, Releases: c.resolver, Deployer: c, Metrics: c, Prover: c, Capacity: pipeline.Capacity{Instances: cfg.TestInstances, Launching: cfg.TestLaunching}, Clock: clk, Log: cfg.Log, StackName: name},
		&renew.Loop{Store: st, Clock: clk, Log: cfg.Log, Budget: cfg.ImageBudget},
		&heal.Loop{Store: st, Cloud: c.cloud, Clock: clk, Log: cfg.Log},
		&trigger.Loop{Store: st, Starter: c, Clock: clk, Log: cfg.Log}, &notify.Loop{Store: st, Sender: c, Clock: clk, Log: cfg.Log},
		expire.Environments(st, clk, cfg.Log), expire.Foundations(st, clk, cfg.Log),
	}})
	c.measure()
}

// suiteFiles is files as the loop of test runs wants it.
type suiteFiles struct{ *files }

func (s suiteFiles) Blueprint(ctx context.Context, digest string) (*blueprint.Blueprint, error) {
	b, _, err := s.files.Blueprint(ctx, digest)
	return b, err
}

func (s suiteFiles) File(ctx context.Context, digest, path string) ([]byte, error) {
	_, fsys, err := s.files.Blueprint(ctx, digest)
	if err != nil {
		return nil, err
	}
	return fs.ReadFile(fsys, path)
}

// templates reads which parameters a template declares.
type templates struct{}

func (templates) Parameters(file string, src []byte) ([]string, error) {
	t, problems := template.Parse(file, src)
	if len(problems) > 0 {
		return nil, &fault.Error{Kind: fault.Invalid, Op: "read the template", Message: problems[0].Error()}
	}
	var names []string
	for _, p := range t.Parameters {
		names = append(names, p.Name)
	}
	return names, nil
}

// beside reads a binary that goes to instances, by its path or beside this one.
func beside(name, path string) ([]byte, error) {
	if path == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		path = filepath.Join(filepath.Dir(self), name)
	}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &fault.Error{Kind: fault.Failed, Op: "start the server", Object: path, Message: name + " is not beside dayfly", Hint: "make build makes them all"}
	}
	return raw, err
}

// boxes gives the box at an address.
type boxes struct {
	objects s3.Objects
	tmp     string
	cfg     Config
}

func (b boxes) open(address string) (box.Box, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, &fault.Error{Kind: fault.Invalid, Op: "open the box", Object: address, Message: "this is not an address", Err: err}
	}
	switch u.Scheme {
	case "http", "https":
		return https.New(address, b.cfg.asks()), nil
	case "file":
		return dir.New(u.Path), nil
	case "s3":
		return s3.New(address, b.objects), nil
	case "git+https", "git+ssh", "git+file":
		return git.New(address, b.tmp, b.cfg.located), nil
	}
	return nil, &fault.Error{Kind: fault.Invalid, Op: "open the box", Object: address, Message: "a box is behind http://, https://, s3://, file:// or git+https://, git+ssh://, git+file://"}
}

// tidy removes what a server that died left half received: nobody else works
// in its folder.
func tidy(dir string) error {
	var errs []error
	for _, pattern := range []string{"tmp/*", "blueprints/incoming-*"} {
		left, err := filepath.Glob(filepath.Join(dir, pattern))
		errs = append(errs, err)
		for _, p := range left {
			errs = append(errs, os.RemoveAll(p))
		}
	}
	return errors.Join(errs...)
}
