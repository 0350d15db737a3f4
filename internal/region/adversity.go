package region

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	hvsim "github.com/dayfly-infra/dayfly/internal/region/hypervisor/sim"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// maxFreeze bounds how long the API can be frozen: whoever freezes it may die.
const maxFreeze = 10 * time.Minute

// outage is a zone that was taken away.
type outage struct{ Since time.Time }

// Zone is one of the region's zones, and whether it is lost.
type Zone struct {
	Name  string    `json:"name"`
	Lost  bool      `json:"lost"`
	Since time.Time `json:"since,omitzero"`
	Ended []string  `json:"ended,omitempty" doc:"instances that were killed now"`
}

// adversity is what goes wrong on purpose: zones that are lost, and an API
// that does not answer.
type adversity struct {
	zones *state.Table[outage] // by name; a lost zone stays lost when the daemon dies

	mu     sync.Mutex
	until  time.Time     // the API is frozen
	thawed chan struct{} // closed when it is not any more
}

// lostZones takes the zones that were lost when the daemon ended out again.
func (d *daemon) lostZones() (err error) {
	if d.bad.zones, err = state.NewTable[outage](d.db, "lost-zone"); err != nil {
		return err
	}
	d.db.View(func(tx *state.Tx) {
		for zone := range d.bad.zones.All(tx) {
			d.ec2.SetCapacity(zone, "", false)
		}
	})
	return nil
}

func (d *daemon) zoneNamed(op, zone string) error {
	if !slices.Contains(d.zones(), zone) {
		return &fault.Error{Kind: fault.Invalid, Op: op, Object: zone, Message: "there is no such zone", Hint: "there are " + strings.Join(d.zones(), ", ")}
	}
	return nil
}

// setZone takes a zone away, or gives it back. What runs there dies as in a
// power cut, without a word to anybody, and nothing can be launched there.
func (d *daemon) setZone(ctx context.Context, zone string, lost bool) (Zone, error) {
	z := Zone{Name: zone, Lost: lost}
	if err := d.zoneNamed("take a zone away", zone); err != nil {
		return z, err
	}
	err := d.db.Update(func(tx *state.Tx) error {
		if !lost {
			d.bad.zones.Delete(tx, zone)
			return nil
		}
		o, there := d.bad.zones.Get(tx, zone)
		if !there {
			o = outage{Since: d.clk.Now()}
			d.bad.zones.Put(tx, zone, o)
		}
		z.Since = o.Since
		return nil
	})
	if err != nil {
		return z, err
	}
	d.ec2.SetCapacity(zone, "", !lost)
	if !lost {
		return z, nil
	}
	// Those that were reserved a moment before come up meanwhile: a second look.
	for range 2 {
		is, err := d.livingIn(ctx, zone)
		if err != nil {
			return z, err
		}
		killed, err := d.kill(ctx, is...)
		z.Ended = append(z.Ended, killed...)
		if err != nil {
			return z, err
		}
		select {
		case <-ctx.Done():
			return z, ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
	}
	slices.Sort(z.Ended)
	z.Ended = slices.Compact(z.Ended)
	return z, nil
}

func (d *daemon) livingIn(ctx context.Context, zone string) ([]string, error) {
	r, err := wire.Call[ec2api.DescribeInstancesResult](ctx, d.bus, "ec2", "DescribeInstances", &ec2api.DescribeInstancesRequest{
		Filters: []*ec2api.Filter{{Name: "instance-state-name", Values: []string{"pending", "running"}}, {Name: "availability-zone", Values: []string{zone}}},
	})
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, res := range r.Reservations {
		for _, i := range res.Instances {
			ids = append(ids, i.InstanceId)
		}
	}
	return ids, nil
}

// kill ends instances as their hardware would: PID 1 is killed, and everything
// in an instance ends with it. Ids that do not run are passed over.
func (d *daemon) kill(ctx context.Context, ids ...string) (killed []string, err error) {
	if len(ids) == 0 {
		return nil, nil
	}
	all, err := d.hv.List(ctx)
	if err != nil {
		return nil, err
	}
	sim, simulated := d.hv.(*hvsim.Hypervisor)
	for _, s := range all {
		if !slices.Contains(ids, s.ID) {
			continue
		}
		switch {
		case simulated:
			err = sim.Kill(s.ID, "killed by signal 9")
		case s.PID > 1:
			err = syscall.Kill(s.PID, syscall.SIGKILL)
		default:
			continue
		}
		if err != nil && err != syscall.ESRCH {
			return killed, err
		}
		killed = append(killed, s.ID)
	}
	return killed, nil
}

func (d *daemon) zoneStates() (out []Zone) {
	d.db.View(func(tx *state.Tx) {
		for _, name := range d.zones() {
			o, lost := d.bad.zones.Get(tx, name)
			out = append(out, Zone{Name: name, Lost: lost, Since: o.Since})
		}
	})
	return out
}

// freeze lets every request to the AWS endpoint wait, those of instances as
// well, until so much time has passed; 0 ends it now.
func (a *adversity) freeze(now time.Time, long time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.thawed != nil {
		close(a.thawed)
		a.thawed, a.until = nil, time.Time{}
	}
	if long <= 0 {
		return
	}
	ch := make(chan struct{})
	a.thawed, a.until = ch, now.Add(long)
	time.AfterFunc(long, func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.thawed == ch {
			close(ch)
			a.thawed, a.until = nil, time.Time{}
		}
	})
}

// handler holds requests while the API is frozen.
func (a *adversity) handler(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for {
			a.mu.Lock()
			thawed := a.thawed
			a.mu.Unlock()
			if thawed == nil {
				next.ServeHTTP(w, r)
				return
			}
			select {
			case <-r.Context().Done():
				return
			case <-thawed:
			}
		}
	})
}

// adversities are the admin socket's ways to let things go wrong.
func (d *daemon) adversities(handle func(pattern string, f func(r *http.Request) (any, error))) {
	handle("GET /zones", func(*http.Request) (any, error) { return d.zoneStates(), nil })
	handle("POST /zones", func(r *http.Request) (any, error) {
		q := r.URL.Query()
		return d.setZone(d.internal(r.Context()), q.Get("zone"), q.Get("lost") != "false")
	})
	handle("POST /kill", func(r *http.Request) (any, error) {
		id := r.URL.Query().Get("instance")
		killed, err := d.kill(d.internal(r.Context()), id)
		if err == nil && len(killed) == 0 {
			err = &fault.Error{Kind: fault.NotFound, Op: "kill an instance", Object: id, Message: "no such instance runs", Hint: "dayfly instance list ENVIRONMENT"}
		}
		return struct{}{}, err
	})
	handle("POST /freeze", func(r *http.Request) (any, error) {
		long, err := time.ParseDuration(r.URL.Query().Get("for"))
		if err != nil || long < 0 || long > maxFreeze {
			return nil, &fault.Error{Kind: fault.Invalid, Op: "freeze the API", Object: r.URL.Query().Get("for"), Message: "the time must be a duration of " + maxFreeze.String() + " at most, such as 30s; 0s ends it"}
		}
		d.bad.freeze(d.clk.Now(), long)
		return struct{}{}, nil
	})
}
