package bake

import (
	"errors"
	"fmt"
	"strings"
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
	look     bool          // after a failure here there is something to look at, and to go on from
}

// order is the way of every bake that fails nowhere.
var order = []stage{
	{Inputs, "collecting what the builder needs", 5 * time.Minute, false},
	{Builder, "the builder's stack is being made", 10 * time.Minute, false},
	{Online, "the builder boots", 10 * time.Minute, false},
	{Fetch, "the builder is fetching its files", 5 * time.Minute, true},
	{Install, "Puppet's agent is being installed", 20 * time.Minute, true},
	{Converge, "Puppet runs until a run changes nothing", 0, true},
	{Seal, "the machine is being sealed", 5 * time.Minute, true},
	{Stop, "the builder is being stopped", 10 * time.Minute, true},
	{Snapshot, "the image is being made from the builder's disk", 2 * time.Hour, true},
	{Launch, "two fresh instances boot from the image", 10 * time.Minute, true},
	{Verify, "the checks run on two fresh instances", 15 * time.Minute, true},
	{Clean, "the builder is going away", 0, false},
}

// aside are the steps that only a failure leads to.
var aside = []stage{
	{Kept, "the bake failed; its builder is kept for a while", 0, false},
	{Resume, "the builder comes up again for another try", 30 * time.Minute, false},
}

func (s Step) stage() stage {
	for _, all := range [][]stage{order, aside} {
		for _, st := range all {
			if st.step == s {
				return st
			}
		}
	}
	return stage{}
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
	switch {
	case b.Step == Converge && b.Puppet <= 0:
		return time.Hour
	case b.Step == Converge:
		return b.Puppet
	case b.Step == Builder && len(b.Full) > 0:
		return roomLimit
	}
	return b.Step.stage().limit
}

// finding is what one look at a step gave.
type finding struct {
	done  bool          // the step has ended well
	why   string        // it has failed for good
	lost  bool          // and the builder with it
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
	case b.Step == Kept:
		if b.Cancel || b.Again || !now.Before(b.Until) {
			return b.enter(Clean, now)
		}
	case b.Cancel:
		return b.fail("the bake was canceled", true, now)
	case f.why != "":
		return b.fail(f.why, f.lost, now)
	case err != nil && (permanent(err) || noRoom(err)):
		return b.fail(err.Error(), false, now)
	case err == nil && f.done && b.Step == Resume:
		to := b.To
		b.Try, b.FailedAt, b.To = b.Try+1, "", ""
		return b.enter(to, now)
	case err == nil && f.done:
		return b.enter(after(b.Step), now)
	case limit > 0 && now.Sub(b.Since) > limit:
		// The look came first: after a long stop of this process what is
		// waited for may be there.
		why := fmt.Sprintf("it took longer than %s: %s", limit, b.Sentence)
		if err != nil {
			why += "; " + err.Error()
		}
		return b.fail(why, false, now)
	}
	return b
}

// enter goes on to another step.
func (b Bake) enter(to Step, now time.Time) Bake {
	b.Steps = append(b.Steps[:len(b.Steps):len(b.Steps)], Timing{Step: b.Step, Seconds: now.Sub(b.Since).Seconds()})
	b.Step, b.Since, b.Sentence = to, now, to.stage().sentence
	b.Blocker = &blocker.Blocker{Rule: "baking", On: b.object(), Message: b.Sentence, Since: now}
	if limit := b.limit(); limit > 0 {
		b.Blocker.Until = now.Add(limit)
	}
	return b
}

// fail ends a try: what is worth a look is kept for a while.
func (b Bake) fail(why string, lost bool, now time.Time) Bake {
	why = b.diskFull(why)
	if b.Step != Resume { // where it failed before is where it can go on
		b.FailedAt = b.Step
	}
	b.Error = why
	if b.Step.stage().look && !lost && b.Keep > 0 {
		b = b.enter(Kept, now)
		b.Until = now.Add(b.Keep)
		b.Blocker = &blocker.Blocker{Rule: "kept", On: b.object(), Message: firstLine(why) + "; the builder is kept", Since: now, Until: b.Until, Action: b.Advice()}
		return b
	}
	b = b.enter(Clean, now)
	b.Sentence = "the bake failed; what it made is going away"
	b.Blocker.Message = b.Sentence
	return b
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// permanent tells whether repeating cannot help.
func permanent(err error) bool {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.Denied, fault.Failed, fault.NotFound, fault.Conflict:
		return !errors.Is(err, store.ErrFenced) && !errors.Is(err, store.ErrConflict)
	}
	return false
}
