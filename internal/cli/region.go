package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/dayfly-infra/dayfly/internal/client"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region"
)

type regionCmd struct {
	Start     regionStartCmd     `cmd:"" help:"Start the region; the first time it makes the base images, which takes minutes."`
	Stop      regionStopCmd      `cmd:"" help:"Stop the region and take its networks down; refuses while instances run."`
	Status    regionStatusCmd    `cmd:"" help:"Say what runs in it."`
	Env       regionEnvCmd       `cmd:"" help:"Print the variables that point any AWS client at it: eval \"$(dayfly region env)\"."`
	Leftovers regionLeftoversCmd `cmd:"" help:"List every kernel object, process and mount on this machine that is the region's."`
	Host      regionHostCmd      `cmd:"" help:"Make a host on the region's internet, outside every VPC, to try things out."`
	Capacity  regionCapacityCmd  `cmd:"" help:"Take the room out of a zone, or give it back: launches there fail as AWS's do."`
	Zone      regionZoneCmd      `cmd:"" help:"Take a zone away, as a power cut does, or give it back; without a name, list the zones."`
	Freeze    regionFreezeCmd    `cmd:"" help:"Let the AWS endpoint answer nobody for a while."`
	Run       regionRunCmd       `cmd:"" hidden:"" help:"Be the region (service managers start this)."`
}

func (a *app) regionConfig() region.Config {
	return region.Config{Dir: a.RegionDir, Log: logger(a.err)}
}

func (a *app) regionDaemon(args ...string) daemon {
	return daemon{name: "region", dir: a.RegionDir, args: append([]string{"--region-dir", a.RegionDir, "region", "run"}, args...), limit: 30 * time.Minute,
		ready: func(ctx context.Context) error { _, err := a.regionStatus(ctx); return err }}
}

func (a *app) admin() *client.Client {
	return client.New(filepath.Join(a.RegionDir, "admin.sock"))
}

func (a *app) regionStatus(ctx context.Context) (region.Status, error) {
	var s region.Status
	err := a.admin().Get(ctx, "/status", nil, &s)
	return s, a.noRegion(err)
}

// noRegion says what is missing where nobody answers at the admin socket.
func (a *app) noRegion(err error) error {
	if fault.KindOf(err) == fault.Unavailable {
		return &fault.Error{Kind: fault.Unavailable, Op: "reach the region", Object: a.RegionDir, Message: "it does not run", Hint: "dayfly region start"}
	}
	return err
}

type regionStartCmd struct {
	Listen   string        `help:"Address of the AWS endpoint on this host." default:"127.0.0.1:4580"`
	Region   string        `help:"The region's name." default:"local-1"`
	Base     []string      `help:"Base images to have: debian-12, debian-12-slim." default:"debian-12,debian-12-slim"`
	Runtime  string        `help:"What starts instances: launch, Dayfly's own, or an OCI runtime such as runc. Without it, launch where this machine allows it (x86-64, cgroup v1), else runc."`
	Simulate bool          `help:"Play instances, networks and balancers in memory: no root, nothing runs, everything succeeds. To try the API and to test."`
	Boot     time.Duration `help:"How long a simulated instance boots." default:"1s"`
	Limits   string        `help:"Refuse requests that come faster than AWS takes them (aws), or take all (none)." enum:"aws,none" default:"none"`
}

func (c *regionStartCmd) args() []string {
	args := []string{"--listen", c.Listen, "--region", c.Region, "--limits", c.Limits}
	if c.Runtime != "" {
		args = append(args, "--runtime", c.Runtime)
	}
	if c.Simulate {
		args = append(args, "--simulate", "--boot", c.Boot.String())
	}
	for _, b := range c.Base {
		args = append(args, "--base", b)
	}
	return args
}

func (c *regionStartCmd) Run(ctx context.Context, a *app) error {
	if err := region.Preflight(); err != nil && !c.Simulate {
		return err
	}
	if err := a.regionDaemon(c.args()...).start(ctx, a); err != nil {
		return err
	}
	return regionStatusCmd{}.Run(ctx, a)
}

type regionRunCmd struct {
	Listen   string   `default:"127.0.0.1:4580"`
	Region   string   `default:"local-1"`
	Base     []string `default:"debian-12,debian-12-slim"`
	Runtime  string
	Simulate bool
	Boot     time.Duration `default:"1s"`
	Limits   string        `enum:"aws,none" default:"none"`
}

func (c *regionRunCmd) Run(ctx context.Context, a *app) error {
	lock, err := a.regionDaemon().hold()
	if err != nil {
		return err
	}
	defer lock.Close()
	cfg := a.regionConfig()
	cfg.Listen, cfg.Region, cfg.Bases, cfg.Runtime, cfg.Simulate, cfg.Boot = c.Listen, c.Region, c.Base, c.Runtime, c.Simulate, c.Boot
	cfg.Limits = c.Limits
	cfg.Progress = func(s string) { fmt.Fprintln(a.err, "progress:", s) }
	return region.Run(ctx, cfg)
}

type regionStopCmd struct {
	Force bool `help:"Terminate what runs, first."`
	Keep  bool `help:"Only end the daemon: instances, networks and balancers go on, and the next start adopts them."`
}

func (c *regionStopCmd) Run(ctx context.Context, a *app) error {
	d := a.regionDaemon()
	if d.pid() == 0 {
		if c.Keep {
			return nil
		}
		if err := region.Clean(ctx, a.regionConfig(), c.Force); err != nil {
			return err
		}
		return region.RemoveEmpty(a.regionConfig())
	}
	if !c.Keep {
		if err := a.admin().Post(ctx, "/teardown", url.Values{"force": {fmt.Sprint(c.Force)}}, nil, nil); err != nil {
			return err
		}
	}
	if err := d.stop(ctx); err != nil || c.Keep {
		return err
	}
	return region.RemoveEmpty(a.regionConfig())
}

type regionStatusCmd struct{}

func (regionStatusCmd) Run(ctx context.Context, a *app) error {
	s, err := a.regionStatus(ctx)
	if err != nil {
		return err
	}
	return a.print(s, func(w io.Writer) {
		fmt.Fprintf(w, "the region %s runs (process %d) at %s, account %s\n", s.Region, s.PID, s.Endpoint, s.Account)
		fmt.Fprintf(w, "  %d instances, %d images, %d VPCs, %d stacks\n", s.Instances, s.Images, s.VPCs, s.Stacks)
		for _, h := range s.HostChanges {
			fmt.Fprintln(w, "  on this host:", h)
		}
	})
}

type regionEnvCmd struct{}

func (regionEnvCmd) Run(a *app) error {
	env, err := region.Environment(a.RegionDir)
	if errors.Is(err, os.ErrNotExist) {
		return &fault.Error{Kind: fault.Unavailable, Op: "read the region's credentials", Object: a.RegionDir, Message: "the region was never started", Hint: "dayfly region start"}
	}
	if err != nil {
		return err
	}
	return a.print(env, func(w io.Writer) {
		for _, k := range []string{"AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "DAYFLY_FIGURES_PERIOD"} {
			fmt.Fprintf(w, "export %s=%s\n", k, env[k])
		}
	})
}

type regionLeftoversCmd struct{}

func (regionLeftoversCmd) Run(a *app) error {
	left, err := region.Leftovers(a.regionConfig())
	if err != nil {
		return err
	}
	if left == nil {
		left = []string{}
	}
	return a.print(left, func(w io.Writer) {
		for _, l := range left {
			fmt.Fprintln(w, l)
		}
	})
}

type regionHostCmd struct {
	Add regionHostAddCmd `cmd:"" help:"Make it; prints its network namespace and address."`
	Rm  regionHostRmCmd  `cmd:"" help:"Remove it."`
}

type regionHostAddCmd struct {
	Name string `arg:""`
}

func (c *regionHostAddCmd) Run(ctx context.Context, a *app) error {
	var raw json.RawMessage
	if err := a.admin().Post(ctx, "/hosts", url.Values{"name": {c.Name}}, nil, &raw); err != nil {
		return a.noRegion(err)
	}
	var h region.Host
	if err := json.Unmarshal(raw, &h); err != nil {
		return err
	}
	return a.print(h, func(w io.Writer) { fmt.Fprintln(w, h.NetNS, h.Address) })
}

type regionHostRmCmd struct {
	Name string `arg:""`
}

func (c *regionHostRmCmd) Run(ctx context.Context, a *app) error {
	return a.noRegion(a.admin().Delete(ctx, "/hosts?name="+url.QueryEscape(c.Name), nil))
}

type regionCapacityCmd struct {
	Zone string `arg:"" help:"Such as local-1a."`
	Type string `help:"Only for this instance type." placeholder:"TYPE"`
	Room bool   `help:"Whether there is room: --no-room, and --room again." negatable:"" required:""`
}

func (c *regionCapacityCmd) Run(ctx context.Context, a *app) error {
	q := url.Values{"zone": {c.Zone}, "type": {c.Type}, "room": {fmt.Sprint(c.Room)}}
	return a.noRegion(a.admin().Post(ctx, "/capacity", q, nil, nil))
}

type regionZoneCmd struct {
	Zone string `arg:"" optional:"" help:"Such as local-1a."`
	Lost *bool  `help:"Whether it is lost: --lost kills what runs there and refuses launches, --no-lost gives it back." negatable:""`
}

func (c *regionZoneCmd) Help() string {
	return "For example:\n\n  dayfly region zone local-1b --lost\n  dayfly region zone local-1b --no-lost"
}

func (c *regionZoneCmd) Run(ctx context.Context, a *app) error {
	var zones []region.Zone
	switch {
	case c.Zone == "" || c.Lost == nil:
		if err := a.admin().Get(ctx, "/zones", nil, &zones); err != nil {
			return a.noRegion(err)
		}
		if c.Zone != "" {
			zones = slices.DeleteFunc(zones, func(z region.Zone) bool { return z.Name != c.Zone })
		}
	default:
		var z region.Zone
		if err := a.admin().Post(ctx, "/zones", url.Values{"zone": {c.Zone}, "lost": {fmt.Sprint(*c.Lost)}}, nil, &z); err != nil {
			return a.noRegion(err)
		}
		zones = []region.Zone{z}
	}
	return a.print(zones, func(w io.Writer) {
		for _, z := range zones {
			if !z.Lost {
				fmt.Fprintf(w, "%s is there\n", z.Name)
				continue
			}
			fmt.Fprintf(w, "%s is lost since %s", z.Name, z.Since.Local().Format("15:04:05"))
			if len(z.Ended) > 0 {
				fmt.Fprintf(w, "; %d instances died", len(z.Ended))
			}
			fmt.Fprintln(w)
		}
	})
}

type regionFreezeCmd struct {
	For time.Duration `arg:"" help:"How long, ten minutes at most; 0s ends it."`
}

func (c *regionFreezeCmd) Help() string {
	return "Requests wait, those of instances as well, and are answered afterwards. For example:\n\n  dayfly region freeze 30s"
}

func (c *regionFreezeCmd) Run(ctx context.Context, a *app) error {
	return a.noRegion(a.admin().Post(ctx, "/freeze", url.Values{"for": {c.For.String()}}, nil, nil))
}
