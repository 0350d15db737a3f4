package bake

import (
	"errors"
	"fmt"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// stage is one step on the way to an image.
type stage struct {
	step     Step
	sentence string        // what is going on, for people
	limit    time.Duration // how long it may take; 0 = the record says
}

// order is the way of every bake that fails nowhere.
var order = []stage{
	{Inputs, "collecting what the builder needs", 5 * time.Minute},
	{Builder, "the builder's stack is being made", 10 * time.Minute},
	{Online, "the builder boots", 10 * time.Minute},
	{Fetch, "the builder is fetching its files", 5 * time.Minute},
	{Install, "Puppet's agent is being installed", 20 * time.Minute},
	{Converge, "Puppet runs until a run changes nothing", 0},
	{Seal, "the machine is being sealed", 5 * time.Minute},
	{Stop, "the builder is being stopped", 10 * time.Minute},
	{Snapshot, "the image is being made from the builder's disk", 2 * time.Hour},
	{Launch, "two fresh instances boot from the image", 10 * time.Minute},
	{Verify, "the checks run on two fresh instances", 15 * time.Minute},
	{Clean, "the builder is going away", 0},
}

// after is the step that follows in the order.
func after(s Step) Step {
	for i, st := range order[:len(order)-1] {
		if st.step == s {
			return order[i+1].step
		}
	}
	return Done
}

// limit is how long the step that the bake is in may take; 0 is for ever.
func (b Bake) limit() time.Duration {
	if b.Step == Converge {
		if b.Puppet <= 0 {
			return time.Hour
		}
		return b.Puppet
	}
	for _, st := range order {
		if st.step == b.Step {
			return st.limit
		}
	}
	return 0
}

// finding is what one look at a step gave.
type finding struct {
	done  bool          // the step has ended well
	why   string        // it has failed for good
	learn func(*Bake)   // goes into the record, whatever else was found
	wait  time.Duration // until the next look; 0 = the loop's pace
}

func failed(format string, args ...any) finding { return finding{why: fmt.Sprintf(format, args...)} }

// decide is the whole choice of a bake's way: the record that follows from what
// a look at its step found, or from the error that it ended with. It is pure.
func decide(b Bake, f finding, err error, now time.Time) Bake {
	if b.Step == Clean || b.Step == Done {
		return b
	}
	if f.learn != nil {
		f.learn(&b)
	}
	limit := b.limit()
	switch {
	case b.Cancel:
		return b.fail("the bake was canceled", now)
	case f.why != "":
		return b.fail(f.why, now)
	case err != nil && permanent(err):
		return b.fail(err.Error(), now)
	case err == nil && f.done:
		return b.enter(after(b.Step), now)
	case limit > 0 && now.Sub(b.Since) > limit:
		// The look came first: after a long stop of this process what is
		// waited for may be there.
		why := fmt.Sprintf("it took longer than %s: %s", limit, b.Sentence)
		if err != nil {
			why += "; " + err.Error()
		}
		return b.fail(why, now)
	}
	return b
}

// enter goes on to another step.
func (b Bake) enter(to Step, now time.Time) Bake {
	b.Steps = append(b.Steps[:len(b.Steps):len(b.Steps)], Timing{Step: b.Step, Seconds: now.Sub(b.Since).Seconds()})
	b.Step, b.Since, b.Sentence = to, now, ""
	for _, st := range order {
		if st.step == to {
			b.Sentence = st.sentence
		}
	}
	b.Blocker = &blocker.Blocker{Rule: "baking", On: b.object(), Message: b.Sentence, Since: now}
	if limit := b.limit(); limit > 0 {
		b.Blocker.Until = now.Add(limit)
	}
	return b
}

func (b Bake) fail(why string, now time.Time) Bake {
	b.Error, b.FailedAt = why, b.Step
	b = b.enter(Clean, now)
	b.Sentence = "the bake failed; what it made is going away"
	b.Blocker.Message = b.Sentence
	return b
}

// permanent tells whether repeating cannot help.
func permanent(err error) bool {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.Denied, fault.Failed, fault.NotFound, fault.Conflict:
		return !errors.Is(err, store.ErrFenced) && !errors.Is(err, store.ErrConflict)
	}
	return false
}
