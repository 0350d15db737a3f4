package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dayfly-infra/dayfly/internal/chaos"
	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/region"
	"github.com/dayfly-infra/dayfly/internal/server"
)

// chaosFlags are the leash, and what of this machine may be harmed.
type chaosFlags struct {
	Environments []string      `help:"Only these; production-like ones must be named here." placeholder:"NAME,..."`
	For          time.Duration `help:"How long what lasts does: lost zones, a frozen API, a cut box, a dead replica." default:"20s"`
	Replicas     []string      `help:"State folders of further servers on this machine." placeholder:"DIR,..."`
	Box          string        `help:"A file with the process id of a box on this machine." placeholder:"PIDFILE"`
	Limit        time.Duration `help:"How long to wait for full strength after each act." default:"5m"`
	DryRun       bool          `help:"Only say what would be done."`
	Why          string        `help:"Goes into the events and the audit log."`
}

type chaosCmd struct {
	Run chaosRunCmd `cmd:"" help:"Do so many acts at random, by a seed."`
	Do  chaosDoCmd  `cmd:"" help:"Do one act, by name."`
}

type chaosRunCmd struct {
	chaosFlags
	Seed  uint64        `help:"The same seed in the same world does the same." default:"1"`
	Acts  int           `help:"How many." default:"5"`
	Every time.Duration `help:"Between the end of one and the next." default:"30s"`
	Kinds []string      `help:"Of: kill-instance, lose-zone, cut-box, freeze-api, kill-server, kill-region, kill-replica." default:"kill-instance" placeholder:"KIND,..."`
	Hours string        `help:"Only between these hours of the day, such as 9-17." placeholder:"FROM-TO"`
}

func (*chaosRunCmd) Help() string {
	return "The server must allow it: dayfly server start --chaos. For example:\n\n  dayfly chaos run --environments shop-dev --kinds kill-instance,lose-zone --acts 10 --hours 9-17 --dry-run"
}

type chaosDoCmd struct {
	chaosFlags
	Kind        string `arg:"" help:"kill-instance, lose-zone, cut-box, freeze-api, kill-server, kill-region or kill-replica."`
	Environment string `help:"Of the instance."`
	Instance    string `help:"To kill."`
	Zone        string `help:"To lose."`
}

func (*chaosDoCmd) Help() string {
	return "The server must allow it: dayfly server start --chaos. For example:\n\n  dayfly chaos do lose-zone --zone local-1b --for 1m"
}

// harmed is a line of the report.
type harmed struct {
	Act   chaos.Act `json:"act"`
	Text  string    `json:"text"`
	At    time.Time `json:"at"`
	Done  bool      `json:"done"`  // false: only said
	Whole float64   `json:"whole"` // seconds until all environments on the leash were at full strength; -1 = not within the limit
	Error string    `json:"error,omitempty"`
}

func (c *chaosRunCmd) leash() (chaos.Leash, error) {
	l := chaos.Leash{Environments: c.Environments, Most: c.Acts, For: c.For}
	for _, k := range c.Kinds {
		l.Kinds = append(l.Kinds, chaos.Kind(k))
	}
	if c.Hours != "" {
		if _, err := fmt.Sscanf(c.Hours, "%d-%d", &l.From, &l.To); err != nil || l.From < 0 || l.From > 23 || l.To < 0 || l.To > 24 {
			return l, &fault.Error{Kind: fault.Invalid, Op: "chaos", Object: c.Hours, Message: "hours are FROM-TO", Hint: "such as --hours 9-17"}
		}
	}
	return l, nil
}

func (c *chaosRunCmd) Run(ctx context.Context, a *app) error {
	l, err := c.leash()
	if err != nil {
		return err
	}
	out := []harmed{}
	stopped := ""
	for done := 0; ; done++ {
		w, err := c.world(ctx, a)
		if err != nil {
			return err
		}
		w.Done = done
		act, why := chaos.Next(c.Seed, l, w)
		if act.Kind == "" {
			stopped = why
			break
		}
		h := c.harm(ctx, a, act)
		out = append(out, h)
		if h.Error != "" || ctx.Err() != nil {
			stopped = "an act failed: " + h.Error
			break
		}
		if c.DryRun || done+1 == c.Acts {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(c.Every):
		}
	}
	if err := a.harmedText(out, stopped); err != nil {
		return err
	}
	return failedHarm(out)
}

func (c *chaosDoCmd) Run(ctx context.Context, a *app) error {
	act := chaos.Act{Kind: chaos.Kind(c.Kind), Environment: c.Environment, Instance: c.Instance, Zone: c.Zone}
	switch act.Kind {
	case chaos.LoseZone, chaos.FreezeAPI:
		act.For = c.For
	case chaos.CutBox:
		if act.For = c.For; c.Box == "" {
			return missing(act, "it needs a box", "--box PIDFILE")
		}
	case chaos.KillReplica:
		if act.For = c.For; len(c.Replicas) != 1 {
			return missing(act, "it needs one replica", "--replicas DIR, the state folder of that server")
		}
		act.Replica = c.Replicas[0]
	}
	out := []harmed{c.harm(ctx, a, act)}
	if err := a.harmedText(out, ""); err != nil {
		return err
	}
	return failedHarm(out)
}

// missing is said before the server writes down an act that cannot be done.
func missing(act chaos.Act, message, hint string) error {
	return &fault.Error{Kind: fault.Invalid, Op: "chaos", Object: act.String(), Message: message, Hint: hint}
}

func failedHarm(out []harmed) error {
	for _, h := range out {
		if h.Error != "" {
			return &fault.Error{Kind: fault.Failed, Op: "chaos", Message: "an act failed"}
		}
		if h.Whole < 0 {
			return &fault.Error{Kind: fault.Failed, Op: "chaos", Object: h.Text, Message: "the environments are not at full strength again", Hint: "dayfly why says what they wait for"}
		}
	}
	return nil
}

func (a *app) harmedText(out []harmed, stopped string) error {
	return a.print(out, func(w io.Writer) {
		for _, h := range out {
			switch {
			case h.Error != "":
				fmt.Fprintf(w, "%s  %s: failed: %s\n", h.At.Local().Format("15:04:05"), h.Text, h.Error)
			case !h.Done:
				fmt.Fprintf(w, "would %s\n", h.Text)
			case h.Whole < 0:
				fmt.Fprintf(w, "%s  %s: not at full strength again\n", h.At.Local().Format("15:04:05"), h.Text)
			default:
				fmt.Fprintf(w, "%s  %s: full strength after %.1f s\n", h.At.Local().Format("15:04:05"), h.Text, h.Whole)
			}
		}
		if stopped != "" {
			fmt.Fprintln(w, "ended:", stopped)
		}
	})
}

// world is what can go wrong now, as the server and the region say it.
func (c *chaosFlags) world(ctx context.Context, a *app) (w chaos.World, err error) {
	w = chaos.World{Now: time.Now(), Box: c.Box != "", Replicas: c.Replicas}
	es, err := client.List[environment.Environment](ctx, a.client, "environments", "")
	if err != nil {
		return w, err
	}
	fs, err := client.List[instance.Fleet](ctx, a.client, "fleets", "")
	if err != nil {
		return w, err
	}
	is, err := client.List[instance.Instance](ctx, a.client, "instances", "")
	if err != nil {
		return w, err
	}
	for _, e := range es {
		if e.Phase == environment.Gone {
			continue
		}
		t := chaos.Target{Name: e.Name, Production: chaos.ProductionLike(e.Name, e.Purpose, e.Standing)}
		size := 0
		for _, f := range fs {
			if f.Environment == e.Name && f.Generation == e.Serving {
				size += f.Size
			}
		}
		for _, i := range is {
			if i.Environment == e.Name && i.Generation == e.Serving && i.State == instance.Serving {
				t.Serving = append(t.Serving, i.ID)
			}
		}
		// One of the whole fleet may go; the next when it is whole again.
		t.Floor = max(size-1, 0)
		w.Targets = append(w.Targets, t)
	}
	var zones []region.Zone
	if err := a.admin().Get(ctx, "/zones", nil, &zones); err == nil {
		w.Region = true
		for _, z := range zones {
			if z.Lost {
				w.Lost++
			} else {
				w.Zones = append(w.Zones, z.Name)
			}
		}
	}
	return w, nil
}

// harm asks the server, does what is not the server's to do, and waits until
// everything is at full strength again.
func (c *chaosFlags) harm(ctx context.Context, a *app, act chaos.Act) harmed {
	h := harmed{Act: act, Text: act.String(), At: time.Now()}
	fail := func(err error) harmed { h.Error = err.Error(); return h }
	in := server.Harm{Act: act, Named: strings.Join(c.Environments, ","), Why: c.Why, Dry: c.DryRun}
	if err := a.client.Post(ctx, "/v1/chaos", nil, in, nil); err != nil {
		if hint := fault.HintOf(err); hint != "" {
			err = fmt.Errorf("%w (%s)", err, hint)
		}
		return fail(err)
	}
	if c.DryRun {
		return h
	}
	h.Done = true
	a.progress().say(h.Text)
	if err := c.act(ctx, a, act); err != nil {
		return fail(err)
	}
	h.Whole = c.whole(ctx, a, act, h.At)
	return h
}

func (c *chaosFlags) act(ctx context.Context, a *app, act chaos.Act) error {
	last := func() { // whoever waits may be interrupted: what was taken away is given back all the same
		select {
		case <-ctx.Done():
		case <-time.After(act.For):
		}
	}
	after := context.WithoutCancel(ctx)
	switch act.Kind {
	case chaos.LoseZone:
		if err := a.admin().Post(ctx, "/zones", url.Values{"zone": {act.Zone}, "lost": {"true"}}, nil, nil); err != nil {
			return a.noRegion(err)
		}
		last()
		return a.admin().Post(after, "/zones", url.Values{"zone": {act.Zone}, "lost": {"false"}}, nil, nil)
	case chaos.FreezeAPI:
		if err := a.admin().Post(ctx, "/freeze", url.Values{"for": {act.For.String()}}, nil, nil); err != nil {
			return a.noRegion(err)
		}
		last()
		return a.admin().Post(after, "/freeze", url.Values{"for": {"0s"}}, nil, nil)
	case chaos.CutBox:
		raw, err := os.ReadFile(c.Box)
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(raw)))
		if err != nil || pid < 2 {
			return &fault.Error{Kind: fault.Invalid, Op: "cut the box off", Object: c.Box, Message: "it holds no process id"}
		}
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			return err
		}
		last()
		return syscall.Kill(pid, syscall.SIGCONT)
	case chaos.KillServer:
		return a.serverDaemon().killed(after, nil)
	case chaos.KillRegion:
		return a.regionDaemon().killed(after, nil)
	case chaos.KillReplica:
		b := *a
		r := *a.root
		r.State = act.Replica
		b.root = &r
		return b.serverDaemon().killed(after, last)
	}
	return nil
}

// killed kills a daemon with signal 9 and starts it with the arguments and the
// environment that it had, after what is to happen in between, if anything.
func (d daemon) killed(ctx context.Context, between func()) error {
	pid := d.pid()
	if pid == 0 {
		return &fault.Error{Kind: fault.NotFound, Op: "kill the " + d.name, Object: d.dir, Message: "it does not run here"}
	}
	line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return err
	}
	env, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return err
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return err
	}
	for d.pid() != 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
	if between != nil {
		between()
	}
	args := strings.Split(string(bytes.TrimRight(line, "\x00")), "\x00")
	log, err := os.OpenFile(filepath.Clean(d.logFile()), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = strings.Split(string(bytes.TrimRight(env, "\x00")), "\x00")
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	limit := time.Now().Add(d.limit)
	for d.ready(ctx) != nil {
		if time.Now().After(limit) {
			return &fault.Error{Kind: fault.Failed, Op: "start the " + d.name + " again", Object: d.dir, Message: "it does not answer", Hint: "its log is " + d.logFile()}
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil
}

// whole waits until every environment serves with all its instances again, and
// says after how many seconds; -1 if not within the limit. What was killed must
// have been noticed first.
func (c *chaosFlags) whole(ctx context.Context, a *app, act chaos.Act, since time.Time) float64 {
	for end := time.Now().Add(c.Limit); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(200 * time.Millisecond) {
		w, err := c.world(ctx, a)
		if err != nil {
			continue // the server may be starting
		}
		ok := time.Since(since) > time.Second
		for _, t := range w.Targets {
			ok = ok && len(t.Serving) > t.Floor
			for _, id := range t.Serving {
				ok = ok && id != act.Instance
			}
		}
		if ok {
			return time.Since(since).Seconds()
		}
	}
	return -1
}
