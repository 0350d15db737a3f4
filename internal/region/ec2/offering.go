package ec2

import (
	"context"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/instancetype"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

var typeFields = filter.Fields[*ec2api.InstanceTypeInfo]{
	By: map[string]func(*ec2api.InstanceTypeInfo) []string{
		"instance-type":                         func(v *ec2api.InstanceTypeInfo) []string { return filter.One(v.InstanceType) },
		"bare-metal":                            func(v *ec2api.InstanceTypeInfo) []string { return filter.Bool(v.BareMetal) },
		"burstable-performance-supported":       func(v *ec2api.InstanceTypeInfo) []string { return filter.Bool(v.BurstablePerformanceSupported) },
		"current-generation":                    func(v *ec2api.InstanceTypeInfo) []string { return filter.Bool(v.CurrentGeneration) },
		"free-tier-eligible":                    func(v *ec2api.InstanceTypeInfo) []string { return filter.Bool(v.FreeTierEligible) },
		"hibernation-supported":                 func(v *ec2api.InstanceTypeInfo) []string { return filter.Bool(v.HibernationSupported) },
		"hypervisor":                            func(v *ec2api.InstanceTypeInfo) []string { return filter.One(v.Hypervisor) },
		"instance-storage-supported":            func(v *ec2api.InstanceTypeInfo) []string { return filter.Bool(v.InstanceStorageSupported) },
		"memory-info.size-in-mib":               func(v *ec2api.InstanceTypeInfo) []string { return number(v.MemoryInfo.SizeInMiB) },
		"processor-info.supported-architecture": func(v *ec2api.InstanceTypeInfo) []string { return v.ProcessorInfo.SupportedArchitectures },
		"supported-usage-class":                 func(v *ec2api.InstanceTypeInfo) []string { return v.SupportedUsageClasses },
		"supported-virtualization-type":         func(v *ec2api.InstanceTypeInfo) []string { return v.SupportedVirtualizationTypes },
		"supported-root-device-type":            func(v *ec2api.InstanceTypeInfo) []string { return v.SupportedRootDeviceTypes },
		"vcpu-info.default-vcpus":               func(v *ec2api.InstanceTypeInfo) []string { return number(v.VCpuInfo.DefaultVCpus) },
		"vcpu-info.default-cores":               func(v *ec2api.InstanceTypeInfo) []string { return number(v.VCpuInfo.DefaultCores) },
		"vcpu-info.default-threads-per-core":    func(v *ec2api.InstanceTypeInfo) []string { return number(v.VCpuInfo.DefaultThreadsPerCore) },
	},
}

func typeView(t instancetype.Type) *ec2api.InstanceTypeInfo {
	cores := int64(max(1, t.VCPUs/2))
	return &ec2api.InstanceTypeInfo{
		InstanceType: t.Name, CurrentGeneration: new(true), BareMetal: new(false), BurstablePerformanceSupported: new(t.Burstable), FreeTierEligible: new(t.Name == "t3.micro"),
		HibernationSupported: new(false), DedicatedHostsSupported: new(false), AutoRecoverySupported: new(false), InstanceStorageSupported: new(false), Hypervisor: "nitro",
		MemoryInfo:    &ec2api.MemoryInfo{SizeInMiB: new(t.MemoryMiB)},
		VCpuInfo:      &ec2api.VCpuInfo{DefaultVCpus: new(int64(t.VCPUs)), DefaultCores: new(cores), DefaultThreadsPerCore: new(int64(2))},
		ProcessorInfo: &ec2api.ProcessorInfo{SupportedArchitectures: []string{"x86_64"}, SustainedClockSpeedInGhz: new(t.Clock), Manufacturer: t.Maker},
		NetworkInfo: &ec2api.NetworkInfo{MaximumNetworkInterfaces: new(int64(t.Cards)), Ipv4AddressesPerInterface: new(int64(t.Addresses)), Ipv6AddressesPerInterface: new(int64(0)), Ipv6Supported: new(false),
			EnaSupport: "required", MaximumNetworkCards: new(int64(1)), DefaultNetworkCardIndex: new(int64(0)), EfaSupported: new(false), NetworkPerformance: "Up to 5 Gigabit"},
		EbsInfo: &ec2api.EbsInfo{EbsOptimizedSupport: "default", EncryptionSupport: "unsupported", NvmeSupport: "required"}, PlacementGroupInfo: &ec2api.PlacementGroupInfo{},
		SupportedBootModes: []string{"legacy-bios"}, SupportedInRegion: new(true), SupportedRootDeviceTypes: []string{"ebs"}, SupportedUsageClasses: []string{"on-demand"}, SupportedVirtualizationTypes: []string{"hvm"},
		NitroEnclavesSupport: "unsupported", NitroTpmSupport: "unsupported",
	}
}

// DescribeInstanceTypes lists the instance types that there are.
func (s *Service) DescribeInstanceTypes(ctx context.Context, in *ec2api.DescribeInstanceTypesRequest) (*ec2api.DescribeInstanceTypesResult, error) {
	out := &ec2api.DescribeInstanceTypesResult{}
	q := query[ec2api.InstanceTypeInfo]{ids: in.InstanceTypes, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: typeFields, most: 100,
		id: func(v *ec2api.InstanceTypeInfo) string { return v.InstanceType },
		missing: func(id string) error {
			return wire.Errorf("InvalidInstanceType", "The following supplied instance types do not exist: [%.64s]", id)
		}}
	var err error
	out.InstanceTypes, out.NextToken, err = q.run(func(yield func(*ec2api.InstanceTypeInfo) bool) {
		for t := range instancetype.All() {
			if !yield(typeView(t)) {
				return
			}
		}
	}, func(id string) *ec2api.InstanceTypeInfo {
		t, ok := instancetype.Get(id)
		if !ok {
			return nil
		}
		return typeView(t)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

var offeringFields = filter.Fields[*ec2api.InstanceTypeOffering]{
	By: map[string]func(*ec2api.InstanceTypeOffering) []string{
		"instance-type": func(v *ec2api.InstanceTypeOffering) []string { return filter.One(v.InstanceType) },
		"location":      func(v *ec2api.InstanceTypeOffering) []string { return filter.One(v.Location) },
	},
}

// DescribeInstanceTypeOfferings tells where types are to be had: everywhere.
func (s *Service) DescribeInstanceTypeOfferings(ctx context.Context, in *ec2api.DescribeInstanceTypeOfferingsRequest) (*ec2api.DescribeInstanceTypeOfferingsResult, error) {
	kind := in.LocationType
	if kind == "" {
		kind = "region"
	}
	var places []string
	switch kind {
	case "region":
		places = []string{s.cfg.Region}
	case "availability-zone":
		places = s.cfg.Zones
	case "availability-zone-id":
		for _, z := range s.cfg.Zones {
			places = append(places, s.zoneID(z))
		}
	default:
		return nil, wire.Errorf("InvalidParameterValue", "Value (%.32s) for parameter locationType is invalid", in.LocationType)
	}
	out := &ec2api.DescribeInstanceTypeOfferingsResult{}
	q := query[ec2api.InstanceTypeOffering]{filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: offeringFields,
		id: func(v *ec2api.InstanceTypeOffering) string { return v.InstanceType + "\x00" + v.Location }}
	var err error
	out.InstanceTypeOfferings, out.NextToken, err = q.run(func(yield func(*ec2api.InstanceTypeOffering) bool) {
		for t := range instancetype.All() {
			for _, p := range places {
				if !yield(&ec2api.InstanceTypeOffering{InstanceType: t.Name, Location: p, LocationType: kind}) {
					return
				}
			}
		}
	}, nil)
	if err != nil {
		return nil, err
	}
	return out, nil
}
