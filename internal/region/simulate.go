package region

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/balancer"
	lbsim "github.com/dayfly-infra/dayfly/internal/region/balancer/sim"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	hvsim "github.com/dayfly-infra/dayfly/internal/region/hypervisor/sim"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/network/kernel"
	netsim "github.com/dayfly-infra/dayfly/internal/region/network/sim"
	"github.com/dayfly-infra/dayfly/internal/region/play"
)

// fabric is a network with what the daemon wants of it beyond the port.
type fabric interface {
	network.Network
	AddHost(ctx context.Context, name string) (netns string, a netip.Addr, err error)
	RemoveHost(ctx context.Context, name string) error
	HostChanges() []string
	Teardown(ctx context.Context) error
}

// ether is the network in memory.
type ether struct{ *netsim.Network }

// HostChanges implements fabric: there are none.
func (ether) HostChanges() []string { return nil }

// Teardown implements fabric: what is in memory goes with the process.
func (ether) Teardown(context.Context) error { return nil }

// sockets are nil where the network is in memory.
func (d *daemon) sockets() sockets {
	if k, ok := d.net.(*kernel.Network); ok {
		return k
	}
	return nil
}

// simulate puts hypervisor, network and balancer into memory.
func (d *daemon) simulate() error {
	actor := &play.Actor{Bus: d.bus, Clock: d.clk, Log: d.cfg.Log, Caller: d.internal, Put: d.put}
	hv, err := hvsim.Open(hvsim.Config{Clock: d.clk, Dir: filepath.Join(d.cfg.Dir, "simulated"), BootDelay: d.cfg.Boot, Script: actor.Script, OnBoot: actor.Boot})
	if err != nil {
		return err
	}
	d.hv = hv
	d.net = ether{netsim.New(d.id.Internet)}
	lb := lbsim.New(d.clk)
	lb.Check = func(vpc string, _ balancer.Pool, s balancer.Server) error {
		if id, ok := d.ec2.InstanceByAddress(vpc, s.Address.Addr()); ok && d.hv.Ready(context.Background(), id) == nil {
			return nil
		}
		return errors.New("connection refused")
	}
	d.lb = lb
	return nil
}

// put writes an object as the region itself.
func (d *daemon) put(ctx context.Context, bucket, key string, body []byte) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://localhost/"+bucket+"/"+(&url.URL{Path: key}).EscapedPath(), bytes.NewReader(body))
	if err != nil {
		return err
	}
	w := &answer{status: http.StatusOK}
	d.objects.ServeHTTP(w, r)
	if w.status != http.StatusOK {
		return fmt.Errorf("put s3://%s/%s: HTTP status %d: %s", bucket, key, w.status, w.body.String())
	}
	return nil
}

// answer keeps the answer to a request that no network carried.
type answer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header {
	if a.header == nil {
		a.header = http.Header{}
	}
	return a.header
}
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

// simulatedBase registers a base image with nothing in it.
func (d *daemon) simulatedBase(ctx context.Context, name string) error {
	if parameters[name] == "" {
		known := []string{}
		for n := range parameters {
			known = append(known, n)
		}
		slices.Sort(known)
		return &fault.Error{Kind: fault.Invalid, Op: "start the region", Object: name, Message: "there is no such base image", Hint: "there are " + strings.Join(known, ", ")}
	}
	boot := hypervisor.BootSystemd
	if strings.HasSuffix(name, "-slim") {
		boot = hypervisor.BootGuest
	}
	id := fmt.Sprintf("ami-%x", sha256.Sum256([]byte("simulated "+name)))[:21]
	im, err := d.hv.ImportImage(ctx, id, boot, strings.NewReader(name))
	if err != nil {
		return err
	}
	if err := d.ec2.RegisterBase(d.internal(ctx), name+"-amd64", id, im); err != nil {
		return err
	}
	return d.ssm.SetPublic(ctx, parameters[name], id)
}
