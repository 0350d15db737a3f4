package region

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/cloudformationapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Status is what the region says of itself.
type Status struct {
	PID         int      `json:"pid"`
	Region      string   `json:"region"`
	Account     string   `json:"account"`
	Endpoint    string   `json:"endpoint"`
	Instances   int      `json:"instances"` // not terminated
	Images      int      `json:"images"`    // the account's own
	VPCs        int      `json:"vpcs"`
	Stacks      int      `json:"stacks"`
	Groups      int      `json:"groups"`
	HostChanges []string `json:"host_changes"`
}

// Host is a machine on the region's internet, outside every VPC.
type Host struct {
	NetNS   string     `json:"netns"` // path of its network namespace
	Address netip.Addr `json:"address"`
}

// admin serves what the command line asks for, on a socket of this user only.
func (d *daemon) admin(path string) (*http.Server, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, &fault.Error{Kind: fault.Failed, Op: "start the region", Object: path, Message: "its socket cannot be made", Hint: "the path may have about 100 characters: choose a shorter --region-dir", Err: err}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	m := http.NewServeMux()
	handle := func(pattern string, f func(r *http.Request) (any, error)) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			v, err := f(r)
			w.Header().Set("Content-Type", "application/json")
			if err != nil {
				w.WriteHeader(http.StatusConflict)
				v = map[string]string{"detail": err.Error(), "kind": string(fault.KindOf(err)), "hint": fault.HintOf(err)}
			}
			_ = json.NewEncoder(w).Encode(v)
		})
	}
	handle("GET /status", func(r *http.Request) (any, error) { return d.status(d.internal(r.Context())) })
	handle("POST /teardown", func(r *http.Request) (any, error) {
		return struct{}{}, d.teardown(d.internal(r.Context()), r.URL.Query().Get("force") == "true")
	})
	handle("POST /hosts", func(r *http.Request) (any, error) {
		ns, a, err := d.net.AddHost(r.Context(), r.URL.Query().Get("name"))
		return Host{ns, a}, err
	})
	handle("DELETE /hosts", func(r *http.Request) (any, error) {
		return struct{}{}, d.net.RemoveHost(r.Context(), r.URL.Query().Get("name"))
	})
	handle("POST /capacity", func(r *http.Request) (any, error) {
		q := r.URL.Query()
		if err := d.zoneNamed("set the capacity", q.Get("zone")); err != nil {
			return nil, err
		}
		d.ec2.SetCapacity(q.Get("zone"), q.Get("type"), q.Get("room") != "false")
		return struct{}{}, nil
	})
	d.adversities(handle)
	s := webServer(m)
	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			d.cfg.Log.Error("the admin socket ended", "error", err)
		}
	}()
	return s, nil
}

// living are the instances that are not terminated.
func (d *daemon) living(ctx context.Context) ([]string, error) {
	r, err := wire.Call[ec2api.DescribeInstancesResult](ctx, d.bus, "ec2", "DescribeInstances", &ec2api.DescribeInstancesRequest{
		Filters: []*ec2api.Filter{{Name: "instance-state-name", Values: []string{"pending", "running", "stopping", "stopped", "shutting-down"}}},
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

func (d *daemon) groups(ctx context.Context) ([]string, error) {
	r, err := wire.Call[autoscalingapi.AutoScalingGroupsType](ctx, d.bus, "autoscaling", "DescribeAutoScalingGroups", &autoscalingapi.AutoScalingGroupNamesType{})
	if err != nil {
		return nil, err
	}
	var names []string
	for _, g := range r.AutoScalingGroups {
		names = append(names, g.AutoScalingGroupName)
	}
	return names, nil
}

func (d *daemon) status(ctx context.Context) (Status, error) {
	s := Status{PID: os.Getpid(), Region: d.cfg.Region, Account: d.id.Account, Endpoint: "http://" + d.cfg.Listen, HostChanges: d.net.HostChanges()}
	ids, err := d.living(ctx)
	if err != nil {
		return s, err
	}
	s.Instances = len(ids)
	gs, err := d.groups(ctx)
	if err != nil {
		return s, err
	}
	s.Groups = len(gs)
	im, err := wire.Call[ec2api.DescribeImagesResult](ctx, d.bus, "ec2", "DescribeImages", &ec2api.DescribeImagesRequest{Owners: []string{"self"}})
	if err != nil {
		return s, err
	}
	s.Images = len(im.Images)
	vs, err := wire.Call[ec2api.DescribeVpcsResult](ctx, d.bus, "ec2", "DescribeVpcs", &ec2api.DescribeVpcsRequest{})
	if err != nil {
		return s, err
	}
	s.VPCs = len(vs.Vpcs)
	st, err := wire.Call[cloudformationapi.DescribeStacksOutput](ctx, d.bus, "cloudformation", "DescribeStacks", &cloudformationapi.DescribeStacksInput{})
	if err != nil {
		return s, err
	}
	s.Stacks = len(st.Stacks)
	return s, nil
}

// teardown takes the region's kernel objects down. With force what runs is
// terminated first; its stacks and networks stay in the records.
func (d *daemon) teardown(ctx context.Context, force bool) error {
	ids, err := d.living(ctx)
	if err != nil {
		return err
	}
	if len(ids) > 0 && !force {
		return &fault.Error{Kind: fault.Conflict, Op: "stop the region", Message: countOf(len(ids), "instance") + " would die with it", Hint: "dayfly env destroy NAME ends an environment; dayfly region stop --keep lets everything run; --force terminates all"}
	}
	gs, err := d.groups(ctx)
	if err != nil {
		return err
	}
	for _, g := range gs { // first, since they would replace what is terminated
		if _, err := d.bus.Invoke(ctx, "autoscaling", "DeleteAutoScalingGroup", &autoscalingapi.DeleteAutoScalingGroupType{AutoScalingGroupName: g, ForceDelete: new(true)}); err != nil {
			return err
		}
	}
	if len(ids) > 0 {
		if _, err := d.bus.Invoke(ctx, "ec2", "TerminateInstances", &ec2api.TerminateInstancesRequest{InstanceIds: ids}); err != nil {
			return err
		}
	}
	for limit := time.Now().Add(time.Minute); ; {
		left, err := d.living(ctx)
		if err != nil {
			return err
		}
		if len(left) == 0 {
			break
		}
		if time.Now().After(limit) {
			return &fault.Error{Kind: fault.Failed, Op: "stop the region", Message: countOf(len(left), "instance") + " did not end within a minute"}
		}
		time.Sleep(50 * time.Millisecond)
	}
	d.stop() // nothing may be made from here on
	d.loops.Wait()
	d.vpcs.closeAll()
	return clean(ctx, d.hv, d.lb, d.net)
}

// clean removes every kernel object and process of a region in which nothing
// may run any more.
func clean(ctx context.Context, hv hypervisor.Hypervisor, lb interface {
	VPCs(ctx context.Context) ([]string, error)
	Remove(ctx context.Context, vpc string) error
}, n interface {
	Sweep(ctx context.Context, vpcs, enis []string) ([]string, error)
	Teardown(ctx context.Context) error
}) error {
	is, err := hv.List(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, i := range is {
		errs = append(errs, hv.Destroy(ctx, i.ID))
	}
	vpcs, err := lb.VPCs(ctx)
	errs = append(errs, err)
	for _, v := range vpcs {
		errs = append(errs, lb.Remove(ctx, v))
	}
	_, err = n.Sweep(ctx, nil, nil)
	errs = append(errs, err, n.Teardown(ctx))
	return errors.Join(errs...)
}
