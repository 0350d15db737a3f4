package ec2

import (
	"context"
	"slices"
	"strconv"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// zoneID is the zone's id, which AWS keeps apart from its name.
func (s *Service) zoneID(zone string) string {
	return s.cfg.Region + "-az" + strconv.Itoa(slices.Index(s.cfg.Zones, zone)+1)
}

// zone finds the zone that a request names; the first where it names none.
func (s *Service) zone(name, id string) (string, error) {
	if name == "" && id == "" {
		return s.cfg.Zones[0], nil
	}
	for _, z := range s.cfg.Zones {
		if (name == "" || z == name) && (id == "" || s.zoneID(z) == id) {
			return z, nil
		}
	}
	return "", wire.Errorf("InvalidParameterValue", "Value (%.64s) for parameter availabilityZone is invalid. Subnets can currently only be created in the following availability zones: %v.", name+id, s.cfg.Zones)
}

var zoneFields = filter.Fields[*ec2api.AvailabilityZone]{
	By: map[string]func(*ec2api.AvailabilityZone) []string{
		"zone-name":     func(z *ec2api.AvailabilityZone) []string { return filter.One(z.ZoneName) },
		"zone-id":       func(z *ec2api.AvailabilityZone) []string { return filter.One(z.ZoneId) },
		"region-name":   func(z *ec2api.AvailabilityZone) []string { return filter.One(z.RegionName) },
		"group-name":    func(z *ec2api.AvailabilityZone) []string { return filter.One(z.GroupName) },
		"opt-in-status": func(z *ec2api.AvailabilityZone) []string { return filter.One(z.OptInStatus) },
		"state":         func(z *ec2api.AvailabilityZone) []string { return filter.One(z.State) },
		"zone-type":     func(z *ec2api.AvailabilityZone) []string { return filter.One(z.ZoneType) },
		"message":       func(*ec2api.AvailabilityZone) []string { return nil },
	},
}

// DescribeAvailabilityZones lists the region's zones.
func (s *Service) DescribeAvailabilityZones(ctx context.Context, in *ec2api.DescribeAvailabilityZonesRequest) (*ec2api.DescribeAvailabilityZonesResult, error) {
	if err := dry(in.DryRun); err != nil {
		return nil, err
	}
	match, err := zoneFields.Compile(in.Filters)
	if err != nil {
		return nil, err
	}
	for _, n := range in.ZoneNames {
		if !slices.Contains(s.cfg.Zones, n) {
			return nil, wire.Errorf("InvalidParameterValue", "Invalid availability zone: [%.64s]", n)
		}
	}
	out := &ec2api.DescribeAvailabilityZonesResult{}
	ids := map[string]bool{}
	for _, z := range s.cfg.Zones {
		id := s.zoneID(z)
		ids[id] = true
		v := &ec2api.AvailabilityZone{ZoneName: z, ZoneId: id, RegionName: s.cfg.Region, GroupName: s.cfg.Region + "-zg-1", NetworkBorderGroup: s.cfg.Region, OptInStatus: "opt-in-not-required", State: "available", ZoneType: "availability-zone"}
		if (len(in.ZoneNames) == 0 || slices.Contains(in.ZoneNames, z)) && (len(in.ZoneIds) == 0 || slices.Contains(in.ZoneIds, id)) && match(v) {
			out.AvailabilityZones = append(out.AvailabilityZones, v)
		}
	}
	for _, id := range in.ZoneIds {
		if !ids[id] {
			return nil, wire.Errorf("InvalidParameterValue", "Invalid availability zone-id: [%.64s]", id)
		}
	}
	return out, nil
}

var regionFields = filter.Fields[*ec2api.Region]{
	By: map[string]func(*ec2api.Region) []string{
		"region-name":   func(r *ec2api.Region) []string { return filter.One(r.RegionName) },
		"endpoint":      func(r *ec2api.Region) []string { return filter.One(r.Endpoint) },
		"opt-in-status": func(r *ec2api.Region) []string { return filter.One(r.OptInStatus) },
	},
}

// DescribeRegions knows one region: this one.
func (s *Service) DescribeRegions(ctx context.Context, in *ec2api.DescribeRegionsRequest) (*ec2api.DescribeRegionsResult, error) {
	if err := dry(in.DryRun); err != nil {
		return nil, err
	}
	match, err := regionFields.Compile(in.Filters)
	if err != nil {
		return nil, err
	}
	for _, n := range in.RegionNames {
		if n != s.cfg.Region {
			return nil, wire.Errorf("InvalidParameterValue", "Invalid region names provided: %.64s", n)
		}
	}
	out := &ec2api.DescribeRegionsResult{}
	r := &ec2api.Region{RegionName: s.cfg.Region, Endpoint: "ec2." + s.cfg.Region + ".amazonaws.com", OptInStatus: "opt-in-not-required"}
	if match(r) {
		out.Regions = append(out.Regions, r)
	}
	return out, nil
}

// DescribeAccountAttributes tells the account's limits.
func (s *Service) DescribeAccountAttributes(ctx context.Context, in *ec2api.DescribeAccountAttributesRequest) (*ec2api.DescribeAccountAttributesResult, error) {
	if err := dry(in.DryRun); err != nil {
		return nil, err
	}
	limit := func(n, unlimited int) string {
		if n == 0 {
			n = unlimited
		}
		return strconv.Itoa(n)
	}
	all := []*ec2api.AccountAttribute{}
	add := func(name, value string) {
		all = append(all, &ec2api.AccountAttribute{AttributeName: name, AttributeValues: []*ec2api.AccountAttributeValue{{AttributeValue: value}}})
	}
	add("supported-platforms", "VPC")
	add("default-vpc", "none")
	add("max-instances", limit(s.cfg.Quota.Instances, 1<<20))
	add("vpc-max-security-groups-per-interface", strconv.Itoa(maxGroupsPerCard))
	add("max-elastic-ips", limit(s.cfg.Quota.Addresses, 1<<20))
	add("vpc-max-elastic-ips", limit(s.cfg.Quota.Addresses, 1<<20))
	out := &ec2api.DescribeAccountAttributesResult{}
	for _, a := range all {
		if len(in.AttributeNames) == 0 || slices.Contains(in.AttributeNames, a.AttributeName) {
			out.AccountAttributes = append(out.AccountAttributes, a)
		}
	}
	return out, nil
}

// DescribeKeyPairs has none to tell: nobody logs in by SSH here, so the region
// makes no key pairs.
func (s *Service) DescribeKeyPairs(ctx context.Context, in *ec2api.DescribeKeyPairsRequest) (*ec2api.DescribeKeyPairsResult, error) {
	if err := dry(in.DryRun); err != nil {
		return nil, err
	}
	for _, n := range append(slices.Clone(in.KeyNames), in.KeyPairIds...) {
		return nil, noKeyPair(n)
	}
	return &ec2api.DescribeKeyPairsResult{}, nil
}

func noKeyPair(name string) error {
	return wire.Errorf("InvalidKeyPair.NotFound", "The key pair '%.64s' does not exist", name)
}
