package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/operation"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// IntentKind is the kind of the intents' records; they are named by Intent.ID.
const IntentKind = "intent"

// IntentRecord is what is durable of a mutating call: written before it, with
// everything that finds its result again, and completed after it.
type IntentRecord struct {
	Op      string          `json:"op"`           // ec2:RunInstances
	Of      string          `json:"of,omitempty"` // id of the operation that it is part of
	Object  string          `json:"object"`
	Token   string          `json:"token"`  // client token
	Digest  string          `json:"digest"` // of the input
	Attempt int             `json:"attempt"`
	Tries   int             `json:"tries"` // calls that were begun
	Plan    json.RawMessage `json:"plan,omitempty"`
	Begun   time.Time       `json:"begun"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   string          `json:"error,omitempty"` // of the last try
	Done    bool            `json:"done"`
	Ended   time.Time       `json:"ended,omitzero"`
}

// intentForm is what a tag value may hold, so that an ID can be one.
var intentForm = regexp.MustCompile(`^[A-Za-z0-9+=._:/@-]{1,200}$`)

// formed tells whether an intent's ID is found again by its object.
func (in Intent) formed() bool {
	return in.Object != "" && intentForm.MatchString(in.ID) && strings.HasPrefix(in.ID, in.Object+"/")
}

// action is a mutating call for perform.
type action[R any] struct {
	op    string
	input any           // everything that tells this call from another
	count int           // things that it makes or ends, for the limiter; 0 is 1
	slow  time.Duration // more time than other calls have
	// plan reads what the call will need and what is gone after it; it is kept
	// in the record. Optional.
	plan func(ctx context.Context) (any, error)
	// find looks for the effect of an earlier try.
	find func(ctx context.Context, r *IntentRecord) (result R, found bool, err error)
	call func(ctx context.Context, r *IntentRecord) (R, error)
}

// perform runs an action once in the life of its intent (law 3). The record is
// durable before the call; a call whose end was not recorded is searched for
// before it is made again, with the same token.
func perform[R any](ctx context.Context, d *Driver, in Intent, a action[R]) (result R, err error) {
	internal := func(message string, err error) error {
		return &fault.Error{Kind: fault.Internal, Op: a.op, Object: in.ID, Message: message, Err: err}
	}
	if !in.formed() {
		return result, internal("the intent needs an object, and an ID of at most 200 letters, digits and +=._:/@- that begins with the object and a slash", nil)
	}
	digest, err := digestOf(a.op, a.input)
	if err != nil {
		return result, internal("the input cannot be kept", err)
	}
	if !d.begin(in.ID) {
		return result, &fault.Error{Kind: fault.Conflict, Op: a.op, Object: in.ID, Message: "this intent is being carried out at this moment"}
	}
	defer d.end(in.ID)

	record, version, err := store.Get[IntentRecord](ctx, d.cfg.Store, IntentKind, in.ID)
	known := err == nil
	switch {
	case errors.Is(err, store.ErrNotFound):
		record = IntentRecord{Op: a.op, Of: operation.Of(ctx), Object: in.Object, Digest: digest, Attempt: 1, Token: d.token(in.ID, 1), Begun: d.cfg.Clock.Now().UTC()}
	case err != nil:
		return result, fmt.Errorf("intent %s: %w", in.ID, err)
	case record.Op != a.op || record.Digest != digest:
		return result, internal("the intent was begun as "+record.Op+" with other parameters: changed parameters need another ID", nil)
	case record.Done:
		if err := json.Unmarshal(record.Result, &result); err != nil {
			return result, internal("the kept result cannot be read", err)
		}
		return result, nil
	}
	call, cancel := context.WithTimeout(ctx, callTimeout+a.slow)
	defer cancel()
	if known {
		result, found, err := a.find(call, &record)
		if err != nil {
			return result, err
		}
		if found {
			return result, d.finish(ctx, in, version, &record, result)
		}
	}
	if a.plan != nil && record.Plan == nil {
		plan, err := a.plan(call)
		if err != nil {
			return result, err
		}
		if record.Plan, err = json.Marshal(plan); err != nil {
			return result, internal("the plan cannot be kept", err)
		}
	}
	// Written before every try: also the proof that this process still owns
	// the work.
	record.Tries++
	d.cfg.Log.InfoContext(ctx, "changes the cloud", "call", a.op, "intent", in.ID, "try", record.Tries)
	if version, err = d.write(ctx, in, version, &record); err != nil {
		return result, err
	}
	made := &act{}
	if a.count == 0 {
		a.count = 1
	}
	result, err = a.call(counted(context.WithValue(call, actKey{}, made), a.count), &record)
	if err != nil {
		record.Error = err.Error()
		if definite(err, made.requests) {
			// Nothing came of it: the next try is another attempt, with a
			// token of its own.
			record.Attempt++
			record.Token = d.token(in.ID, record.Attempt)
			if _, werr := d.write(ctx, in, version, &record); werr != nil {
				d.cfg.Log.Debug("the failure of a call was not recorded", "intent", in.ID, "error", werr)
			}
		}
		return result, err
	}
	return result, d.finish(ctx, in, version, &record, result)
}

func (d *Driver) finish(ctx context.Context, in Intent, version int64, r *IntentRecord, result any) error {
	b, err := json.Marshal(result)
	if err != nil {
		return &fault.Error{Kind: fault.Internal, Op: r.Op, Object: in.ID, Message: "the result cannot be kept", Err: err}
	}
	r.Result, r.Done, r.Error, r.Ended = b, true, "", d.cfg.Clock.Now().UTC()
	// What has happened is written down even when the caller is being stopped.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, err = d.write(ctx, in, version, r)
	return err
}

func (d *Driver) write(ctx context.Context, in Intent, version int64, r *IntentRecord) (int64, error) {
	if err := d.cfg.Store.Apply(ctx, d.cfg.Epoch(ctx), store.Put(IntentKind, in.ID, version, r)); err != nil {
		return 0, fmt.Errorf("intent %s: %w", in.ID, err)
	}
	if version != 0 {
		return version + 1, nil
	}
	// A name that was used before goes on counting.
	w, err := d.cfg.Store.Get(ctx, IntentKind, in.ID)
	if err != nil {
		return 0, fmt.Errorf("intent %s: %w", in.ID, err)
	}
	return w.Version, nil
}

// token is the client token of an attempt: 64 hexadecimal digits.
func (d *Driver) token(id string, attempt int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%s\x00%d", d.cfg.Owner, id, attempt))
	return hex.EncodeToString(sum[:])
}

func digestOf(op string, input any) (string, error) {
	b, err := json.Marshal(input) // maps in the order of their keys
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(append([]byte(op+"\x00"), b...))
	return hex.EncodeToString(sum[:]), nil
}

func (d *Driver) begin(id string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.acting[id] {
		return false
	}
	d.acting[id] = true
	return true
}

func (d *Driver) end(id string) {
	d.mu.Lock()
	delete(d.acting, id)
	d.mu.Unlock()
}

// maxPruned is how many intents are forgotten in one write.
const maxPruned = 500

// PruneIntents forgets the done intents of an object that is gone. What was
// begun and not done stays: it may have had an effect. It reads that object's
// intents alone, which their names begin with.
func (d *Driver) PruneIntents(ctx context.Context, object string) error {
	records, err := d.cfg.Store.List(ctx, IntentKind, object+"/")
	if err != nil {
		return err
	}
	var writes []store.Write
	for _, r := range records {
		var i IntentRecord
		if err := json.Unmarshal(r.Body, &i); err != nil {
			return fmt.Errorf("intent %s: %w", r.Name, err)
		}
		if i.Object == object && i.Done {
			writes = append(writes, store.Delete(IntentKind, r.Name, r.Version))
		}
	}
	for part := range slices.Chunk(writes, maxPruned) {
		if err := d.cfg.Store.Apply(ctx, d.cfg.Epoch(ctx), part...); err != nil {
			return err
		}
	}
	return nil
}

// marked adds owner and intent to tags.
func (d *Driver) marked(in Intent, tags Tags) Tags {
	out := Tags{}
	for k, v := range tags {
		out[k] = v
	}
	out[TagOwner], out[TagIntent] = d.cfg.Owner, in.ID
	if out[TagObject] == "" {
		out[TagObject] = in.Object
	}
	return out
}

// identity of tags for a digest: a lease that was extended meanwhile changes
// the deadline and is still the same call.
func stable(tags Tags) Tags {
	out := Tags{}
	for k, v := range tags {
		if k != TagDeadline {
			out[k] = v
		}
	}
	return out
}

// notOurs is the refusal to end what Dayfly did not make (law 9).
func notOurs(op, object string) error {
	return &fault.Error{
		Kind: fault.Denied, Op: op, Object: object, Message: "it does not carry this installation's " + TagOwner + " tag, so it is not touched",
		Hint: "remove it with AWS's own tools if it is not needed",
	}
}
