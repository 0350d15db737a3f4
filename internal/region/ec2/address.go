package ec2

import (
	"context"
	"net/netip"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// AllocateAddress reserves an elastic address.
func (s *Service) AllocateAddress(ctx context.Context, in *ec2api.AllocateAddressRequest) (*ec2api.AllocateAddressResult, error) {
	switch {
	case in.Domain != "" && in.Domain != "vpc":
		return nil, wire.Errorf("InvalidParameterValue", "Value (%.20s) for parameter domain is invalid", in.Domain)
	case in.Address != "" || in.PublicIpv4Pool != "" && in.PublicIpv4Pool != "amazon" || in.CustomerOwnedIpv4Pool != "" || in.IpamPoolId != "":
		return nil, unsupported("addresses of one's own")
	}
	tags, err := tagSpecs(ctx, in.TagSpecifications, "elastic-ip")
	if err != nil {
		return nil, err
	}
	s.view(func(tx *state.Tx) {
		if err = s.addressQuota(tx, 1); err == nil {
			err = dry(in.DryRun)
		}
	})
	if err != nil {
		return nil, err
	}
	ip, err := s.allocatePublic(ctx)
	if err != nil {
		return nil, err
	}
	a := address{ID: s.newID("eipalloc"), IP: ip}
	err = s.update(func(tx *state.Tx) error {
		s.eips.Put(tx, a.ID, a)
		s.setPublic(a.IP, a.ID)
		s.putTags(tx, "elastic-ip", a.ID, tags["elastic-ip"])
		return s.addressQuota(tx, 0) // others may have allocated meanwhile
	})
	if err != nil {
		s.releasePublic(ctx, ip)
		return nil, err
	}
	return &ec2api.AllocateAddressResult{AllocationId: a.ID, PublicIp: ip.String(), Domain: "vpc", PublicIpv4Pool: "amazon", NetworkBorderGroup: s.cfg.Region}, nil
}

func (s *Service) addressQuota(tx *state.Tx, more int) error {
	if q := s.cfg.Quota.Addresses; q > 0 && s.eips.Len(tx)+more > q {
		return wire.Errorf("AddressLimitExceeded", "The maximum number of addresses has been reached.")
	}
	return nil
}

func (s *Service) findAddress(tx *state.Tx, id, ip string) (address, error) {
	if id != "" {
		a, ok := s.eips.Get(tx, id)
		if !ok {
			return a, noAllocation(id)
		}
		return a, nil
	}
	if ip == "" {
		return address{}, wire.Errorf("MissingParameter", "Either public IP or allocation id must be specified")
	}
	p, err := netip.ParseAddr(ip)
	if err == nil {
		if a, ok := s.eips.Get(tx, s.ix.public[p]); ok {
			return a, nil
		}
	}
	return address{}, wire.Errorf("InvalidAddress.NotFound", "Address '%.40s' not found.", ip)
}

// ReleaseAddress gives an elastic address back.
func (s *Service) ReleaseAddress(ctx context.Context, in *ec2api.ReleaseAddressRequest) error {
	var a address
	err := s.update(func(tx *state.Tx) (err error) {
		if a, err = s.findAddress(tx, in.AllocationId, in.PublicIp); err != nil {
			return err
		}
		if a.Assoc != "" {
			return wire.Errorf("InvalidIPAddress.InUse", "Address %s is in use.", a.IP)
		}
		s.eips.Delete(tx, a.ID)
		s.tagsOf.Delete(tx, a.ID)
		s.setPublic(a.IP, "")
		return dry(in.DryRun)
	})
	if err != nil {
		return err
	}
	s.releasePublic(ctx, a.IP)
	return nil
}

// AssociateAddress gives an instance's interface an elastic address.
func (s *Service) AssociateAddress(ctx context.Context, in *ec2api.AssociateAddressRequest) (*ec2api.AssociateAddressResult, error) {
	var c card
	var before card // that had the address until now
	var old netip.Addr
	out := &ec2api.AssociateAddressResult{}
	err := s.update(func(tx *state.Tx) error {
		a, err := s.findAddress(tx, in.AllocationId, in.PublicIp)
		if err != nil {
			return err
		}
		id := in.NetworkInterfaceId
		if in.InstanceId != "" {
			i, ok := s.instances.Get(tx, in.InstanceId)
			if !ok {
				return noInstance(in.InstanceId)
			}
			if i.State != running && i.State != stopped && i.State != pending {
				return wire.Errorf("InvalidInstanceID", "The instance '%s' is not in a valid state for this operation.", i.ID)
			}
			id = i.Card
		}
		var ok bool
		if c, ok = s.cards.Get(tx, id); !ok {
			return noCard(id)
		}
		if c.Kind != cardInstance {
			return wire.Errorf("OperationNotPermitted", "You are not allowed to manage the interface %s of a service", c.ID)
		}
		if in.PrivateIpAddress != "" && in.PrivateIpAddress != c.IP.String() {
			return wire.Errorf("InvalidParameterValue", "%.40s is not an address of %s", in.PrivateIpAddress, c.ID)
		}
		if _, ok := s.igwOf(tx, c.VPC); !ok {
			return wire.Errorf("Gateway.NotAttached", "Network %s is not attached to any internet gateway", c.VPC)
		}
		if a.Card == c.ID {
			out.AssociationId = a.Assoc
			return dry(in.DryRun)
		}
		// AWS moves an address by default and refuses when asked not to.
		if a.Assoc != "" {
			if in.AllowReassociation != nil && !*in.AllowReassociation {
				return wire.Errorf("Resource.AlreadyAssociated", "resource %s is already associated with associate-id %s", a.ID, a.Assoc)
			}
			before, _ = s.cards.Get(tx, a.Card)
			if before.Kind != cardInstance {
				return wire.Errorf("Resource.AlreadyAssociated", "resource %s is already associated with associate-id %s", a.ID, a.Assoc)
			}
			before.Public, before.Allocation = netip.Addr{}, ""
			s.putCard(tx, before)
		}
		old = s.unmap(tx, c)
		c.Public, c.Allocation = a.IP, a.ID
		s.putCard(tx, c)
		a.Assoc, a.Card = s.newID("eipassoc"), c.ID
		s.eips.Put(tx, a.ID, a)
		out.AssociationId = a.Assoc
		return dry(in.DryRun)
	})
	if err != nil {
		return nil, err
	}
	if before.ID != "" {
		if err := s.pushCard(ctx, before.VPC, before.ID); err != nil {
			return nil, err
		}
	}
	if err := s.pushCard(ctx, c.VPC, c.ID); err != nil {
		return nil, err
	}
	s.releasePublic(ctx, old)
	return out, nil
}

// unmap takes a card's public address away, in the tables; what it returns is
// to be released once the network knows.
func (s *Service) unmap(tx *state.Tx, c card) netip.Addr {
	if c.Allocation == "" {
		return c.Public
	}
	if a, ok := s.eips.Get(tx, c.Allocation); ok {
		a.Assoc, a.Card = "", ""
		s.eips.Put(tx, a.ID, a)
	}
	return netip.Addr{}
}

// freeCard deletes a card and what hangs on it.
func (s *Service) freeCard(tx *state.Tx, id string) (release netip.Addr) {
	c, ok := s.cards.Get(tx, id)
	if !ok {
		return release
	}
	release = s.unmap(tx, c)
	s.deleteCard(tx, id)
	return release
}

// DisassociateAddress takes an elastic address from an interface.
func (s *Service) DisassociateAddress(ctx context.Context, in *ec2api.DisassociateAddressRequest) error {
	var c card
	err := s.update(func(tx *state.Tx) error {
		var a address
		if in.AssociationId != "" {
			for _, x := range s.eips.All(tx) {
				if x.Assoc == in.AssociationId {
					a = x
				}
			}
			if a.ID == "" {
				return noAssociation(in.AssociationId)
			}
		} else {
			var err error
			if a, err = s.findAddress(tx, "", in.PublicIp); err != nil {
				return err
			}
		}
		c, _ = s.cards.Get(tx, a.Card)
		switch {
		case a.Assoc == "":
			return noAssociation(in.PublicIp)
		case c.Kind != cardInstance:
			return wire.Errorf("OperationNotPermitted", "You do not have permission to access the specified resource: the address belongs to %s", c.Description)
		}
		s.unmap(tx, c)
		c.Public, c.Allocation = netip.Addr{}, ""
		s.putCard(tx, c)
		return dry(in.DryRun)
	})
	if err != nil {
		return err
	}
	return s.pushCard(ctx, c.VPC, c.ID)
}

func (s *Service) addressView(tx *state.Tx) func(address) *ec2api.Address {
	return func(a address) *ec2api.Address {
		o := &ec2api.Address{AllocationId: a.ID, PublicIp: a.IP.String(), Domain: "vpc", PublicIpv4Pool: "amazon", NetworkBorderGroup: s.cfg.Region, Tags: s.tagList(tx, a.ID)}
		if c, ok := s.cards.Get(tx, a.Card); ok && a.Assoc != "" {
			o.AssociationId, o.NetworkInterfaceId, o.NetworkInterfaceOwnerId = a.Assoc, c.ID, s.cfg.Account
			o.PrivateIpAddress, o.InstanceId = c.IP.String(), c.Instance
		}
		return o
	}
}

var addressFields = filter.Fields[*ec2api.Address]{
	Tags: func(v *ec2api.Address) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*ec2api.Address) []string{
		"allocation-id":              func(v *ec2api.Address) []string { return filter.One(v.AllocationId) },
		"association-id":             func(v *ec2api.Address) []string { return filter.One(v.AssociationId) },
		"domain":                     func(v *ec2api.Address) []string { return filter.One(v.Domain) },
		"instance-id":                func(v *ec2api.Address) []string { return filter.One(v.InstanceId) },
		"network-border-group":       func(v *ec2api.Address) []string { return filter.One(v.NetworkBorderGroup) },
		"network-interface-id":       func(v *ec2api.Address) []string { return filter.One(v.NetworkInterfaceId) },
		"network-interface-owner-id": func(v *ec2api.Address) []string { return filter.One(v.NetworkInterfaceOwnerId) },
		"private-ip-address":         func(v *ec2api.Address) []string { return filter.One(v.PrivateIpAddress) },
		"public-ip":                  func(v *ec2api.Address) []string { return filter.One(v.PublicIp) },
	},
}

// DescribeAddresses lists elastic addresses.
func (s *Service) DescribeAddresses(ctx context.Context, in *ec2api.DescribeAddressesRequest) (*ec2api.DescribeAddressesResult, error) {
	out := &ec2api.DescribeAddressesResult{}
	q := query[ec2api.Address]{ids: in.AllocationIds, filters: in.Filters, dry: in.DryRun, fields: addressFields,
		id: func(v *ec2api.Address) string { return v.AllocationId }, missing: noAllocation}
	var err error
	s.view(func(tx *state.Tx) {
		for _, ip := range in.PublicIps {
			var a address
			if a, err = s.findAddress(tx, "", ip); err != nil {
				return
			}
			q.ids = append(q.ids[:len(q.ids):len(q.ids)], a.ID)
		}
		out.Addresses, _, err = list(tx, q, s.eips, s.addressView(tx))
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
