package cloud

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/ec2"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

type epochKey struct{}

func openStore(t *testing.T) store.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), ":memory:", clock.Real{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func driver(t *testing.T, s store.Store, f *fakeAWS) *Driver {
	t.Helper()
	d, err := New(t.Context(), Config{
		Region: "local-1", Endpoint: "http://127.0.0.1:1", Credentials: credentials.NewStaticCredentialsProvider("AK", "SK", ""), HTTPClient: f,
		Owner: "test", Store: s, Epoch: func(ctx context.Context) int64 { e, _ := ctx.Value(epochKey{}).(int64); return e },
	})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

var thing = Intent{ID: "bake/4f2a/make/1", Object: "bake/4f2a"}

// steps are the kinds of mutating calls, each with what it may do at most once.
var steps = map[string]struct {
	do func(ctx context.Context, d *Driver) (any, error)
	// prepare makes what a deletion needs.
	prepare func(ctx context.Context, d *Driver) error
	effects map[string]int
	// again is the number of deliveries that the cloud may see, where it is
	// the receiver that makes it once-only.
	again map[string]int
}{
	"CreateStack": {
		do: func(ctx context.Context, d *Driver) (any, error) {
			return d.CreateStack(ctx, thing, StackInput{Name: "dayfly-test-a", Template: "{}", Parameters: map[string]string{"A": "1"}, Tags: Tags{TagDeadline: "2030-01-01T00:00:00Z"}})
		},
		effects: map[string]int{"CreateStack": 1},
	},
	"DeleteStack": {
		prepare: func(ctx context.Context, d *Driver) error {
			_, err := d.CreateStack(ctx, Intent{"x/1", "x"}, StackInput{Name: "dayfly-test-a", Template: "{}"})
			return err
		},
		do: func(ctx context.Context, d *Driver) (any, error) {
			return nil, d.DeleteStack(ctx, thing, "dayfly-test-a")
		},
		effects: map[string]int{"DeleteStack": 1},
	},
	"RunInstances": {
		do: func(ctx context.Context, d *Driver) (any, error) {
			return d.RunInstances(ctx, thing, InstanceInput{Image: "ami-1", Type: "t3.micro", Count: 2, UserData: "#!/bin/sh\n"})
		},
		effects: map[string]int{"RunInstances": 1},
	},
	"TerminateInstances": {
		prepare: func(ctx context.Context, d *Driver) error {
			_, err := d.RunInstances(ctx, Intent{"x/1", "x"}, InstanceInput{Image: "ami-1", Count: 2})
			return err
		},
		do: func(ctx context.Context, d *Driver) (any, error) {
			return nil, d.TerminateInstances(ctx, thing, "i-2", "i-1", "i-gone", "i-1")
		},
		effects: map[string]int{"TerminateInstances": 2},
	},
	"CreateImage": {
		do: func(ctx context.Context, d *Driver) (any, error) {
			return d.CreateImage(ctx, thing, "i-1", "web-4f2a", Tags{TagImage: "4f2a"})
		},
		effects: map[string]int{"CreateImage": 1},
	},
	"DeleteImage": {
		prepare: func(ctx context.Context, d *Driver) error {
			_, err := d.CreateImage(ctx, Intent{"x/1", "x"}, "i-1", "web-4f2a", nil)
			return err
		},
		do:      func(ctx context.Context, d *Driver) (any, error) { return nil, d.DeleteImage(ctx, thing, "ami-1") },
		effects: map[string]int{"DeregisterImage": 1, "DeleteSnapshot": 1},
	},
	"SendCommand": {
		do: func(ctx context.Context, d *Driver) (any, error) {
			return d.SendCommand(ctx, thing, Command{Instance: "i-1", Script: "echo hello", Comment: "greet"})
		},
		effects: map[string]int{"SendCommand": 1},
	},
}

// killer ends a "process" at its nth opportunity: around each write of the store
// and around each mutating request.
type killer struct {
	store.Store
	left   atomic.Int64
	cancel context.CancelFunc
	died   bool
}

var errKilled = errors.New("killed")

func (k *killer) moment() error {
	if k.died {
		return errKilled
	}
	if k.left.Add(-1) == 0 {
		k.died = true
		k.cancel()
		return errKilled
	}
	return nil
}

func (k *killer) Apply(ctx context.Context, epoch int64, writes ...store.Write) error {
	if err := k.moment(); err != nil {
		return err
	}
	if err := k.Store.Apply(ctx, epoch, writes...); err != nil {
		return err
	}
	return k.moment()
}

// A process that is killed anywhere between two writes or requests, and another
// that does the same step: the cloud sees the effect exactly once, and every
// later question gets the first answer without a request.
func TestKilledAnywhere(t *testing.T) {
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			for at := int64(1); ; at++ {
				s, f := openStore(t), newFake()
				if step.prepare != nil {
					if err := step.prepare(t.Context(), driver(t, s, f)); err != nil {
						t.Fatal(err)
					}
					clear(f.effects)
				}
				ctx, cancel := context.WithCancel(t.Context())
				k := &killer{Store: s, cancel: cancel}
				k.left.Store(at)
				moment := func(string) error { return k.moment() }
				f.before, f.after = moment, moment
				_, err := step.do(ctx, driver(t, k, f))
				cancel()
				f.before, f.after = nil, nil
				if !k.died {
					if err != nil {
						t.Fatal(err)
					}
					if at < 6 {
						t.Fatalf("only %d moments to die at", at-1)
					}
					return
				}
				if err == nil {
					t.Fatalf("killed at %d, and nobody was told", at)
				}
				result, err := step.do(t.Context(), driver(t, s, f))
				if err != nil {
					t.Fatalf("killed at %d: the next process: %v", at, err)
				}
				if !reflect.DeepEqual(f.effects, step.effects) {
					t.Fatalf("killed at %d: effects %v, want %v", at, f.effects, step.effects)
				}
				requests := len(f.requests)
				again, err := step.do(t.Context(), driver(t, s, f))
				if err != nil || !reflect.DeepEqual(again, result) {
					t.Fatalf("killed at %d: %v, then %v, %v", at, result, again, err)
				}
				if len(f.requests) != requests {
					t.Fatalf("killed at %d: a done intent made requests: %v", at, f.requests[requests:])
				}
			}
		})
	}
}

// A fenced process makes no call.
func TestFencedMakesNoCall(t *testing.T) {
	for name, step := range steps {
		t.Run(name, func(t *testing.T) {
			s, f := openStore(t), newFake()
			if step.prepare != nil {
				if err := step.prepare(t.Context(), driver(t, s, f)); err != nil {
					t.Fatal(err)
				}
				clear(f.effects)
			}
			if _, _, err := s.Acquire(t.Context(), "other", 1<<40); err != nil {
				t.Fatal(err)
			}
			_, err := step.do(context.WithValue(t.Context(), epochKey{}, int64(99)), driver(t, s, f))
			if !errors.Is(err, store.ErrFenced) || len(f.effects) != 0 {
				t.Errorf("effects %v, %v", f.effects, err)
			}
		})
	}
}

func TestChangedParametersNeedAnotherID(t *testing.T) {
	s, f := openStore(t), newFake()
	d := driver(t, s, f)
	in := StackInput{Name: "a", Template: "{}", Tags: Tags{TagDeadline: "1", TagImage: "x"}}
	if _, err := d.CreateStack(t.Context(), thing, in); err != nil {
		t.Fatal(err)
	}
	in.Tags = Tags{TagDeadline: "2", TagImage: "x"} // a longer lease is the same call
	if _, err := d.CreateStack(t.Context(), thing, in); err != nil {
		t.Error(err)
	}
	in.Template = "{ }"
	if _, err := d.CreateStack(t.Context(), thing, in); fault.KindOf(err) != fault.Internal {
		t.Error(err)
	}
	if err := d.DeleteStack(t.Context(), thing, "a"); fault.KindOf(err) != fault.Internal {
		t.Error("another operation:", err)
	}
	for _, bad := range []Intent{{}, {ID: "a b", Object: "x"}, {ID: "a"}, {ID: "x/" + strings.Repeat("x", 199), Object: "x"}, {ID: "xy/1", Object: "x"}, {ID: "y/x/1", Object: "x"}} {
		if _, err := d.CreateStack(t.Context(), bad, in); fault.KindOf(err) != fault.Internal {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

// A refusal has had no effect: the next try is another attempt with its own
// token. An answer that did not come may have had one: the token stays.
func TestTokens(t *testing.T) {
	s, f := openStore(t), newFake()
	d := driver(t, s, f)
	in := InstanceInput{Image: "ami-1", Count: 1}
	f.fail["RunInstances"] = fakeError{1, 400, "InsufficientInstanceCapacity", "no room in zone a"}
	_, err := d.RunInstances(t.Context(), thing, in)
	if !errors.Is(err, ErrCapacity) || fault.KindOf(err) != fault.Unavailable || fault.CodeOf(err) != "InsufficientInstanceCapacity" {
		t.Fatal(err)
	}
	r, _, err := store.Get[IntentRecord](t.Context(), s, IntentKind, thing.ID)
	if err != nil || r.Done || r.Attempt != 2 || r.Error == "" || r.Token != d.token(thing.ID, 2) || len(r.Token) != 64 {
		t.Fatalf("%+v, %v", r, err)
	}
	lost := errors.New("the answer was lost")
	ctx, cancel := context.WithCancel(t.Context())
	f.after = func(string) error { cancel(); return lost }
	if _, err := d.RunInstances(ctx, thing, in); err == nil {
		t.Fatal("no error")
	}
	f.after = nil
	r, _, _ = store.Get[IntentRecord](t.Context(), s, IntentKind, thing.ID)
	if r.Attempt != 2 {
		t.Fatalf("%+v", r)
	}
	ids, err := d.RunInstances(t.Context(), thing, in)
	if err != nil || len(ids) != 2 || f.effects["RunInstances"] != 1 {
		t.Errorf("%v, %v, effects %v", ids, err, f.effects)
	}
	if d.token("a", 1) == d.token("a", 2) || d.token("a", 1) == d.token("b", 1) {
		t.Error("tokens are not distinct")
	}
}

func TestNotOursIsNotTouched(t *testing.T) {
	s, f := openStore(t), newFake()
	d := driver(t, s, f)
	f.stacks["theirs"] = &fakeThing{id: "arn:stack/theirs", name: "theirs", tags: map[string]string{TagOwner: "somebody"}, state: "CREATE_COMPLETE"}
	f.instances["i-1"] = &fakeThing{id: "i-1", state: "running", tags: map[string]string{"Name": "db"}}
	f.images["ami-9"] = &fakeThing{id: "ami-9", name: "n", state: "available"}
	for name, err := range map[string]error{
		"stack":    d.DeleteStack(t.Context(), Intent{"a/1", "a"}, "theirs"),
		"instance": d.TerminateInstances(t.Context(), Intent{"a/2", "a"}, "i-1"),
		"image":    d.DeleteImage(t.Context(), Intent{"a/3", "a"}, "ami-9"),
	} {
		if fault.KindOf(err) != fault.Denied {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := d.CreateStack(t.Context(), Intent{"a/4", "a"}, StackInput{Name: "theirs", Template: "{}"}); fault.KindOf(err) != fault.Conflict {
		t.Error(err)
	}
	if len(f.effects) != 0 {
		t.Errorf("effects %v", f.effects)
	}
	stacks, err := d.Stacks(t.Context())
	if err != nil || len(stacks) != 0 {
		t.Errorf("stacks %v, %v", stacks, err)
	}
	// An instance of a stack of ours is ours.
	if _, err := d.CreateStack(t.Context(), Intent{"a/5", "a"}, StackInput{Name: "fleet", Template: "{}"}); err != nil {
		t.Fatal(err)
	}
	f.instances["i-1"].tags["aws:cloudformation:stack-name"] = "fleet"
	if err := d.TerminateInstances(t.Context(), Intent{"a/6", "a"}, "i-1"); err != nil {
		t.Error(err)
	}
}

// Every mutating operation is refused without an intent, whoever calls it.
func TestGuard(t *testing.T) {
	s, f := openStore(t), newFake()
	d := driver(t, s, f)
	_, err := d.ec2.TerminateInstances(t.Context(), &ec2.TerminateInstancesInput{InstanceIds: []string{"i-1"}})
	if fault.KindOf(err) != fault.Internal || !strings.Contains(err.Error(), "ec2:TerminateInstances") || len(f.requests) != 0 {
		t.Errorf("%v, requests %v", err, f.requests)
	}
	if _, err := d.ec2.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{}); err != nil {
		t.Error(err)
	}
}

func TestPruneIntents(t *testing.T) {
	s, f := openStore(t), newFake()
	d := driver(t, s, f)
	for i, object := range []string{"a", "a", "ab"} {
		if err := d.DeleteStack(t.Context(), Intent{fmt.Sprint(object, "/", i), object}, "none"); err != nil {
			t.Fatal(err)
		}
	}
	f.fail["CreateStack"] = fakeError{1, 400, "ValidationError", "bad template"}
	if _, err := d.CreateStack(t.Context(), Intent{"a/9", "a"}, StackInput{Name: "x", Template: "{}"}); fault.KindOf(err) != fault.Invalid {
		t.Fatal(err)
	}
	if err := d.PruneIntents(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	left, err := s.List(t.Context(), IntentKind, "")
	if err != nil || len(left) != 2 || left[0].Name != "a/9" || left[1].Name != "ab/2" {
		t.Errorf("%v, %v", left, err)
	}
	// The name of a pruned intent can be used again.
	if err := d.DeleteStack(t.Context(), Intent{"a/0", "a"}, "none"); err != nil {
		t.Error(err)
	}
}

// listing counts what is read of intents.
type listing struct {
	store.Store
	read int
}

func (l *listing) List(ctx context.Context, kind, prefix string) ([]store.Record, error) {
	rs, err := l.Store.List(ctx, kind, prefix)
	if kind == IntentKind {
		l.read += len(rs)
	}
	return rs, err
}

// What it costs to forget one object's intents does not grow with those of
// others, and many are forgotten in several writes.
func TestPruneIntentsReadsItsOwn(t *testing.T) {
	l := &listing{Store: openStore(t)}
	d := driver(t, l, newFake())
	var ws []store.Write
	for i := range 3000 {
		object := fmt.Sprint("o", i)
		if i >= 1200 {
			object = "run/r1"
		}
		ws = append(ws, store.Put(IntentKind, fmt.Sprintf("%s/x/%d", object, i), 0, IntentRecord{Object: object, Done: true}))
	}
	if err := l.Apply(t.Context(), store.NoEpoch, ws...); err != nil {
		t.Fatal(err)
	}
	if err := d.PruneIntents(t.Context(), "o7"); err != nil || l.read != 1 {
		t.Errorf("%d intents were read, and it has 1; %v", l.read, err)
	}
	if err := d.PruneIntents(t.Context(), "run/r1"); err != nil || l.read != 1801 {
		t.Errorf("%d intents were read: %v", l.read, err)
	}
	left, err := l.Store.List(t.Context(), IntentKind, "")
	if err != nil || len(left) != 1199 {
		t.Errorf("%d are left, %v", len(left), err)
	}
}

type limiter map[string]int

func (l limiter) Wait(_ context.Context, op string, n int) error { l[op] += n; return nil }

func (l limiter) Answered(op string, throttled bool) {
	if throttled {
		l["throttled "+op]++
	}
}

func TestLimiter(t *testing.T) {
	s, f := openStore(t), newFake()
	d := driver(t, s, f)
	l := limiter{}
	d.cfg.Limiter = l
	f.fail["RunInstances"] = fakeError{1, 503, "RequestLimitExceeded", "slow down"}
	if _, err := d.RunInstances(t.Context(), thing, InstanceInput{Image: "ami-1", Count: 5}); err != nil {
		t.Fatal(err)
	}
	if l["ec2:RunInstances"] != 10 || l["throttled ec2:RunInstances"] != 1 { // the retry counts too
		t.Errorf("%v", l)
	}
	if _, err := d.Instances(t.Context(), nil); err != nil || l["ec2:DescribeInstances"] != 1 { // by pages
		t.Errorf("%v %v", l, err)
	}
	if _, err := d.ec2.DescribeInstances(t.Context(), &ec2.DescribeInstancesInput{}); err != nil || l["ec2:DescribeInstances"+Unfiltered] != 1 {
		t.Errorf("%v %v", l, err)
	}
}
