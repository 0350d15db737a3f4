package control

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/box"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/metrics"
	"github.com/dayfly-infra/dayfly/internal/operation"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/cached"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

const description = `name: shop
image:
  base: ami-base
  puppet: { code: puppet/ }
  verify: [verify/smoke.sh]
  keep_failed: 0s
release: { box: "http://box.example/shop" }
handoff: { run: deploy/deploy, service: /srv/shop, ready: "http://:8080/healthz", deadline: 2m }
environments:
  dev: { size: 3, lease: 24h }
  short: { size: 2, lease: 1h }
pipeline:
  - stage: check
    suites:
      - { name: api, run: suites/api.sh, size: 2, timeout: 2m }
      - { name: web, run: suites/web.sh, size: 2, timeout: 2m }
      - { name: looks, manual: "log in", lease: 8h }
`

const foundationTemplate = `Parameters:
  Environment: { Type: String }
Resources:
  Balancer: { Type: "AWS::ElasticLoadBalancingV2::LoadBalancer" }
`

const fleetTemplate = `Parameters:
  ImageId: { Type: String }
  ReleaseDigest: { Type: String }
  Size: { Type: Number }
  MaxSize: { Type: Number }
  Environment: { Type: String }
  Generation: { Type: String }
  Operation: { Type: String, Default: "" }
  Vpc: { Type: String }
Resources:
  Fleet: { Type: "AWS::AutoScaling::AutoScalingGroup" }
`

// fakeBox is a box with one artifact.
type fakeBox struct {
	mu     sync.Mutex
	down   bool
	body   string
	opened int
}

func (b *fakeBox) set(f func(*fakeBox)) { b.mu.Lock(); defer b.mu.Unlock(); f(b) }

func (b *fakeBox) Resolve(context.Context, string) (box.Artifact, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return box.Artifact{}, &fault.Error{Kind: fault.Unavailable, Message: "the box does not answer"}
	}
	return box.Artifact{Name: "shop.tar.gz", URL: "http://box.example/shop/shop.tar.gz", Digest: fmt.Sprintf("sha256:%x", sha256.Sum256([]byte(b.body)))}, nil
}

func (b *fakeBox) Open(context.Context, box.Artifact) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.opened++
	return io.NopCloser(strings.NewReader(b.body)), nil
}

// world is a cloud, a store and a box that outlive processes.
type world struct {
	t      *testing.T
	cloud  *cloudtest.Cloud
	store  store.Store
	box    *fakeBox
	dir    string
	files  string
	api    *Control // its loops do not run
	suite  func(name string) (junit string, r cloud.CommandResult, took time.Duration)
	gate   func(cmd cloud.Command) (r cloud.CommandResult, took time.Duration)
	fail   map[string]string // step of a bake: what its command says
	limit  time.Duration
	quota  int
	budget int
	signs  Attestation
	log    io.Writer
	mu     sync.Mutex
	ran    map[string]int // commands of bakes by step
}

// runs is how often a step's command was run.
func (w *world) runs(step string) int { w.mu.Lock(); defer w.mu.Unlock(); return w.ran[step] }

// inWorld runs a test in virtual time.
func inWorld(t *testing.T, f func(t *testing.T, w *world)) {
	synctest.Test(t, func(t *testing.T) {
		database, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
		if err != nil {
			t.Fatal(err)
		}
		st := cached.New(cached.Config{Store: database, Kinds: remembered, Clock: clock.Real{}})
		defer st.Close()
		w := &world{t: t, cloud: cloudtest.New(clock.Real{}), store: st, box: &fakeBox{body: "one"}, dir: t.TempDir(), fail: map[string]string{}, ran: map[string]int{}, limit: 3 * time.Hour, log: io.Discard}
		w.cloud.Exec = w.exec
		w.cloud.AddImage("ami-base")
		w.cloud.AddImage("ami-other")
		if err := os.Mkdir(filepath.Join(w.dir, "tmp"), 0o700); err != nil {
			t.Fatal(err)
		}
		w.api = w.control(st)
		w.files = w.pack(description)
		f(t, w)
	})
}

func (w *world) control(st store.Store) *Control {
	c := &Control{metrics: metrics.New(), cfg: Config{Dir: w.dir, MetricAddresses: []string{"127.0.0.1:1"}, TestInstances: w.quota, ImageBudget: w.budget, Log: slog.New(operation.Handler(slog.NewTextHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug})))}, store: st, clock: clock.Real{}, cloud: w.cloud.Driver(st)}
	c.wire([]byte("agent"), []byte("probe"), func(string) (box.Box, error) { return w.box, nil })
	c.files.dir = w.dir
	var err error
	if c.bakes.Key, c.bakes.Trusted, err = w.signs.read(); err != nil {
		w.t.Fatal(err)
	}
	return c
}

func (w *world) pack(description string) string {
	w.t.Helper()
	out, err := w.api.AddBlueprint(w.t.Context(), bytes.NewReader(packed(w.t, description)))
	if err != nil {
		w.t.Fatal(err)
	}
	return out.Digest
}

func packed(t *testing.T, description string) []byte {
	t.Helper()
	f := fstest.MapFS{}
	for name, body := range map[string]string{
		blueprint.File: description, "puppet/manifests/site.pp": "", "verify/smoke.sh": "", "deploy/deploy": "", "suites/api.sh": "", "suites/web.sh": "",
		"fleet.yaml": fleetTemplate, "foundation.yaml": foundationTemplate,
	} {
		f[name] = &fstest.MapFile{Data: []byte(body), Mode: 0o755}
	}
	var b bytes.Buffer
	if _, err := blueprint.Pack(f, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var (
	nonce   = regexp.MustCompile(`(?m)^NONCE='(.*)'$`)
	results = regexp.MustCompile(`--results 's3://bucket/([^']*)'`)
)

const passes = `<testsuite><testcase name="a"/><testcase name="b"/></testsuite>`

// exec plays the commands that instances get.
func (w *world) exec(c *cloudtest.Cloud, cmd cloud.Command) (cloud.CommandResult, time.Duration) {
	good := cloud.CommandResult{Status: "Success"}
	if name, ok := strings.CutPrefix(cmd.Comment, "suite "); ok {
		junit, r, took := passes, good, 3*time.Second
		if w.suite != nil {
			junit, r, took = w.suite(name)
		}
		if junit != "" {
			c.Object(results.FindStringSubmatch(cmd.Script)[1]+"/junit.xml", []byte(junit))
		}
		return r, took
	}
	if strings.HasPrefix(cmd.Comment, "gate ") {
		return w.gate(cmd)
	}
	step := cmd.Comment[strings.LastIndexByte(cmd.Comment, ' ')+1:]
	w.mu.Lock()
	w.ran[step]++
	w.mu.Unlock()
	if why := w.fail[step]; why != "" {
		return cloud.CommandResult{Status: "Failed", ExitCode: 1, Stderr: why}, time.Second
	}
	switch step {
	case "exec":
		good.Stdout = cmd.Instance
	case "seal":
		good.Stdout = "fact machine-id 1234\nfact hostname builder\n"
	case "verify/1", "verify/2":
		n := nonce.FindStringSubmatch(cmd.Script)[1]
		for _, check := range []string{"agent", "hand-off", "secrets", "inventory", "verify/smoke.sh"} {
			code := 0
			if check == w.fail["check"] {
				code = 1
			}
			good.Stdout += fmt.Sprintf("@@%s %d %s\nsaid\n", n, code, check)
		}
		id := cmd.Instance
		if w.fail["identity"] != "" {
			id = w.fail["identity"]
		}
		good.Stdout += fmt.Sprintf("@@%s facts\nfact machine-id %s\nfact hostname h-%s\n@@%s end\n", n, id, cmd.Instance, n)
	}
	return good, time.Second
}

// start runs a process; stop ends it and waits.
func (w *world) start(st store.Store) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	e := w.control(st).engine
	go func() { done <- e.Run(ctx) }()
	return sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) deploy(purpose string) error {
	_, err := w.api.Deploy(w.t.Context(), server.Deploy{Files: w.files, Purpose: purpose})
	return err
}

func (w *world) mustDeploy() {
	w.t.Helper()
	if err := w.deploy("dev"); err != nil {
		w.t.Fatal(err)
	}
}

func get[T any](w *world, kind, name string) T {
	w.t.Helper()
	v, _, err := store.Get[T](w.t.Context(), w.store, kind, name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		w.t.Fatal(err)
	}
	return v
}

func (w *world) env() environment.Environment {
	w.t.Helper()
	return get[environment.Environment](w, environment.Kind, "shop-dev")
}

func (w *world) gen(n int) environment.Generation {
	w.t.Helper()
	return get[environment.Generation](w, environment.GenerationKind, environment.GenerationName("shop-dev", n))
}

// wait lets time pass until something holds.
func (w *world) wait(what string, ok func() bool) {
	w.t.Helper()
	begun := time.Now()
	for !ok() {
		if time.Since(begun) > w.limit {
			why, _ := w.api.Why(w.t.Context(), "")
			e := w.env()
			w.t.Fatalf("never: %s\nwaiting: %+v\nshop-dev: %+v\nleft: %s", what, why, e, strings.Join(w.cloud.Left(), "\n  "))
		}
		time.Sleep(min(max(50*time.Millisecond, time.Since(begun)/100), time.Second))
	}
}

// settled tells that the environment has nothing under way.
func (w *world) settled() bool {
	e := w.env()
	return e.Next == nil && (e.Want == e.Serving) && e.Phase != environment.Pending && e.Phase != environment.Launching
}

func (w *world) serves(n int) {
	w.t.Helper()
	w.wait(fmt.Sprintf("generation %d serves", n), func() bool {
		e := w.env()
		if e.Error != "" {
			w.t.Fatalf("the deploy failed: %s", e.Error)
		}
		return e.Serving == n && e.Phase == environment.Serving && w.settled()
	})
	w.wait("what served before is out of the listener", func() bool { return w.env().Shift == nil && len(w.weights()) == 1 })
	l := get[environment.Foundation](w, environment.FoundationKind, "shop-dev").Listener
	ws, err := w.api.cloud.ListenerWeights(w.t.Context(), l)
	if err != nil || len(ws) != 1 || ws[0].TargetGroup != w.gen(n).TargetGroups[0] || ws[0].Weight != 100 {
		w.t.Fatalf("generation %d does not have all the traffic: %v %v", n, ws, err)
	}
}

func (w *world) destroy() {
	w.t.Helper()
	if _, err := w.api.Destroy(w.t.Context(), "shop-dev"); err != nil {
		w.t.Fatal(err)
	}
	w.gone()
}

func (w *world) gone() {
	w.t.Helper()
	w.wait("shop-dev is gone", func() bool { return w.env().Phase == environment.Gone })
	gs, err := store.List[environment.Generation](w.t.Context(), w.store, environment.GenerationKind, "shop-dev/")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, g := range gs {
		if g.Phase != environment.Gone {
			w.t.Errorf("the environment is gone and its generation %d is %s", g.Number, g.Phase)
		}
	}
}

func (w *world) run(suites ...string) string {
	w.t.Helper()
	r, err := w.api.Test(w.t.Context(), server.Test{Files: w.files, Suites: suites})
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Name
}

func (w *world) ended(run string) pipeline.Run {
	w.t.Helper()
	w.wait(run+" ends", func() bool { return get[pipeline.Run](w, pipeline.Kind, run).Phase == pipeline.Done })
	return get[pipeline.Run](w, pipeline.Kind, run)
}

// kept are objects that stay on purpose.
var kept = []string{"releases/", "results/", "reports/", "blueprints/"}

// nothingLeft proves that all is gone, the image too.
func (w *world) nothingLeft() {
	w.t.Helper()
	for _, im := range []string{"image"} {
		records, err := w.store.List(w.t.Context(), im, "")
		if err != nil {
			w.t.Fatal(err)
		}
		for _, r := range records {
			if err := w.api.DeleteImage(w.t.Context(), r.Name); err != nil {
				w.t.Error(err)
			}
		}
	}
	if left := w.cloud.Left(kept...); len(left) > 0 {
		w.t.Errorf("left in the cloud:\n  %s", strings.Join(left, "\n  "))
	}
	if twice := w.cloud.Twice(); len(twice) > 0 {
		w.t.Errorf("made more than once:\n  %s", strings.Join(twice, "\n  "))
	}
}

var errDead = errors.New("this process is dead")

// mortal is the store of a process that dies at one of its writes.
type mortal struct {
	store.Store
	lives  atomic.Int64 // writes until its death
	before bool         // dies before the write, or after it
	dead   atomic.Bool
	die    func()
}

func (m *mortal) Get(ctx context.Context, kind, name string) (store.Record, error) {
	if m.dead.Load() {
		return store.Record{}, errDead
	}
	return m.Store.Get(ctx, kind, name)
}

func (m *mortal) List(ctx context.Context, kind, prefix string) ([]store.Record, error) {
	if m.dead.Load() {
		return nil, errDead
	}
	return m.Store.List(ctx, kind, prefix)
}

func (m *mortal) Apply(ctx context.Context, epoch int64, ws ...store.Write) error {
	if m.dead.Load() {
		return errDead
	}
	last := m.lives.Add(-1) <= 0
	if last && m.before {
		m.dead.Store(true)
		m.die()
		return errDead
	}
	err := m.Store.Apply(ctx, epoch, ws...)
	if last {
		m.dead.Store(true)
		m.die()
		return errDead
	}
	return err
}

// startMortal runs processes one after another, each with a life of so many
// writes, until stop, which returns how many died.
func (w *world) startMortal(before bool, life func() int64) (stop func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	deaths := make(chan int, 1)
	go func() {
		n := 0
		for ; ctx.Err() == nil; n++ {
			one, die := context.WithCancel(ctx)
			m := &mortal{Store: w.store, before: before, die: die}
			m.lives.Store(life())
			_ = w.control(m).engine.Run(one)
			die()
			time.Sleep(100 * time.Millisecond)
		}
		deaths <- n
	}()
	return func() int { cancel(); return <-deaths }
}
