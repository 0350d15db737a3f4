package region

import (
	"context"
	"net/netip"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/cloudwatch"
	"github.com/dayfly-infra/dayfly/internal/region/ec2"
	"github.com/dayfly-infra/dayfly/internal/region/elb"
	"github.com/dayfly-infra/dayfly/internal/region/imds"
)

// cards gives the load balancers their interfaces.
type cards struct{ *ec2.Service }

// CreateManagedInterface implements elb.Interfaces.
func (c cards) CreateManagedInterface(ctx context.Context, subnet string, groups []string, description string, public bool) (elb.ManagedInterface, error) {
	m, err := c.Service.CreateManagedInterface(ctx, subnet, groups, description, public)
	return elb.ManagedInterface{ID: m.ID, VPC: m.VPC, IP: m.IP, Public: m.Public}, err
}

// names answers the resolver: instances by their resource names; names with an
// address in them it knows itself.
type names struct{ d *daemon }

// Name implements dns.Lookup.
func (n names) Name(vpc, name string) (netip.Addr, bool) {
	id, _, _ := strings.Cut(name, ".")
	if v, ok := n.d.ec2.Snapshot(id); ok && v.VPC == vpc {
		return v.IP, true
	}
	return netip.Addr{}, false
}

// metadata answers the metadata service.
type metadata struct{ d *daemon }

// Instance implements imds.Source.
func (m metadata) Instance(vpc string, addr netip.Addr) (imds.Instance, bool) {
	id, ok := m.d.ec2.InstanceByAddress(vpc, addr)
	if !ok {
		return imds.Instance{}, false
	}
	v, ok := m.d.ec2.Snapshot(id)
	if !ok {
		return imds.Instance{}, false
	}
	i := imds.Instance{
		ID: v.ID, ImageID: v.Image, Type: v.Type, Architecture: v.Architecture, Account: v.Account, Region: v.Region, Zone: v.Zone, ZoneID: v.ZoneID,
		ReservationID: v.Reservation, LaunchIndex: int(v.Index), LaunchTime: v.Launched, MAC: v.MAC, InterfaceID: v.Interface,
		LocalIP: v.IP, PublicIP: v.Public, LocalHostname: v.Hostname, PublicHostname: v.PublicHostname, VPC: v.VPC, Subnet: v.Subnet,
		ProfileARN: v.ProfileARN, ProfileID: v.ProfileID, UserData: v.UserData, Tags: v.Tags,
		ShowTags: v.Metadata.Tags, Disabled: !v.Metadata.Enabled, TokensRequired: v.Metadata.TokenRequired,
	}
	for _, g := range v.Groups {
		i.Groups = append(i.Groups, imds.Group{ID: g.ID, Name: g.Name})
	}
	for _, c := range v.VPCCIDRs {
		if p, err := netip.ParsePrefix(c); err == nil {
			i.VPCCIDRs = append(i.VPCCIDRs, p)
		}
	}
	if p, err := netip.ParsePrefix(v.SubnetCIDR); err == nil {
		i.SubnetCIDR = p
	}
	if v.ProfileARN != "" {
		// A role that cannot be read is an instance without one, as on AWS.
		if c, err := m.d.iam.InstanceCredentials(context.Background(), v.ProfileARN, id); err == nil {
			i.Role = c.Role
		}
	}
	return i, true
}

// Credentials implements imds.Source.
func (m metadata) Credentials(ctx context.Context, id string) (imds.Credentials, error) {
	v, _ := m.d.ec2.Snapshot(id)
	c, err := m.d.iam.InstanceCredentials(ctx, v.ProfileARN, id)
	return imds.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken, Issued: c.Issued, Expiration: c.Expiration}, err
}

// counts gives CloudWatch what the balancers counted.
type counts struct{ elb *elb.Service }

// Counts implements cloudwatch.Source.
func (c counts) Counts(ctx context.Context) ([]cloudwatch.Count, error) {
	list, err := c.elb.Counts(ctx)
	var out []cloudwatch.Count
	for _, n := range list {
		out = append(out, cloudwatch.Count{LoadBalancer: n.LoadBalancer, TargetGroup: n.TargetGroup, Source: n.VPC,
			Values: [cloudwatch.Metrics]int64{n.Requests, n.Status2xx, n.Status3xx, n.Status4xx, n.Status5xx, n.ConnErrors, n.Took.Microseconds()}})
	}
	return out, err
}
