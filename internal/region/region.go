package region

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/cloudformationapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/cloudwatchapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
	"github.com/dayfly-infra/dayfly/internal/region/api/iamapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ssmapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/stsapi"
	"github.com/dayfly-infra/dayfly/internal/region/autoscaling"
	"github.com/dayfly-infra/dayfly/internal/region/balancer"
	"github.com/dayfly-infra/dayfly/internal/region/balancer/haproxy"
	"github.com/dayfly-infra/dayfly/internal/region/cfn"
	"github.com/dayfly-infra/dayfly/internal/region/cloudwatch"
	"github.com/dayfly-infra/dayfly/internal/region/dns"
	"github.com/dayfly-infra/dayfly/internal/region/ec2"
	"github.com/dayfly-infra/dayfly/internal/region/elb"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/oci"
	"github.com/dayfly-infra/dayfly/internal/region/iam"
	"github.com/dayfly-infra/dayfly/internal/region/imds"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/network/kernel"
	"github.com/dayfly-infra/dayfly/internal/region/s3"
	"github.com/dayfly-infra/dayfly/internal/region/ssm"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/sts"
	"github.com/dayfly-infra/dayfly/internal/region/throttle"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// stopGrace is how long an instance has to end by itself.
const stopGrace = 5 * time.Second

// daemon is a region that is wired.
type daemon struct {
	cfg  Config
	id   identity
	clk  clock.Clock
	db   *state.DB
	bus  *wire.Bus
	hv   hypervisor.Hypervisor
	net  fabric
	vpcs *vpcs
	lb   balancer.Balancer
	dns  *dns.Resolver
	ec2  *ec2.Service
	asg  *autoscaling.Service
	elb  *elb.Service
	cfn  *cfn.Service
	ssm  *ssm.Service
	iam  *iam.Service
	cw   *cloudwatch.Service
	api  *http.Server

	objects http.Handler
	bad     adversity

	stop  context.CancelFunc // of the loops
	loops sync.WaitGroup
}

// Run is the region; it returns when ctx ends. What runs in it goes on.
func Run(ctx context.Context, cfg Config) error {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400) // small heaps, and 45 instances at once to see to
	}
	if !cfg.Simulate {
		if err := Preflight(); err != nil {
			return err
		}
	}
	if err := cfg.fill(); err != nil {
		return err
	}
	// The address first: what fails here must leave nothing in the kernel.
	l, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return &fault.Error{Kind: fault.Conflict, Op: "start the region", Object: cfg.Listen, Message: "the address of the AWS endpoint cannot be used", Hint: "choose another: dayfly region start --listen 127.0.0.1:PORT", Err: err}
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		l.Close()
		return &fault.Error{Kind: fault.Invalid, Op: "start the region", Object: cfg.Listen, Message: "the endpoint speaks without TLS and listens on loopback only"}
	}
	if _, port, _ := net.SplitHostPort(cfg.Listen); port == "0" {
		cfg.Listen = l.Addr().String() // the system chose one, and clients must hear of it
	}
	d, err := open(cfg)
	if err != nil {
		l.Close()
		return err
	}
	defer d.close()
	var raised []string
	if !cfg.Simulate {
		if raised, err = raiseLimits(); err != nil {
			l.Close()
			return err
		}
	}
	for _, change := range append(raised, d.net.HostChanges()...) {
		cfg.Progress("on this host: " + change)
	}
	if err := d.bases(ctx); err != nil {
		l.Close()
		return err
	}
	if err := d.ec2.Adopt(d.internal(ctx)); err != nil {
		l.Close()
		return fmt.Errorf("adopt what runs: %w", err)
	}
	loops, stop := context.WithCancel(ctx)
	d.stop = stop
	for name, run := range map[string]func(context.Context) error{"ec2": d.ec2.Run, "autoscaling": d.asg.Run, "elb": d.elb.Run, "cloudformation": d.cfn.Run, "ssm": d.ssm.Run, "cloudwatch": d.cw.Run} {
		d.loops.Go(func() {
			if err := run(loops); err != nil && loops.Err() == nil {
				cfg.Log.Error("a service's loop ended", "service", name, "error", err)
			}
		})
	}
	admin, err := d.admin(filepath.Join(cfg.Dir, "admin.sock"))
	if err != nil {
		l.Close()
		stop()
		d.loops.Wait()
		return err
	}
	go func() {
		<-ctx.Done()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 3*time.Second)
		defer cancel()
		_ = admin.Shutdown(end)
		_ = d.api.Shutdown(end)
	}()
	cfg.Log.Info("the region runs", "endpoint", "http://"+cfg.Listen, "account", d.id.Account, "internet", d.id.Internet.String())
	err = d.api.Serve(l)
	stop()
	d.loops.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func open(cfg Config) (d *daemon, err error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.RunDir, 0o700); err != nil {
		return nil, err
	}
	if _, err := os.Stat(cfg.Guest); err != nil && !cfg.Simulate {
		return nil, &fault.Error{Kind: fault.Failed, Op: "start the region", Object: cfg.Guest, Message: "dayfly-guest is not beside dayfly", Hint: "make build makes both"}
	}
	d = &daemon{cfg: cfg, clk: clock.Real{}, bus: wire.NewBus()}
	defer func() {
		if err != nil {
			d.close()
			d = nil
		}
	}()
	if d.id, err = cfg.identity(); err != nil {
		return d, err
	}
	if d.db, err = state.Open(filepath.Join(cfg.Dir, "region.db")); err != nil {
		return d, err
	}
	if cfg.Simulate {
		if err := d.simulate(); err != nil {
			return d, err
		}
		return d, d.services()
	}
	// Through variables of their own types: a nil one in an interface is not nil.
	hv, err := oci.New(cfg.hypervisor(d.id))
	if err != nil {
		return d, err
	}
	d.hv = hv
	n, err := kernel.New(cfg.network(d.id))
	if err != nil {
		return d, err
	}
	d.net = n
	lb, err := haproxy.New(cfg.balancer(n))
	if err != nil {
		return d, err
	}
	d.lb = lb
	return d, d.services()
}

func (c *Config) hypervisor(id identity) oci.Config {
	return oci.Config{Dir: filepath.Join(c.Dir, "hypervisor"), RunDir: filepath.Join(c.RunDir, "i"), Prefix: id.Prefix, GuestPath: c.Guest, Runtime: c.Runtime, Log: c.Log}
}

func (c *Config) network(id identity) kernel.Config {
	return kernel.Config{Prefix: id.Prefix, RunDir: filepath.Join(c.RunDir, "net"), Internet: id.Internet, Log: c.Log}
}

func (c *Config) balancer(n *kernel.Network) haproxy.Config {
	return haproxy.Config{RunDir: filepath.Join(c.RunDir, "lb"), NetNS: n.NetNS, Log: c.Log}
}

func (d *daemon) zones() []string {
	return []string{d.cfg.Region + "a", d.cfg.Region + "b", d.cfg.Region + "c"}
}

func (d *daemon) services() (err error) {
	cfg, id := d.cfg, d.id
	zones := d.zones()
	if d.iam, err = iam.New(iam.Config{Account: id.Account, Region: cfg.Region, AccessKeyID: id.AccessKeyID, SecretAccessKey: id.SecretAccessKey}, d.db, d.clk); err != nil {
		return err
	}
	objects, err := s3.New(filepath.Join(cfg.Dir, "s3"), d.db, d.clk)
	if err != nil {
		return err
	}
	objects.Policy, objects.Log = d.iam, cfg.Log
	d.objects = objects
	srv := wire.NewServer(d.bus, d.iam, d.iam, cfg.Log, d.clk)
	srv.Region, srv.Objects = cfg.Region, objects
	if cfg.Limits == "aws" {
		srv.Limiter = throttle.New(d.clk)
	}
	d.api = webServer(d.bad.handler(srv))
	key, err := imds.Key(d.db)
	if err != nil {
		return err
	}
	if d.dns, err = dns.New(dns.Config{Region: cfg.Region, Endpoint: network.EndpointAddr, Lookup: names{d}, Log: cfg.Log}); err != nil {
		return err
	}
	d.vpcs = &vpcs{
		Network: d.net, sockets: d.sockets(), balancer: d.lb, dns: d.dns, api: d.api, log: cfg.Log, open: map[string][]interface{ Close() error }{},
		imds: func(vpc string) http.Handler {
			return imds.Handler(vpc, metadata{d}, imds.Options{Key: key, Clock: d.clk})
		},
	}
	if d.ec2, err = ec2.New(ec2.Config{
		Account: id.Account, Region: cfg.Region, Zones: zones, Hypervisor: d.hv, Network: d.vpcs, DB: d.db, Clock: d.clk, Log: cfg.Log, Bus: d.bus,
		Endpoint: "http://" + network.EndpointAddr.String(), StopGrace: stopGrace,
	}); err != nil {
		return err
	}
	if err = d.lostZones(); err != nil {
		return err
	}
	if d.asg, err = autoscaling.New(autoscaling.Config{Account: id.Account, Region: cfg.Region, Zones: zones, DB: d.db, Bus: d.bus, Clock: d.clk, Log: cfg.Log}); err != nil {
		return err
	}
	if d.elb, err = elb.New(elb.Config{Account: id.Account, Region: cfg.Region, Zones: zones, DB: d.db, Bus: d.bus, Clock: d.clk, Log: cfg.Log, Balancer: d.lb, Interfaces: cards{d.ec2}}); err != nil {
		return err
	}
	if d.ssm, err = ssm.New(ssm.Config{Account: id.Account, Region: cfg.Region, DB: d.db, Bus: d.bus, Guest: d.hv, Roles: d.iam, KeyFile: filepath.Join(cfg.Dir, "parameters.key"), Clock: d.clk, Log: cfg.Log}); err != nil {
		return err
	}
	if d.cfn, err = cfn.New(cfn.Config{Account: id.Account, Region: cfg.Region, Zones: zones, DB: d.db, Bus: d.bus, Clock: d.clk, Log: cfg.Log}); err != nil {
		return err
	}
	d.cw = cloudwatch.New(cloudwatch.Config{Source: counts{d.elb}, Clock: d.clk, Log: cfg.Log})
	d.bus.Register(ec2api.Model, d.ec2)
	d.bus.Register(autoscalingapi.Model, d.asg)
	d.bus.Register(elbv2api.Model, d.elb)
	d.bus.Register(ssmapi.Model, d.ssm)
	d.bus.Register(iamapi.Model, d.iam)
	d.bus.Register(stsapi.Model, sts.New(d.iam))
	d.bus.Register(cloudformationapi.Model, d.cfn)
	d.bus.Register(cloudwatchapi.Model, d.cw)
	return nil
}

// internal is the context of calls that the region makes for itself.
func (d *daemon) internal(ctx context.Context) context.Context {
	return wire.WithCaller(ctx, wire.Caller{Account: d.id.Account, ARN: "arn:aws:iam::" + d.id.Account + ":root", Service: "region"})
}

// close ends everything of this process and nothing of the region.
func (d *daemon) close() {
	if d.vpcs != nil {
		d.vpcs.closeAll()
	}
	if d.dns != nil {
		_ = d.dns.Close()
	}
	if d.lb != nil {
		_ = d.lb.Close()
	}
	if d.net != nil {
		_ = d.net.Close()
	}
	if d.hv != nil {
		_ = d.hv.Close()
	}
	if d.db != nil {
		_ = d.db.Close()
	}
}
