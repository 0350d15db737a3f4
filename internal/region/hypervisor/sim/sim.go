// Package sim is a hypervisor in memory: no root, no processes, milliseconds.
// It behaves as hypervisor/oci does towards its caller, and has hooks to play
// what would run inside instances, and faults. It must not know EC2, networks
// or Dayfly.
package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// Config of a Hypervisor. Every field may be left empty.
type Config struct {
	Clock clock.Clock
	// Dir keeps images and instances for the next process; "" keeps nothing.
	Dir string
	// BootDelay is from Create or Start until the guest answers.
	BootDelay time.Duration
	// Script plays a command; without it each succeeds and prints nothing. It
	// ends with ctx, which ends with the instance and the command's timeout.
	Script func(ctx context.Context, in hypervisor.Instance, c hypervisor.Command) hypervisor.Result
	// OnBoot plays what runs inside, on a goroutine of its own from the time
	// when the guest answers; ctx ends when the instance stops.
	OnBoot func(ctx context.Context, in hypervisor.Instance)
	// Fault is asked at each Create and Start.
	Fault func(in hypervisor.Instance) Fault
}

// Fault is what goes wrong with one boot of one instance.
type Fault struct {
	Create     error         // Create or Start fails with it
	Slow       time.Duration // Create or Start takes so long
	NeverReady bool          // the guest never answers
	DieAfter   time.Duration // PID 1 ends so long after the boot
	Reason     string        // of that end; "exited 1" when empty
}

// Hypervisor implements hypervisor.Hypervisor. Make it with New.
type Hypervisor struct {
	cfg    Config
	events chan hypervisor.Status
	wake   chan struct{}
	quit   chan struct{}
	wg     sync.WaitGroup

	mu     sync.Mutex
	images map[string]hypervisor.Image
	insts  map[string]*instance
	queue  []hypervisor.Status
	closed bool
}

type instance struct {
	spec    hypervisor.Instance
	layers  []string
	boot    hypervisor.Boot
	status  hypervisor.Status
	console []byte
	life    *life
	made    chan struct{} // closed when Create has ended
	ran     map[string]*command
	writes  int // what makes the next snapshot differ
}

// life is one boot of an instance.
type life struct {
	ctx    context.Context
	cancel context.CancelFunc
	ready  bool
}

func newLife() *life {
	l := &life{}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

type command struct {
	done   chan struct{}
	result hypervisor.Result
}

var _ hypervisor.Hypervisor = (*Hypervisor)(nil)

// New makes an empty Hypervisor.
func New(cfg Config) *Hypervisor {
	if cfg.Clock == nil {
		cfg.Clock = clock.Real{}
	}
	h := &Hypervisor{
		cfg: cfg, events: make(chan hypervisor.Status), wake: make(chan struct{}, 1), quit: make(chan struct{}),
		images: map[string]hypervisor.Image{}, insts: map[string]*instance{},
	}
	h.wg.Go(h.deliver)
	return h
}

// Open makes a Hypervisor with what an earlier process has kept in cfg.Dir.
func Open(cfg Config) (*Hypervisor, error) {
	h := New(cfg)
	h.mu.Lock()
	err := h.load()
	h.mu.Unlock()
	if err != nil {
		h.Close()
		return nil, fmt.Errorf("open the simulated hypervisor: %w", err)
	}
	return h, nil
}

func (h *Hypervisor) deliver() {
	defer close(h.events)
	for {
		h.mu.Lock()
		var next []hypervisor.Status
		next, h.queue = h.queue, nil
		h.mu.Unlock()
		for _, s := range next {
			select {
			case h.events <- s:
			case <-h.quit:
				return
			}
		}
		if len(next) > 0 {
			continue
		}
		select {
		case <-h.wake:
		case <-h.quit:
			return
		}
	}
}

// after waits, false when ctx or the Hypervisor ended first.
func (h *Hypervisor) after(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	select {
	case <-h.cfg.Clock.After(d):
		return true
	case <-ctx.Done():
	case <-h.quit:
	}
	return false
}

// find returns an instance that Create has finished; h.mu is held.
func (h *Hypervisor) find(id string) (*instance, error) {
	if h.closed {
		return nil, errors.New("the hypervisor is closed")
	}
	i := h.insts[id]
	if i == nil || i.status.State == "" {
		return nil, fmt.Errorf("%s: %w", id, hypervisor.ErrNoInstance)
	}
	return i, nil
}

// Create makes and boots an instance.
func (h *Hypervisor) Create(ctx context.Context, in hypervisor.Instance) error {
	if in.ID == "" {
		return errors.New("create instance: the id is empty")
	}
	for {
		h.mu.Lock()
		if h.closed {
			h.mu.Unlock()
			return errors.New("create instance: the hypervisor is closed")
		}
		old := h.insts[in.ID]
		if old == nil {
			break
		}
		h.mu.Unlock()
		// Another Create of this id: with its success we are done.
		select {
		case <-old.made:
		case <-ctx.Done():
			return fmt.Errorf("create instance %s: %w", in.ID, ctx.Err())
		}
		h.mu.Lock()
		still := h.insts[in.ID] == old
		h.mu.Unlock()
		if still {
			return nil
		}
	}
	m, ok := h.images[in.Image]
	if !ok {
		h.mu.Unlock()
		return fmt.Errorf("create instance %s: image %q: %w", in.ID, in.Image, hypervisor.ErrNoImage)
	}
	i := &instance{spec: in, layers: slices.Clone(m.Layers), boot: m.Boot, made: make(chan struct{}), ran: map[string]*command{}}
	i.spec.Env = cloneEnv(in.Env)
	h.insts[in.ID] = i
	h.mu.Unlock()
	defer close(i.made)
	if err := h.bootUp(ctx, i); err != nil {
		h.mu.Lock()
		delete(h.insts, in.ID)
		h.mu.Unlock()
		return fmt.Errorf("create instance %s: %w", in.ID, err)
	}
	return nil
}

func cloneEnv(m map[string]string) map[string]string {
	c := make(map[string]string, len(m))
	for k, v := range m {
		c[k] = v
	}
	return c
}

func (h *Hypervisor) bootUp(ctx context.Context, i *instance) error {
	var f Fault
	if h.cfg.Fault != nil {
		f = h.cfg.Fault(i.spec)
	}
	if !h.after(ctx, f.Slow) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return errors.New("the hypervisor is closed")
	}
	if f.Create != nil {
		return f.Create
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.insts[i.spec.ID] != i || h.closed {
		return fmt.Errorf("it was destroyed meanwhile: %w", hypervisor.ErrNoInstance)
	}
	l := newLife()
	i.life = l
	i.status = hypervisor.Status{ID: i.spec.ID, Image: i.spec.Image, State: hypervisor.Running, Started: h.cfg.Clock.Now()}
	i.console = append(i.console, "boot\n"...)
	if err := h.keepInstance(i); err != nil {
		l.cancel()
		i.life, i.status.State = nil, hypervisor.Stopped
		return err
	}
	spec := i.spec
	if !f.NeverReady {
		h.wg.Go(func() { h.guest(l, spec) })
	}
	if f.DieAfter > 0 {
		h.wg.Go(func() {
			if h.after(l.ctx, f.DieAfter) {
				reason := f.Reason
				if reason == "" {
					reason = "exited 1"
				}
				h.mu.Lock()
				defer h.mu.Unlock()
				h.end(i, l, reason)
			}
		})
	}
	return nil
}

func (h *Hypervisor) guest(l *life, spec hypervisor.Instance) {
	if !h.after(l.ctx, h.cfg.BootDelay) {
		return
	}
	h.mu.Lock()
	l.ready = true
	h.mu.Unlock()
	if h.cfg.OnBoot != nil {
		h.cfg.OnBoot(l.ctx, spec)
	}
}

// end makes an instance that lives l stopped; h.mu is held.
func (h *Hypervisor) end(i *instance, l *life, reason string) {
	if i.life != l || l == nil {
		return
	}
	l.cancel()
	i.life = nil
	i.status.State, i.status.Reason = hypervisor.Stopped, reason
	i.console = append(i.console, reason+"\n"...)
	_ = h.keepInstance(i) // the worst is an instance that seems to run after a restart
	h.queue = append(h.queue, i.status)
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Kill ends PID 1 of a running instance, as a crash inside would.
func (h *Hypervisor) Kill(id, reason string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, err := h.find(id)
	if err != nil {
		return fmt.Errorf("kill: %w", err)
	}
	h.end(i, i.life, reason)
	return nil
}

// Stop ends an instance at once: what is played inside is asked by its context.
func (h *Hypervisor) Stop(_ context.Context, id string, _ time.Duration) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, err := h.find(id)
	if err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	h.end(i, i.life, "stopped")
	return nil
}

// Start boots a stopped instance again.
func (h *Hypervisor) Start(ctx context.Context, id, netns string) error {
	h.mu.Lock()
	i, err := h.find(id)
	if err != nil {
		h.mu.Unlock()
		return fmt.Errorf("start: %w", err)
	}
	if i.status.State == hypervisor.Running {
		h.mu.Unlock()
		return nil
	}
	i.spec.NetNS = netns
	h.mu.Unlock()
	if err := h.bootUp(ctx, i); err != nil {
		return fmt.Errorf("start %s: %w", id, err)
	}
	return nil
}

// Destroy removes an instance.
func (h *Hypervisor) Destroy(_ context.Context, id string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.insts[id]; i != nil {
		h.end(i, i.life, "stopped")
		delete(h.insts, id)
		return h.keep(h.instanceFile(id), nil)
	}
	return nil
}

// List returns every instance, in order of ids.
func (h *Hypervisor) List(context.Context) ([]hypervisor.Status, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]hypervisor.Status, 0, len(h.insts))
	for _, i := range h.insts {
		if i.status.State != "" {
			list = append(list, i.status)
		}
	}
	slices.SortFunc(list, func(a, b hypervisor.Status) int { return strings.Compare(a.ID, b.ID) })
	return list, nil
}

// Instance returns what Create was told; for tests.
func (h *Hypervisor) Instance(id string) (hypervisor.Instance, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.insts[id]
	if i == nil {
		return hypervisor.Instance{}, false
	}
	return i.spec, true
}

// Events delivers each instance that stops. The channel is closed by Close.
func (h *Hypervisor) Events() <-chan hypervisor.Status { return h.events }

// Console returns the end of what the instance and Print have written.
func (h *Hypervisor) Console(_ context.Context, id string, limit int) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i, err := h.find(id)
	if err != nil {
		return nil, fmt.Errorf("console: %w", err)
	}
	return slices.Clone(i.console[max(0, len(i.console)-limit):]), nil
}

// Print writes to an instance's console, for hooks.
func (h *Hypervisor) Print(id, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i := h.insts[id]; i != nil {
		i.console = append(i.console, text...)
	}
}

// Close ends everything that is played, and waits for it.
func (h *Hypervisor) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		return nil
	}
	h.closed = true
	for _, i := range h.insts {
		if i.life != nil {
			i.life.cancel()
		}
	}
	close(h.quit)
	h.mu.Unlock()
	h.wg.Wait()
	return nil
}
