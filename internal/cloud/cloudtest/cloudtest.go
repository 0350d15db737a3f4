// Package cloudtest is a small cloud in memory with the driver's methods, for
// tests of the loops: stacks with what they make, groups, targets, listeners,
// commands, images and objects, whose states follow the clock. It keeps to the
// driver's rules for intents, so that a loop which breaks them fails here too.
// It must not know what the loops want.
package cloudtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/reconcile"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// Cloud is the cloud as the account sees it. It outlives every process: a test
// gives each process a Driver of its own.
type Cloud struct {
	Clock clock.Clock
	// Plan says what becomes of a stack; nil, and zero values, are a good end.
	Plan func(s cloud.StackInput) Plan
	// Exec plays a command: its result, after how long, and what it leaves.
	Exec func(c *Cloud, cmd cloud.Command) (cloud.CommandResult, time.Duration)
	// Silent: nobody hears of the end of a command whose instance ended.
	Silent bool
	// Rate is how many requests in a second come to each listener.
	Rate float64
	// Drain is the deregistration delay of all target groups.
	Drain time.Duration
	// Launches bounds how many instances are launched; nil = nothing does.
	Launches *Bucket
	// Fail may refuse a call, such as "ec2:CreateImage", before it has an effect.
	Fail func(op, object string) error

	mu         sync.Mutex
	serial     int
	looks      int
	stacks     map[string]*stack
	listeners  map[string]*listener
	groups     map[string]*group
	instances  map[string]*instance
	images     map[string]*image
	commands   map[string]*command
	objects    map[string][]byte
	written    map[string]time.Time // when, by key
	parameters map[string]string
	foreign    []cloud.ForeignCommand
	strays     []cloud.Stray
	effects    map[string]any // result by intent
	made       map[string]int // how often an intent made something
	calls      map[string]int // by operation
	figures    map[string]map[time.Time]figure
	countedTo  time.Time
}

// Bucket holds tokens, which come back at a rate.
type Bucket struct {
	Tokens, Burst, Rate float64
	at                  time.Time
}

// take takes a token where there is one.
func (b *Bucket) take(now time.Time) bool {
	if b == nil {
		return true
	}
	if !b.at.IsZero() {
		b.Tokens = min(b.Burst, b.Tokens+b.Rate*now.Sub(b.at).Seconds())
	}
	b.at = now
	if b.Tokens < 1 {
		return false
	}
	b.Tokens--
	return true
}

// Plan is the fate of a stack.
type Plan struct {
	Fail      string        // reason for which it rolls back
	Hang      bool          // its creation never ends
	Took      time.Duration // creation; 0 is 2 s
	Boot      time.Duration // of its instances until they are in service; 0 is 1 s
	Stuck     bool          // its instances never come into service
	Broken    int           // so many of its launches fail their hand-off; -1 is all
	Report    []byte        // what a failed hand-off reports
	Protected bool          // its instances are protected from scale-in
	Undelete  int           // so many deletions fail
	Errors    float64       // share of the requests to its instances that are answered with 5xx
	Latency   time.Duration // until its instances begin to answer
}

// New makes an empty cloud.
func New(c clock.Clock) *Cloud {
	return &Cloud{
		Clock: c, stacks: map[string]*stack{}, listeners: map[string]*listener{}, groups: map[string]*group{}, instances: map[string]*instance{}, images: map[string]*image{},
		commands: map[string]*command{}, objects: map[string][]byte{}, written: map[string]time.Time{}, parameters: map[string]string{}, effects: map[string]any{}, made: map[string]int{}, calls: map[string]int{}, figures: map[string]map[time.Time]figure{},
	}
}

// Driver is the cloud as one process reaches it.
type Driver struct {
	c      *Cloud
	store  store.Store
	mu     sync.Mutex
	acting map[string]bool
}

// Driver makes a process's way in; its intents lie in st.
func (c *Cloud) Driver(st store.Store) *Driver {
	return &Driver{c: c, store: st, acting: map[string]bool{}}
}

const owner = "test"

// Bucket, Owner, Region and Identity implement the driver's.
func (*Driver) Bucket() string { return "bucket" }

// Owner implements the driver's.
func (*Driver) Owner() string { return owner }

// Region implements the driver's.
func (*Driver) Region() string { return "local-1" }

// Identity implements the driver's.
func (*Driver) Identity(context.Context) (string, string, error) {
	return "000000000000", "arn:aws:iam::000000000000:root", nil
}

// lock begins a look at the cloud as it is now.
func (c *Cloud) lock() func() {
	c.mu.Lock()
	c.looks++
	c.pass(c.Clock.Now())
	return c.mu.Unlock
}

func (c *Cloud) id(prefix string) string {
	c.serial++
	return fmt.Sprintf("%s%017x", prefix, c.serial)
}

// Put sets an object, as an instance does.
func (c *Cloud) Put(key string, body []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.write(key, body)
}

// SetParameter publishes a parameter.
func (c *Cloud) SetParameter(name, value string) { c.parameters[name] = value }

// Looks is how often somebody asked for something, whatever came of it.
func (c *Cloud) Looks() int { defer c.lock()(); return c.looks }

// Calls is how often an operation had an effect or was refused.
func (c *Cloud) Calls(op string) int { defer c.lock()(); return c.calls[op] }

// Twice names the intents that made something more than once.
func (c *Cloud) Twice() []string {
	defer c.lock()()
	var out []string
	for id, n := range c.made {
		if n > 1 {
			out = append(out, fmt.Sprintf("%s: %d times", id, n))
		}
	}
	return out
}

// Left names everything that is there, but for objects under the prefixes.
func (c *Cloud) Left(but ...string) []string {
	defer c.lock()()
	var out []string
	for n, s := range c.stacks {
		out = append(out, "stack "+n+" "+s.Status)
	}
	for n := range c.listeners {
		out = append(out, "listener "+n)
	}
	for n := range c.groups {
		out = append(out, "group "+n)
	}
	for n, i := range c.instances {
		if i.State != "terminated" {
			out = append(out, "instance "+n+" "+i.State+" "+i.Tags[cloud.TagObject])
		}
	}
	for n, i := range c.images {
		if i.Tags[cloud.TagOwner] == owner {
			out = append(out, "image "+n)
		}
	}
	for k := range c.objects {
		if !slices.ContainsFunc(but, func(p string) bool { return len(k) >= len(p) && k[:len(p)] == p }) {
			out = append(out, "object "+k)
		}
	}
	slices.Sort(out)
	return out
}

var intentForm = regexp.MustCompile(`^[A-Za-z0-9+=._:/@-]{1,200}$`)

// perform is the driver's life of an intent: written before the call, found
// again after a crash, written down after it. makes tells calls that make
// something from those that may be repeated.
func perform[R any](ctx context.Context, d *Driver, in cloud.Intent, op string, makes bool, input any, call func() (R, error)) (result R, err error) {
	broken := func(message string) error {
		return &fault.Error{Kind: fault.Internal, Op: op, Object: in.ID, Message: message}
	}
	if !intentForm.MatchString(in.ID) || in.Object == "" || !strings.HasPrefix(in.ID, in.Object+"/") {
		return result, broken("the intent has no ID that can be a tag and begins with its object, or no object")
	}
	raw, err := json.Marshal(input)
	if err != nil {
		return result, err
	}
	sum := sha256.Sum256(append([]byte(op), raw...))
	digest := hex.EncodeToString(sum[:])
	d.mu.Lock()
	if d.acting[in.ID] {
		d.mu.Unlock()
		return result, &fault.Error{Kind: fault.Conflict, Op: op, Object: in.ID, Message: "this intent is being carried out at this moment"}
	}
	d.acting[in.ID] = true
	d.mu.Unlock()
	defer func() { d.mu.Lock(); delete(d.acting, in.ID); d.mu.Unlock() }()

	r, version, err := store.Get[cloud.IntentRecord](ctx, d.store, cloud.IntentKind, in.ID)
	switch {
	case errors.Is(err, store.ErrNotFound):
		r = cloud.IntentRecord{Op: op, Object: in.Object, Digest: digest, Begun: d.c.Clock.Now()}
	case err != nil:
		return result, err
	case r.Op != op || r.Digest != digest:
		return result, broken("the intent was begun with other parameters")
	case r.Done:
		return result, json.Unmarshal(r.Result, &result)
	}
	unlock := d.c.lock()
	found, known := d.c.effects[in.ID]
	unlock()
	if known && version != 0 { // an earlier try that was not written down
		result = found.(R)
		return result, d.finish(ctx, in, r, result)
	}
	r.Tries++
	if err := d.store.Apply(ctx, reconcile.Epoch(ctx), store.Put(cloud.IntentKind, in.ID, version, r)); err != nil {
		return result, err
	}
	unlock = d.c.lock()
	d.c.calls[op]++
	err = nil
	if d.c.Fail != nil {
		err = d.c.Fail(op, in.Object)
	}
	if err == nil {
		result, err = call()
	}
	if err == nil {
		d.c.effects[in.ID] = result
		if makes {
			d.c.made[in.ID]++
		}
	}
	unlock()
	if err != nil {
		return result, err
	}
	return result, d.finish(ctx, in, r, result)
}

func (d *Driver) finish(ctx context.Context, in cloud.Intent, r cloud.IntentRecord, result any) error {
	var err error
	if r.Result, err = json.Marshal(result); err != nil {
		return err
	}
	r.Done = true
	return d.store.Apply(context.WithoutCancel(ctx), reconcile.Epoch(ctx), store.Put(cloud.IntentKind, in.ID, store.Any, r))
}

// PruneIntents implements the driver's.
func (d *Driver) PruneIntents(ctx context.Context, object string) error {
	records, err := d.store.List(ctx, cloud.IntentKind, object+"/")
	if err != nil {
		return err
	}
	var ws []store.Write
	for _, rec := range records {
		var r cloud.IntentRecord
		if err := json.Unmarshal(rec.Body, &r); err != nil {
			return err
		}
		if r.Object == object && r.Done {
			ws = append(ws, store.Delete(cloud.IntentKind, rec.Name, rec.Version))
		}
	}
	if len(ws) == 0 {
		return nil
	}
	return d.store.Apply(ctx, reconcile.Epoch(ctx), ws...)
}

func marked(in cloud.Intent, tags cloud.Tags) map[string]string {
	out := map[string]string{}
	maps.Copy(out, tags)
	out[cloud.TagOwner], out[cloud.TagIntent] = owner, in.ID
	if out[cloud.TagObject] == "" {
		out[cloud.TagObject] = in.Object
	}
	return out
}

// Absent is the fault for what is not there.
func Absent(op, object string) error {
	return &fault.Error{Kind: fault.NotFound, Op: op, Object: object, Message: "it is not there", Err: cloud.ErrNotFound}
}
