package ec2

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	hypersim "github.com/dayfly-infra/dayfly/internal/region/hypervisor/sim"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

// reach is which states an instance can be in after one: the transitions, taken
// as often as one likes between two looks.
func reach(from string) map[string]bool {
	out := map[string]bool{from: true}
	todo := []string{from}
	for len(todo) > 0 {
		x := todo[0]
		todo = todo[1:]
		for _, n := range moves[x] {
			if !out[n] {
				out[n] = true
				todo = append(todo, n)
			}
		}
	}
	return out
}

// Whatever users ask for, machines do and crashes interrupt: states only ever
// follow the machine, no answer is a surprise, books and machines agree once
// all is quiet, and nothing is left in the end.
func TestStateMachine(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		plan := rapid.SliceOfN(rapid.IntRange(0, 99), 5, 40).Draw(rt, "plan")
		faults := rapid.SliceOfN(rapid.IntRange(0, 9), 1, 20).Draw(rt, "faults")
		var failure error
		synctest.Test(t, func(t *testing.T) { failure = play(t, plan, faults) })
		if failure != nil {
			rt.Fatal(failure)
		}
	})
}

func play(t *testing.T, plan, faults []int) error {
	var mu sync.Mutex
	next := 0
	fault := func() int {
		mu.Lock()
		defer mu.Unlock()
		next++
		return faults[next%len(faults)]
	}
	calm := false
	w := newWorld(t, func(_ *Config, h *hypersim.Config) {
		h.BootDelay = 10 * time.Millisecond
		h.Fault = func(hypervisor.Instance) (f hypersim.Fault) {
			mu.Lock()
			quiet := calm
			mu.Unlock()
			if quiet {
				return f
			}
			switch fault() {
			case 0:
				f.Create = errors.New("no memory")
			case 1:
				f.Slow = 3 * time.Second
			case 2:
				f.DieAfter = time.Millisecond
				f.Reason = "exited 0"
			case 3:
				f.DieAfter, f.Reason = 2*time.Second, "killed by signal 9"
			}
			return f
		}
	})
	defer w.close()
	x := w.site("10.0.0.0/16")
	w.net.Fail = func(op, _ string) error {
		mu.Lock()
		quiet := calm
		mu.Unlock()
		if !quiet && (op == "Attach" || op == "Detach") && fault() == 9 {
			return errors.New("the kernel is busy")
		}
		return nil
	}
	var ids, images []string
	last := map[string]string{}
	look := func() error {
		for _, id := range ids {
			now := w.state(id)
			if was, seen := last[id]; seen && now != "" && !reach(was)[now] {
				return fmt.Errorf("%s went from %s to %s", id, was, now)
			}
			last[id] = now
		}
		return nil
	}
	expected := func(err error, codes ...string) error {
		if err != nil && !slices.Contains(codes, code(err)) {
			return fmt.Errorf("surprise: %w", err)
		}
		return nil
	}
	for n, step := range plan {
		pick := func() []string {
			if len(ids) == 0 {
				return nil
			}
			return []string{ids[step%len(ids)]}
		}
		var err error
		switch {
		case step < 25 || len(ids) == 0:
			in := &ec2api.RunInstancesRequest{ImageId: baseAMI, InstanceType: "t3.nano", SubnetId: x.public, MinCount: new(int64(1)), MaxCount: new(int64(1 + step%3))}
			if step%2 == 0 {
				in.InstanceInitiatedShutdownBehavior = "terminate"
			}
			var r *ec2api.Reservation
			if r, err = w.s.RunInstances(w.ctx, in); err == nil {
				for _, i := range r.Instances {
					ids = append(ids, i.InstanceId)
				}
			}
		case step < 40:
			_, err = w.s.StopInstances(w.ctx, &ec2api.StopInstancesRequest{InstanceIds: pick()})
			err = expected(err, "IncorrectInstanceState")
		case step < 55:
			_, err = w.s.StartInstances(w.ctx, &ec2api.StartInstancesRequest{InstanceIds: pick()})
			err = expected(err, "IncorrectInstanceState")
		case step < 65:
			err = expected(w.s.RebootInstances(w.ctx, &ec2api.RebootInstancesRequest{InstanceIds: pick()}), "IncorrectInstanceState")
		case step < 75:
			var out *ec2api.CreateImageResult
			out, err = w.s.CreateImage(w.ctx, &ec2api.CreateImageRequest{InstanceId: pick()[0], Name: fmt.Sprintf("image %d", n)})
			if err == nil {
				images = append(images, out.ImageId)
			}
			err = expected(err, "IncorrectInstanceState")
		case step < 82:
			_, err = w.s.TerminateInstances(w.ctx, &ec2api.TerminateInstancesRequest{InstanceIds: pick()})
		case step < 88:
			_ = w.hyper.Kill(pick()[0], "killed by signal 9") // no such machine is fine
		case step < 92:
			w.restart()
		default:
			time.Sleep(time.Duration(step-90) * time.Second)
		}
		if err != nil {
			return fmt.Errorf("step %d: %w", n, err)
		}
		if err := look(); err != nil {
			return err
		}
	}
	mu.Lock()
	calm = true
	mu.Unlock()
	time.Sleep(3 * time.Minute) // longer than any retry waits
	synctest.Wait()
	if err := agree(w, images); err != nil {
		return err
	}
	var left []string
	for _, id := range ids {
		if w.state(id) != "" {
			left = append(left, id)
		}
	}
	if len(left) > 0 {
		if _, err := w.s.TerminateInstances(w.ctx, &ec2api.TerminateInstancesRequest{InstanceIds: left}); err != nil {
			return err
		}
	}
	for _, ami := range images {
		if _, err := w.s.DeregisterImage(w.ctx, &ec2api.DeregisterImageRequest{ImageId: ami, DeleteAssociatedSnapshots: new(true)}); err != nil {
			return err
		}
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	if err := look(); err != nil {
		return err
	}
	machines, _ := w.hyper.List(w.ctx)
	if d := w.disks(); len(machines) != 0 || len(d) != 1 {
		return fmt.Errorf("left: machines %v, disks %v", machines, d)
	}
	var cards, public int
	w.s.view(func(tx *state.Tx) { cards, public = w.s.cards.Len(tx), len(w.s.ix.public) })
	if cards != 1 || public != 1 || w.s.ix.live != 0 || w.s.ix.vcpus != 0 { // the NAT gateway's
		return fmt.Errorf("left: %d cards, %d public addresses, %d instances, %d vCPUs", cards, public, w.s.ix.live, w.s.ix.vcpus)
	}
	w.raze(x)
	return nil
}

// agree compares the books with the machines when all is quiet.
func agree(w *world, images []string) error {
	machines, err := w.hyper.List(w.ctx)
	if err != nil {
		return err
	}
	have := map[string]hypervisor.State{}
	for _, m := range machines {
		have[m.ID] = m.State
	}
	w.s.view(func(tx *state.Tx) {
		for id, i := range w.s.instances.All(tx) {
			want := map[string]hypervisor.State{running: hypervisor.Running, stopped: hypervisor.Stopped}[i.State]
			if i.State != running && i.State != stopped && i.State != terminated {
				err = fmt.Errorf("%s is still %s", id, i.State)
			}
			if have[id] != want || i.Reboot || len(i.Imaging) > 0 {
				err = fmt.Errorf("%s is %s (%+v), the machine %q", id, i.State, i, have[id])
			}
			if c, ok := w.s.cards.Get(tx, i.Card); ok == (i.State == terminated) || i.State == running && !c.Public.IsValid() {
				err = fmt.Errorf("%s is %s, its card %+v", id, i.State, c)
			}
			delete(have, id)
		}
		for _, ami := range images {
			if m, _ := w.s.images.Get(tx, ami); m.State == pending {
				err = fmt.Errorf("%s is still pending", ami)
			}
		}
	})
	if err == nil && len(have) > 0 {
		err = fmt.Errorf("machines that nobody knows: %v", have)
	}
	return err
}
