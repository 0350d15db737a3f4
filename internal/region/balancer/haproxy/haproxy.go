// Package haproxy moves requests with HAProxy: one process per VPC, inside the
// VPC's network namespace, which goes on when the daemon does not. Servers come
// and go in declared slots over the admin socket, weights are maps that the
// socket replaces in one step; only a new listener, pool, rule or check starts
// a successor, which takes over the listening sockets and the servers' states
// before its first request.
//
// It must not know ELBv2 or Auto Scaling, nor how namespaces are made.
package haproxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/balancer"
)

// Config says where the processes' files are and where the processes run.
type Config struct {
	RunDir string                  // a directory balancer-VPC for each
	Binary string                  // "" = haproxy in PATH
	NetNS  func(vpc string) string // path of a VPC's namespace; nil or "" = the daemon's own
	Clock  clock.Clock             // nil = the real one
	Log    *slog.Logger
}

// Balancer is HAProxy's balancer.Balancer.
type Balancer struct {
	cfg         Config
	user, group string

	mu   sync.Mutex
	vpcs map[string]*vpc
	stop chan struct{}
	wg   sync.WaitGroup
}

var _ balancer.Balancer = (*Balancer)(nil)

// vpc is one VPC's process.
type vpc struct {
	mu   sync.Mutex
	id   string
	dir  string
	rec  *record
	wake chan struct{}
	gone chan struct{} // closed by Remove
	dead bool
	// How long servers took, by pool, and how many requests of the process that
	// runs are in it; nil of one that an earlier daemon began.
	took  map[string]time.Duration
	heard map[string]int64
}

// New adopts what runs, and starts again what should run and does not.
func New(cfg Config) (*Balancer, error) {
	if cfg.Binary == "" {
		cfg.Binary = "haproxy"
	}
	bin, err := exec.LookPath(cfg.Binary)
	if err != nil {
		return nil, &fault.Error{Kind: fault.Invalid, Op: "balancer", Object: cfg.Binary, Message: "HAProxy is not there", Hint: "apt-get install haproxy", Err: err}
	}
	cfg.Binary = bin
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	if cfg.NetNS == nil {
		cfg.NetNS = func(string) string { return "" }
	}
	if !filepath.IsAbs(cfg.RunDir) {
		return nil, &fault.Error{Kind: fault.Invalid, Op: "balancer", Object: cfg.RunDir, Message: "the run directory must be an absolute path"}
	}
	if err := os.MkdirAll(cfg.RunDir, 0o700); err != nil {
		return nil, fmt.Errorf("balancer: %w", err)
	}
	b := &Balancer{cfg: cfg, vpcs: map[string]*vpc{}, stop: make(chan struct{})}
	if b.user, b.group, err = whom(); err != nil {
		return nil, err
	}
	dirs, err := filepath.Glob(filepath.Join(cfg.RunDir, dirPrefix+"*"))
	if err != nil {
		return nil, fmt.Errorf("balancer: %w", err)
	}
	for _, d := range dirs {
		b.adopt(d)
	}
	return b, nil
}

const dirPrefix = "balancer-"

// The kernel's limit is 107 bytes; HAProxy binds under a longer name first.
const maxSocketPath = 92

// whom is the user that a process becomes.
func whom() (string, string, error) {
	for _, name := range []string{"haproxy", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		g, err := user.LookupGroupId(u.Gid)
		if err != nil {
			continue
		}
		return u.Username, g.Name, nil
	}
	return "", "", &fault.Error{Kind: fault.Invalid, Op: "balancer", Message: "there is no user haproxy and no user nobody to run HAProxy as"}
}

func (b *Balancer) adopt(dir string) {
	v := b.newVPC(strings.TrimPrefix(filepath.Base(dir), dirPrefix))
	if err := v.load(); err != nil {
		// Nothing says what it was for: the sweep asks, Apply makes it anew.
		b.cfg.Log.Warn("a balancer's record cannot be read", "vpc", v.id, "error", err)
		v.rec = &record{}
	}
	b.vpcs[v.id] = v
	if v.rec.Config.VPC != "" && !b.alive(v) {
		b.cfg.Log.Warn("a balancer is not running, and is started again", "vpc", v.id)
		v.rec.Shape = ""
		if err := b.settle(v, v.rec.next(v.rec.Config, b.cfg.Clock.Now())); err != nil {
			b.cfg.Log.Error("a balancer cannot be started", "vpc", v.id, "error", err)
		}
	}
	b.wg.Go(func() { b.tend(v) })
	v.poke()
}

func (b *Balancer) newVPC(id string) *vpc {
	return &vpc{
		id: id, dir: filepath.Join(b.cfg.RunDir, dirPrefix+id), rec: &record{},
		wake: make(chan struct{}, 1), gone: make(chan struct{}),
	}
}

func (v *vpc) poke() {
	select {
	case v.wake <- struct{}{}:
	default:
	}
}

// lookup finds a VPC and locks it; nil is unknown.
func (b *Balancer) lookup(id string) *vpc {
	b.mu.Lock()
	v := b.vpcs[id]
	b.mu.Unlock()
	if v == nil {
		return nil
	}
	v.mu.Lock()
	if v.dead {
		v.mu.Unlock()
		return nil
	}
	return v
}

// Apply makes a VPC's balancing what c says.
func (b *Balancer) Apply(ctx context.Context, c balancer.Config) error {
	c, err := c.Normal()
	if err != nil {
		return err
	}
	if n := len(socketPath(filepath.Join(b.cfg.RunDir, dirPrefix+c.VPC))); n > maxSocketPath {
		return &fault.Error{Kind: fault.Invalid, Op: "balancer", Object: b.cfg.RunDir, Message: fmt.Sprintf("a socket's path in it has %d bytes, more than %d", n, maxSocketPath), Hint: "give the region a run directory with a shorter path"}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	v := b.lookup(c.VPC)
	if v == nil {
		b.mu.Lock()
		if v = b.vpcs[c.VPC]; v == nil {
			v = b.newVPC(c.VPC)
			b.vpcs[c.VPC] = v
			b.wg.Go(func() { b.tend(v) })
		}
		b.mu.Unlock()
		v.mu.Lock()
	}
	defer v.mu.Unlock()
	if v.dead {
		return &fault.Error{Kind: fault.Conflict, Op: "balancer", Object: c.VPC, Message: "it is being removed"}
	}
	if err := os.MkdirAll(filepath.Join(v.dir, "empty"), 0o700); err != nil {
		return fmt.Errorf("balancer: %w", err)
	}
	if err := b.settle(v, v.rec.next(c, b.cfg.Clock.Now())); err != nil {
		return fmt.Errorf("balancer: %s: %w", c.VPC, err)
	}
	v.poke()
	return nil
}

// settle makes the process follow a new record; the caller has locked v.
func (b *Balancer) settle(v *vpc, next *record) error {
	old := v.rec
	v.rec = next
	if err := v.save(); err != nil { // slots are given out before the process hears of it
		v.rec = old
		return err
	}
	f := render(next, v.dir, b.user, b.group)
	if f.shape != old.Shape || !b.alive(v) {
		if err := b.reload(v, f); err != nil {
			v.rec = old
			return errors.Join(err, v.save())
		}
		next.Shape, next.Maps = f.shape, f.maps
		if err := v.save(); err != nil {
			return err
		}
	}
	if err := v.tell(f); err != nil {
		// The process is not as the record says: a successor reads all of it.
		b.cfg.Log.Warn("a balancer refused a change and is replaced", "vpc", v.id, "error", err)
		if err := b.reload(v, f); err != nil {
			return err
		}
		next.Shape, next.Maps = f.shape, f.maps
		if err := v.tell(f); err != nil {
			return err
		}
	}
	return v.save()
}

// tell sends what the process has not heard: new servers, drains, weights.
func (v *vpc) tell(f *files) error {
	var commands []string
	var later []func()
	for _, id := range slices.Sorted(maps.Keys(v.rec.Pools)) {
		for _, s := range v.rec.Pools[id].Used {
			be := backendName(id)
			if !s.Live && !s.Removed {
				commands = append(commands, raise(id, s)...)
				later = append(later, func() { s.Live, s.Known = true, false })
			}
			if s.Live && s.Draining && !s.Drained || !s.Live && s.Draining && !s.Removed {
				commands = append(commands,
					fmt.Sprintf("set server %s/b%d state maint", be, s.N),
					fmt.Sprintf("set server %s/s%d state drain", be, s.N))
				later = append(later, func() { s.Drained = true })
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(f.maps)) {
		if slices.Equal(f.maps[path], v.rec.Maps[path]) {
			continue
		}
		if err := v.setMap(path, f.maps[path]); err != nil {
			return err
		}
	}
	if err := order(v.dir, commands); err != nil {
		return err
	}
	for _, fn := range later {
		fn()
	}
	v.rec.Maps = f.maps
	return nil
}

// raise are the commands with which a new server waits for its first success.
func raise(pool string, s *slot) []string {
	be, wait := backendName(pool), waitName(pool)
	addr := fmt.Sprintf("addr %s port %d", s.Address.Addr(), s.Address.Port())
	return []string{
		fmt.Sprintf("set server %s/s%d %s", be, s.N, addr),
		fmt.Sprintf("set server %s/b%d %s", be, s.N, addr),
		fmt.Sprintf("set server %s/s%d %s", wait, s.N, addr),
		fmt.Sprintf("set server %s/s%d state ready", wait, s.N),
		// One that leaves maintenance passes for healthy until it is asked.
		fmt.Sprintf("set server %s/s%d health down", wait, s.N),
	}
}

// enter are the commands that let a server take part: after its first success,
// or as unhealthy. For the latter it has no weight until it is told that it is
// down.
func enter(pool string, s *slot, healthy bool) []string {
	be := backendName(pool)
	out := []string{fmt.Sprintf("set server %s/s%d state maint", waitName(pool), s.N)}
	if s.Draining {
		return out
	}
	if healthy {
		out = append(out, fmt.Sprintf("set server %s/s%d state ready", be, s.N))
	} else {
		out = append(out,
			fmt.Sprintf("set server %s/s%d weight 0%%", be, s.N),
			fmt.Sprintf("set server %s/s%d state ready", be, s.N),
			fmt.Sprintf("set server %s/s%d health down", be, s.N),
			fmt.Sprintf("set server %s/s%d weight 100%%", be, s.N))
	}
	return append(out, fmt.Sprintf("set server %s/b%d state ready", be, s.N))
}

// setMap replaces a map in the process in one step, and its file.
func (v *vpc) setMap(path string, ss []share) error {
	if err := os.WriteFile(path, []byte(mapText(ss)), 0o644); err != nil {
		return err
	}
	out, err := admin(v.dir, "prepare map "+path)
	if err != nil {
		return fmt.Errorf("admin socket: %w", err)
	}
	var version int
	if _, err := fmt.Sscanf(strings.TrimSpace(out), "New version created: %d", &version); err != nil {
		return fmt.Errorf("admin socket: %s", strings.TrimSpace(out))
	}
	var commands []string
	for _, s := range ss {
		commands = append(commands, fmt.Sprintf("add map @%d %s %d:%d %s", version, path, s.From, s.To, s.Backend))
	}
	if err := order(v.dir, commands); err != nil {
		return err
	}
	return order(v.dir, []string{fmt.Sprintf("commit map @%d %s", version, path)})
}

// Remove ends a VPC's balancing.
func (b *Balancer) Remove(ctx context.Context, id string) error {
	v := b.lookup(id)
	if v == nil {
		return nil
	}
	defer v.mu.Unlock()
	if err := b.kill(ctx, v); err != nil {
		return fmt.Errorf("balancer: %s: %w", id, err)
	}
	if err := os.RemoveAll(v.dir); err != nil {
		return fmt.Errorf("balancer: %s: %w", id, err)
	}
	v.dead = true
	close(v.gone)
	b.mu.Lock()
	delete(b.vpcs, id)
	b.mu.Unlock()
	return nil
}

// VPCs lists what runs.
func (b *Balancer) VPCs(context.Context) ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.vpcs)), nil
}

// Close leaves the processes running.
func (b *Balancer) Close() error {
	b.mu.Lock()
	select {
	case <-b.stop:
	default:
		close(b.stop)
	}
	b.mu.Unlock()
	b.wg.Wait()
	return nil
}

// after is a timer of the balancer's clock.
func (b *Balancer) after(d time.Duration) <-chan time.Time { return b.cfg.Clock.After(d) }

func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
