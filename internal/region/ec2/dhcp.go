package ec2

import (
	"context"
	"maps"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const amazonDNS = "AmazonProvidedDNS"

// domain is the domain of private names.
func (s *Service) domain() string { return s.cfg.Region + ".compute.internal" }

// ensureDefaultDHCP makes the set of options that new VPCs have.
func (s *Service) ensureDefaultDHCP(tx *state.Tx) error {
	if s.dhcp.Len(tx) == 0 {
		id := s.newID("dopt")
		s.dhcp.Put(tx, id, dhcpOptions{ID: id, Values: map[string][]string{"domain-name": {s.domain()}, "domain-name-servers": {amazonDNS}}})
	}
	return nil
}

// defaultDHCP is a set with the region's own values: the first such one.
func (s *Service) defaultDHCP(tx *state.Tx) string {
	for id := range s.dhcp.All(tx) {
		return id
	}
	return ""
}

// CreateDhcpOptions makes a set of options. Instances are told the region's
// resolver and domain and nothing else, so that other values are refused.
func (s *Service) CreateDhcpOptions(ctx context.Context, in *ec2api.CreateDhcpOptionsRequest) (*ec2api.CreateDhcpOptionsResult, error) {
	tags, err := tagSpecs(ctx, in.TagSpecifications, "dhcp-options")
	if err != nil {
		return nil, err
	}
	d := dhcpOptions{ID: s.newID("dopt"), Values: map[string][]string{}}
	for _, c := range in.DhcpConfigurations {
		switch {
		case c == nil:
			continue
		case c.Key == "domain-name" && len(c.Values) == 1 && c.Values[0] == s.domain():
		case c.Key == "domain-name-servers" && len(c.Values) == 1 && c.Values[0] == amazonDNS:
		case c.Key == "domain-name" || c.Key == "domain-name-servers" || c.Key == "ntp-servers" || c.Key == "netbios-name-servers" || c.Key == "netbios-node-type" || c.Key == "ipv6-address-preferred-lease-time":
			return nil, unsupported("the DHCP option %s=%v; domain-name %s and domain-name-servers %s can be had", c.Key, c.Values, s.domain(), amazonDNS)
		default:
			return nil, wire.Errorf("InvalidParameterValue", "Value (%.64s) for parameter key is invalid. Unknown DHCP option.", c.Key)
		}
		d.Values[c.Key] = slices.Clone(c.Values)
	}
	if len(d.Values) == 0 {
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter dhcpConfigurationSet")
	}
	out := &ec2api.CreateDhcpOptionsResult{}
	return out, s.update(func(tx *state.Tx) error {
		s.dhcp.Put(tx, d.ID, d)
		s.putTags(tx, "dhcp-options", d.ID, tags["dhcp-options"])
		out.DhcpOptions = s.dhcpView(tx)(d)
		return dry(in.DryRun)
	})
}

// AssociateDhcpOptions gives a VPC another set; "default" is the region's own.
func (s *Service) AssociateDhcpOptions(ctx context.Context, in *ec2api.AssociateDhcpOptionsRequest) error {
	return s.update(func(tx *state.Tx) error {
		v, ok := s.vpcs.Get(tx, in.VpcId)
		if !ok {
			return noVPC(in.VpcId)
		}
		id := in.DhcpOptionsId
		if id != "default" {
			if _, ok := s.dhcp.Get(tx, id); !ok {
				return noDHCP(id)
			}
		}
		v.DHCP = id
		s.vpcs.Put(tx, v.ID, v)
		return dry(in.DryRun)
	})
}

// DeleteDhcpOptions deletes a set that no VPC uses.
func (s *Service) DeleteDhcpOptions(ctx context.Context, in *ec2api.DeleteDhcpOptionsRequest) error {
	return s.update(func(tx *state.Tx) error {
		if _, ok := s.dhcp.Get(tx, in.DhcpOptionsId); !ok {
			return noDHCP(in.DhcpOptionsId)
		}
		used := s.dhcp.Len(tx) == 1 // the last one is what new VPCs get
		for _, v := range s.vpcs.All(tx) {
			used = used || v.DHCP == in.DhcpOptionsId
		}
		if used {
			return wire.Errorf("DependencyViolation", "The dhcpOptions '%s' has dependencies and cannot be deleted.", in.DhcpOptionsId)
		}
		s.dhcp.Delete(tx, in.DhcpOptionsId)
		s.tagsOf.Delete(tx, in.DhcpOptionsId)
		return dry(in.DryRun)
	})
}

func (s *Service) dhcpView(tx *state.Tx) func(dhcpOptions) *ec2api.DhcpOptions {
	return func(d dhcpOptions) *ec2api.DhcpOptions {
		o := &ec2api.DhcpOptions{DhcpOptionsId: d.ID, OwnerId: s.cfg.Account, Tags: s.tagList(tx, d.ID)}
		for _, k := range slices.Sorted(maps.Keys(d.Values)) {
			c := &ec2api.DhcpConfiguration{Key: k}
			for _, v := range d.Values[k] {
				c.Values = append(c.Values, &ec2api.AttributeValue{Value: v})
			}
			o.DhcpConfigurations = append(o.DhcpConfigurations, c)
		}
		return o
	}
}

var dhcpFields = filter.Fields[*ec2api.DhcpOptions]{
	Tags: func(v *ec2api.DhcpOptions) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*ec2api.DhcpOptions) []string{
		"dhcp-options-id": func(v *ec2api.DhcpOptions) []string { return filter.One(v.DhcpOptionsId) },
		"owner-id":        func(v *ec2api.DhcpOptions) []string { return filter.One(v.OwnerId) },
		"key": func(v *ec2api.DhcpOptions) (o []string) {
			for _, c := range v.DhcpConfigurations {
				o = append(o, c.Key)
			}
			return o
		},
		"value": func(v *ec2api.DhcpOptions) (o []string) {
			for _, c := range v.DhcpConfigurations {
				for _, x := range c.Values {
					o = append(o, x.Value)
				}
			}
			return o
		},
	},
}

// DescribeDhcpOptions lists sets of DHCP options.
func (s *Service) DescribeDhcpOptions(ctx context.Context, in *ec2api.DescribeDhcpOptionsRequest) (*ec2api.DescribeDhcpOptionsResult, error) {
	out := &ec2api.DescribeDhcpOptionsResult{}
	q := query[ec2api.DhcpOptions]{ids: in.DhcpOptionsIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: dhcpFields,
		id: func(v *ec2api.DhcpOptions) string { return v.DhcpOptionsId }, missing: noDHCP}
	var err error
	s.view(func(tx *state.Tx) { out.DhcpOptions, out.NextToken, err = list(tx, q, s.dhcp, s.dhcpView(tx)) })
	if err != nil {
		return nil, err
	}
	return out, nil
}
