package ec2

import (
	"context"
	"net/netip"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// checkGroups makes the list of a card's groups: those named, or the VPC's
// default one.
func (s *Service) checkGroups(tx *state.Tx, vpcID string, ids []string) ([]string, error) {
	if len(ids) == 0 {
		v, ok := s.vpcs.Get(tx, vpcID)
		if !ok {
			return nil, noVPC(vpcID)
		}
		return []string{v.Group}, nil
	}
	if len(ids) > maxGroupsPerCard {
		return nil, wire.Errorf("SecurityGroupsPerInterfaceLimitExceeded", "The maximum number of security groups per interface has been reached.")
	}
	for i, id := range ids {
		g, ok := s.groups.Get(tx, id)
		if !ok {
			return nil, noGroup(id)
		}
		if g.VPC != vpcID {
			return nil, wire.Errorf("InvalidParameter", "Security group %s and the subnet belong to different networks.", id)
		}
		if slices.Contains(ids[:i], id) {
			return nil, wire.Errorf("InvalidParameterValue", "The same security group %s is named twice", id)
		}
	}
	return slices.Clone(ids), nil
}

func (s *Service) groupIDs(tx *state.Tx, ids []string) (out []*ec2api.GroupIdentifier) {
	for _, id := range ids {
		g, _ := s.groups.Get(tx, id)
		out = append(out, &ec2api.GroupIdentifier{GroupId: id, GroupName: g.Name})
	}
	return out
}

func (s *Service) ipName(ip netip.Addr) string {
	return "ip-" + strings.ReplaceAll(ip.String(), ".", "-") + "." + s.domain()
}

// publicName is the name in the internet that AWS gives an address.
func (s *Service) publicName(tx *state.Tx, vpcID string, a netip.Addr) string {
	if v, _ := s.vpcs.Get(tx, vpcID); !a.IsValid() || !v.DNSHostnames {
		return ""
	}
	return "ec2-" + strings.ReplaceAll(a.String(), ".", "-") + "." + s.cfg.Region + ".compute.amazonaws.com"
}

func attachmentID(card string) string { return "eni-attach" + strings.TrimPrefix(card, "eni") }

func (s *Service) cardView(tx *state.Tx) func(card) *ec2api.NetworkInterface {
	return func(c card) *ec2api.NetworkInterface {
		o := &ec2api.NetworkInterface{
			NetworkInterfaceId: c.ID, VpcId: c.VPC, SubnetId: c.Subnet, AvailabilityZone: c.Zone, AvailabilityZoneId: s.zoneID(c.Zone), Description: c.Description,
			Groups: s.groupIDs(tx, c.Groups), InterfaceType: "interface", MacAddress: network.MAC(c.ID).String(), OwnerId: s.cfg.Account,
			PrivateIpAddress: c.IP.String(), PrivateDnsName: s.ipName(c.IP), RequesterManaged: new(c.Kind != cardInstance), SourceDestCheck: new(c.Kind != cardNAT),
			Status: "in-use", TagSet: s.tagList(tx, c.ID),
		}
		if c.Kind == cardNAT {
			o.InterfaceType = "nat_gateway"
		}
		if c.Public.IsValid() {
			a, _ := s.eips.Get(tx, c.Allocation)
			owner := "amazon"
			if c.Allocation != "" {
				owner = s.cfg.Account
			}
			o.Association = &ec2api.NetworkInterfaceAssociation{PublicIp: c.Public.String(), PublicDnsName: s.publicName(tx, c.VPC, c.Public), IpOwnerId: owner, AllocationId: c.Allocation, AssociationId: a.Assoc}
			o.PublicDnsName = o.Association.PublicDnsName
		}
		o.PrivateIpAddresses = []*ec2api.NetworkInterfacePrivateIpAddress{{Primary: new(true), PrivateIpAddress: o.PrivateIpAddress, PrivateDnsName: o.PrivateDnsName, Association: o.Association}}
		o.Attachment = &ec2api.NetworkInterfaceAttachment{AttachmentId: attachmentID(c.ID), AttachTime: new(c.Created), DeleteOnTermination: new(c.Kind == cardInstance), DeviceIndex: new(int64(0)),
			InstanceId: c.Instance, InstanceOwnerId: s.cfg.Account, NetworkCardIndex: new(int64(0)), Status: "attached"}
		if c.Kind != cardInstance {
			o.Attachment.InstanceOwnerId, o.RequesterId = "amazon-aws", "amazon-aws"
		}
		return o
	}
}

var cardFields = filter.Fields[*ec2api.NetworkInterface]{
	Tags: func(v *ec2api.NetworkInterface) []*ec2api.Tag { return v.TagSet },
	By: map[string]func(*ec2api.NetworkInterface) []string{
		"network-interface-id":         func(v *ec2api.NetworkInterface) []string { return filter.One(v.NetworkInterfaceId) },
		"vpc-id":                       func(v *ec2api.NetworkInterface) []string { return filter.One(v.VpcId) },
		"subnet-id":                    func(v *ec2api.NetworkInterface) []string { return filter.One(v.SubnetId) },
		"availability-zone":            func(v *ec2api.NetworkInterface) []string { return filter.One(v.AvailabilityZone) },
		"description":                  func(v *ec2api.NetworkInterface) []string { return filter.One(v.Description) },
		"status":                       func(v *ec2api.NetworkInterface) []string { return filter.One(v.Status) },
		"interface-type":               func(v *ec2api.NetworkInterface) []string { return filter.One(v.InterfaceType) },
		"mac-address":                  func(v *ec2api.NetworkInterface) []string { return filter.One(v.MacAddress) },
		"owner-id":                     func(v *ec2api.NetworkInterface) []string { return filter.One(v.OwnerId) },
		"requester-id":                 func(v *ec2api.NetworkInterface) []string { return filter.One(v.RequesterId) },
		"requester-managed":            func(v *ec2api.NetworkInterface) []string { return filter.Bool(v.RequesterManaged) },
		"private-ip-address":           func(v *ec2api.NetworkInterface) []string { return filter.One(v.PrivateIpAddress) },
		"addresses.private-ip-address": func(v *ec2api.NetworkInterface) []string { return filter.One(v.PrivateIpAddress) },
		"private-dns-name":             func(v *ec2api.NetworkInterface) []string { return filter.One(v.PrivateDnsName) },
		"attachment.instance-id":       func(v *ec2api.NetworkInterface) []string { return filter.One(v.Attachment.InstanceId) },
		"attachment.attachment-id":     func(v *ec2api.NetworkInterface) []string { return filter.One(v.Attachment.AttachmentId) },
		"attachment.status":            func(v *ec2api.NetworkInterface) []string { return filter.One(v.Attachment.Status) },
		"attachment.instance-owner-id": func(v *ec2api.NetworkInterface) []string { return filter.One(v.Attachment.InstanceOwnerId) },
		"attachment.delete-on-termination": func(v *ec2api.NetworkInterface) []string {
			return filter.Bool(v.Attachment.DeleteOnTermination)
		},
		"association.public-ip": func(v *ec2api.NetworkInterface) []string {
			if v.Association == nil {
				return nil
			}
			return filter.One(v.Association.PublicIp)
		},
		"association.allocation-id": func(v *ec2api.NetworkInterface) []string {
			if v.Association == nil {
				return nil
			}
			return filter.One(v.Association.AllocationId)
		},
		"group-id": func(v *ec2api.NetworkInterface) (o []string) {
			for _, g := range v.Groups {
				o = append(o, g.GroupId)
			}
			return o
		},
		"group-name": func(v *ec2api.NetworkInterface) (o []string) {
			for _, g := range v.Groups {
				o = append(o, g.GroupName)
			}
			return o
		},
	},
}

// DescribeNetworkInterfaces lists interfaces: those of instances, of load
// balancers and of NAT gateways.
func (s *Service) DescribeNetworkInterfaces(ctx context.Context, in *ec2api.DescribeNetworkInterfacesRequest) (*ec2api.DescribeNetworkInterfacesResult, error) {
	out := &ec2api.DescribeNetworkInterfacesResult{}
	q := query[ec2api.NetworkInterface]{ids: in.NetworkInterfaceIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: cardFields,
		id: func(v *ec2api.NetworkInterface) string { return v.NetworkInterfaceId }, missing: noCard}
	var err error
	s.view(func(tx *state.Tx) { out.NetworkInterfaces, out.NextToken, err = list(tx, q, s.cards, s.cardView(tx)) })
	if err != nil {
		return nil, err
	}
	return out, nil
}

// ManagedInterface is an interface of another service of the region.
type ManagedInterface struct {
	ID, VPC    string
	IP, Public netip.Addr
}

// CreateManagedInterface makes an interface for a load balancer. Its address
// is one of the VPC's own namespace. A subnet has one interface of each
// description: asking again gives the same one, so that a caller who was
// interrupted finds what it made.
func (s *Service) CreateManagedInterface(ctx context.Context, subnetID string, groups []string, description string, public bool) (ManagedInterface, error) {
	var c card
	var found bool
	s.view(func(tx *state.Tx) {
		for id := range s.ix.inSubnet[subnetID] {
			if o, _ := s.cards.Get(tx, id); o.Kind == cardManaged && !o.Gone && o.Description == description {
				c, found = o, true
			}
		}
	})
	if found {
		if err := s.SetManagedInterfaceGroups(ctx, c.ID, groups); err != nil {
			return ManagedInterface{}, err
		}
		return ManagedInterface{ID: c.ID, VPC: c.VPC, IP: c.IP, Public: c.Public}, nil
	}
	c = card{ID: s.newID("eni"), Kind: cardManaged, Description: description, Created: s.now()}
	if public {
		var err error
		if c.Public, err = s.allocatePublic(ctx); err != nil {
			return ManagedInterface{}, err
		}
	}
	err := s.update(func(tx *state.Tx) error {
		sn, ok := s.subnets.Get(tx, subnetID)
		if !ok {
			return noSubnet(subnetID)
		}
		c.VPC, c.Subnet, c.Zone = sn.VPC, sn.ID, sn.Zone
		var err error
		if c.Groups, err = s.checkGroups(tx, sn.VPC, groups); err != nil {
			return err
		}
		if c.IP, ok = s.ix.take(sn); !ok {
			return wire.Errorf("InsufficientFreeAddressesInSubnet", "There are not enough free addresses in subnet '%s'.", sn.ID)
		}
		s.putCard(tx, c)
		return nil
	})
	if err != nil {
		s.releasePublic(ctx, c.Public)
		return ManagedInterface{}, err
	}
	if err := s.pushCard(ctx, c.VPC, c.ID); err != nil {
		if undo := s.DeleteManagedInterface(ctx, c.ID); undo != nil {
			s.log.Error("an interface that the network refused stays", "interface", c.ID, "error", undo)
		}
		return ManagedInterface{}, err
	}
	return ManagedInterface{ID: c.ID, VPC: c.VPC, IP: c.IP, Public: c.Public}, nil
}

// SetManagedInterfaceGroups replaces an interface's security groups.
func (s *Service) SetManagedInterfaceGroups(ctx context.Context, id string, groups []string) error {
	var c card
	err := s.update(func(tx *state.Tx) error {
		var ok bool
		if c, ok = s.cards.Get(tx, id); !ok || c.Kind != cardManaged {
			return noCard(id)
		}
		var err error
		if c.Groups, err = s.checkGroups(tx, c.VPC, groups); err != nil {
			return err
		}
		s.putCard(tx, c)
		return nil
	})
	if err != nil {
		return err
	}
	return s.pushCard(ctx, c.VPC, c.ID)
}

// DeleteManagedInterface takes an interface out of the network, then out of
// the books. One that is not there is no error.
func (s *Service) DeleteManagedInterface(ctx context.Context, id string) error {
	var c card
	var ok bool
	err := s.update(func(tx *state.Tx) error {
		if c, ok = s.cards.Get(tx, id); !ok {
			return nil
		}
		if c.Kind != cardManaged {
			return wire.Errorf("OperationNotPermitted", "The interface %s is not of a load balancer", id)
		}
		c.Gone = true
		s.putCard(tx, c)
		return nil
	})
	if err != nil || !ok {
		return err
	}
	s.forget("card " + id)
	if err := s.detach.do(c); err != nil {
		return internal(err)
	}
	var release netip.Addr
	if err := s.update(func(tx *state.Tx) error { release = s.freeCard(tx, id); return nil }); err != nil {
		return err
	}
	s.releasePublic(ctx, release)
	return nil
}

// detachAll takes cards out of the network, those of a VPC in one call. Where
// that fails each is tried alone, so that one cannot hold up the others.
func (s *Service) detachAll(cs []card) []error {
	by := map[string][]int{}
	for i, c := range cs {
		by[c.VPC] = append(by[c.VPC], i)
	}
	errs := make([]error, len(cs))
	for vpcID, is := range by {
		ctx, cancel := context.WithTimeout(context.Background(), pushTimeout) // of nobody's request in particular
		unlock := s.net1.lock(vpcID)
		ids := make([]string, len(is))
		for k, i := range is {
			ids[k] = cs[i].ID
		}
		if err := s.net.Detach(ctx, vpcID, ids); err != nil {
			for k, i := range is {
				errs[i] = err
				if len(is) > 1 {
					errs[i] = s.net.Detach(ctx, vpcID, ids[k:k+1])
				}
			}
		}
		unlock()
		cancel()
	}
	return errs
}
