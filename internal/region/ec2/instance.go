package ec2

import (
	"context"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/instancetype"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

func stateView(name string) *ec2api.InstanceState {
	return &ec2api.InstanceState{Code: new(codes[name]), Name: name}
}

func enabled(b bool) string {
	if b {
		return "enabled"
	}
	return "disabled"
}

func metaView(m metadata) *ec2api.InstanceMetadataOptionsResponse {
	tokens := "optional"
	if m.Required {
		tokens = "required"
	}
	return &ec2api.InstanceMetadataOptionsResponse{HttpEndpoint: enabled(!m.Off), HttpProtocolIpv6: "disabled", HttpPutResponseHopLimit: new(m.Hops), HttpTokens: tokens, InstanceMetadataTags: enabled(m.Tags), State: "applied"}
}

// privateName is the instance's private DNS name.
func (s *Service) privateName(i instance) string { return hostname(i) + "." + s.domain() }

func (s *Service) instanceView(tx *state.Tx) func(instance) *ec2api.Instance {
	return func(i instance) *ec2api.Instance {
		t, _ := instancetype.Get(i.Type)
		o := &ec2api.Instance{
			InstanceId: i.ID, AmiLaunchIndex: new(i.Index), Architecture: "x86_64", ClientToken: i.Token, ImageId: i.Image, InstanceType: i.Type,
			LaunchTime: new(i.Launched), State: stateView(i.State), StateTransitionReason: i.Transition, Hypervisor: "xen", VirtualizationType: "hvm",
			EbsOptimized: new(i.EBSOptimized), EnaSupport: new(true), RootDeviceName: rootDevice, RootDeviceType: "ebs", SourceDestCheck: new(true),
			PlatformDetails: "Linux/UNIX", UsageOperation: "RunInstances", UsageOperationUpdateTime: new(i.Launched), BootMode: "legacy-bios", CurrentInstanceBootMode: "legacy-bios",
			Monitoring:         &ec2api.Monitoring{State: enabled(i.Monitoring)},
			Placement:          &ec2api.Placement{AvailabilityZone: i.Zone, AvailabilityZoneId: s.zoneID(i.Zone), Tenancy: "default"},
			CpuOptions:         &ec2api.CpuOptions{CoreCount: new(int64(max(1, t.VCPUs/2))), ThreadsPerCore: new(int64(2))},
			HibernationOptions: &ec2api.HibernationOptions{Configured: new(false)}, EnclaveOptions: &ec2api.EnclaveOptions{Enabled: new(false)},
			MaintenanceOptions: &ec2api.InstanceMaintenanceOptions{AutoRecovery: "default", RebootMigration: "default"},
			MetadataOptions:    metaView(i.Meta),
			Tags:               s.tagList(tx, i.ID),
		}
		if i.Reason.Code != "" {
			o.StateReason = &ec2api.StateReason{Code: i.Reason.Code, Message: i.Reason.Message}
		}
		if i.State == terminated {
			return o
		}
		o.PrivateDnsNameOptions = &ec2api.PrivateDnsNameOptionsResponse{HostnameType: hostnameType(i.Resource), EnableResourceNameDnsARecord: new(i.NameA), EnableResourceNameDnsAAAARecord: new(false)}
		o.PrivateIpAddress, o.PrivateDnsName, o.VpcId, o.SubnetId = i.IP.String(), s.privateName(i), i.VPC, i.Subnet
		if i.Profile != nil {
			o.IamInstanceProfile = &ec2api.IamInstanceProfile{Arn: i.Profile.ARN, Id: i.Profile.ID}
		}
		if i.State != shuttingDown {
			o.BlockDeviceMappings = []*ec2api.InstanceBlockDeviceMapping{{DeviceName: rootDevice, Ebs: &ec2api.EbsInstanceBlockDevice{
				AttachTime: new(i.Launched), DeleteOnTermination: new(true), Status: "attached", VolumeId: volumeID(i.ID)}}}
		}
		c, ok := s.cards.Get(tx, i.Card)
		if !ok {
			return o
		}
		o.SecurityGroups = s.groupIDs(tx, c.Groups)
		n := &ec2api.InstanceNetworkInterface{NetworkInterfaceId: c.ID, Description: c.Description, Groups: o.SecurityGroups, InterfaceType: "interface", MacAddress: network.MAC(c.ID).String(),
			OwnerId: s.cfg.Account, PrivateDnsName: o.PrivateDnsName, PrivateIpAddress: o.PrivateIpAddress, SourceDestCheck: new(true), Status: "in-use", SubnetId: c.Subnet, VpcId: c.VPC,
			Attachment: &ec2api.InstanceNetworkInterfaceAttachment{AttachTime: new(c.Created), AttachmentId: attachmentID(c.ID), DeleteOnTermination: new(true), DeviceIndex: new(int64(0)), NetworkCardIndex: new(int64(0)), Status: "attached"}}
		if c.Public.IsValid() {
			o.PublicIpAddress, o.PublicDnsName = c.Public.String(), s.publicName(tx, c.VPC, c.Public)
			owner := "amazon"
			if c.Allocation != "" {
				owner = s.cfg.Account
			}
			n.Association = &ec2api.InstanceNetworkInterfaceAssociation{IpOwnerId: owner, PublicIp: o.PublicIpAddress, PublicDnsName: o.PublicDnsName}
		}
		n.PrivateIpAddresses = []*ec2api.InstancePrivateIpAddress{{Primary: new(true), PrivateIpAddress: n.PrivateIpAddress, PrivateDnsName: n.PrivateDnsName, Association: n.Association}}
		o.NetworkInterfaces = []*ec2api.InstanceNetworkInterface{n}
		return o
	}
}

// shown is an instance with what filters ask about and the answer has not.
type shown struct {
	*ec2api.Instance
	rec   instance
	owner string
}

func inst(f func(*ec2api.Instance) string) func(*shown) []string {
	return func(v *shown) []string { return filter.One(f(v.Instance)) }
}

func groupsOf(f func(*ec2api.GroupIdentifier) string) func(*shown) []string {
	return func(v *shown) (o []string) {
		for _, g := range v.SecurityGroups {
			o = append(o, f(g))
		}
		return o
	}
}

var instanceFields = filter.Fields[*shown]{
	Tags: func(v *shown) []*ec2api.Tag { return v.Tags },
	By: map[string]func(*shown) []string{
		"instance-id":          inst(func(v *ec2api.Instance) string { return v.InstanceId }),
		"image-id":             inst(func(v *ec2api.Instance) string { return v.ImageId }),
		"instance-type":        inst(func(v *ec2api.Instance) string { return v.InstanceType }),
		"instance-state-name":  inst(func(v *ec2api.Instance) string { return v.State.Name }),
		"instance-state-code":  func(v *shown) []string { return number(v.State.Code) },
		"vpc-id":               inst(func(v *ec2api.Instance) string { return v.VpcId }),
		"subnet-id":            inst(func(v *ec2api.Instance) string { return v.SubnetId }),
		"availability-zone":    inst(func(v *ec2api.Instance) string { return v.Placement.AvailabilityZone }),
		"availability-zone-id": inst(func(v *ec2api.Instance) string { return v.Placement.AvailabilityZoneId }),
		"architecture":         inst(func(v *ec2api.Instance) string { return v.Architecture }),
		"client-token":         inst(func(v *ec2api.Instance) string { return v.ClientToken }),
		"dns-name":             inst(func(v *ec2api.Instance) string { return v.PublicDnsName }),
		"ip-address":           inst(func(v *ec2api.Instance) string { return v.PublicIpAddress }),
		"private-ip-address":   inst(func(v *ec2api.Instance) string { return v.PrivateIpAddress }),
		"private-dns-name":     inst(func(v *ec2api.Instance) string { return v.PrivateDnsName }),
		"key-name":             func(*shown) []string { return nil },
		"hypervisor":           inst(func(v *ec2api.Instance) string { return v.Hypervisor }),
		"virtualization-type":  inst(func(v *ec2api.Instance) string { return v.VirtualizationType }),
		"tenancy":              inst(func(v *ec2api.Instance) string { return v.Placement.Tenancy }),
		"root-device-name":     inst(func(v *ec2api.Instance) string { return v.RootDeviceName }),
		"root-device-type":     inst(func(v *ec2api.Instance) string { return v.RootDeviceType }),
		"monitoring-state":     inst(func(v *ec2api.Instance) string { return v.Monitoring.State }),
		"launch-index":         func(v *shown) []string { return number(v.AmiLaunchIndex) },
		"launch-time":          func(v *shown) []string { return []string{v.LaunchTime.Format(timeForm)} },
		"owner-id":             func(v *shown) []string { return filter.One(v.owner) },
		"reservation-id":       func(v *shown) []string { return filter.One(v.rec.Reservation) },
		"requester-id":         func(*shown) []string { return nil },
		"instance-lifecycle":   inst(func(v *ec2api.Instance) string { return v.InstanceLifecycle }),
		"instance.group-id":    groupsOf(func(g *ec2api.GroupIdentifier) string { return g.GroupId }),
		"instance.group-name":  groupsOf(func(g *ec2api.GroupIdentifier) string { return g.GroupName }),
		"group-id":             groupsOf(func(g *ec2api.GroupIdentifier) string { return g.GroupId }),
		"group-name":           groupsOf(func(g *ec2api.GroupIdentifier) string { return g.GroupName }),
		"reason":               inst(func(v *ec2api.Instance) string { return v.StateTransitionReason }),
		"state-reason-code": func(v *shown) []string {
			if v.StateReason == nil {
				return nil
			}
			return filter.One(v.StateReason.Code)
		},
		"state-reason-message": func(v *shown) []string {
			if v.StateReason == nil {
				return nil
			}
			return filter.One(v.StateReason.Message)
		},
		"iam-instance-profile.arn": func(v *shown) []string {
			if v.IamInstanceProfile == nil {
				return nil
			}
			return filter.One(v.IamInstanceProfile.Arn)
		},
		"iam-instance-profile.id": func(v *shown) []string {
			if v.IamInstanceProfile == nil {
				return nil
			}
			return filter.One(v.IamInstanceProfile.Id)
		},
		"metadata-options.http-tokens":   inst(func(v *ec2api.Instance) string { return v.MetadataOptions.HttpTokens }),
		"metadata-options.http-endpoint": inst(func(v *ec2api.Instance) string { return v.MetadataOptions.HttpEndpoint }),
		"metadata-options.instance-metadata-tags": inst(func(v *ec2api.Instance) string {
			return v.MetadataOptions.InstanceMetadataTags
		}),
		"network-interface.network-interface-id":            func(v *shown) []string { return filter.One(v.rec.Card) },
		"network-interface.subnet-id":                       inst(func(v *ec2api.Instance) string { return v.SubnetId }),
		"network-interface.vpc-id":                          inst(func(v *ec2api.Instance) string { return v.VpcId }),
		"network-interface.addresses.private-ip-address":    inst(func(v *ec2api.Instance) string { return v.PrivateIpAddress }),
		"network-interface.addresses.association.public-ip": inst(func(v *ec2api.Instance) string { return v.PublicIpAddress }),
		"network-interface.association.public-ip":           inst(func(v *ec2api.Instance) string { return v.PublicIpAddress }),
		"network-interface.group-id":                        groupsOf(func(g *ec2api.GroupIdentifier) string { return g.GroupId }),
		"block-device-mapping.volume-id": func(v *shown) (o []string) {
			for _, m := range v.BlockDeviceMappings {
				o = append(o, m.Ebs.VolumeId)
			}
			return o
		},
		"block-device-mapping.device-name": func(v *shown) (o []string) {
			for _, m := range v.BlockDeviceMappings {
				o = append(o, m.DeviceName)
			}
			return o
		},
	},
}

// hopeless tells from its record alone that an instance does not pass the
// filters. Most of what is there ended within the hour, most who ask want what
// runs or has a tag, and a view costs much more than this.
func (s *Service) hopeless(tx *state.Tx, i instance, fs []*ec2api.Filter) bool {
	for _, f := range fs {
		if f == nil || slices.ContainsFunc(f.Values, func(v string) bool { return !filter.Literal(v) }) {
			continue
		}
		key, tagged := strings.CutPrefix(f.Name, "tag:")
		switch {
		case f.Name == "instance-state-name" && !slices.Contains(f.Values, i.State):
			return true
		case tagged && key != "":
			t, _ := s.tagsOf.Get(tx, i.ID)
			if v, ok := t.Tags[key]; !ok || !slices.Contains(f.Values, v) {
				return true
			}
		}
	}
	return false
}

// DescribeInstances lists instances, those of one launch together.
func (s *Service) DescribeInstances(ctx context.Context, in *ec2api.DescribeInstancesRequest) (*ec2api.DescribeInstancesResult, error) {
	if in.MaxResults != nil && len(in.InstanceIds) > 0 {
		return nil, wire.Errorf("InvalidParameterCombination", "The parameter instancesSet cannot be used with the parameter maxResults")
	}
	out := &ec2api.DescribeInstancesResult{}
	q := query[shown]{ids: in.InstanceIds, filters: in.Filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: instanceFields,
		id: func(v *shown) string { return v.InstanceId }, idIs: "instance-id", missing: noInstance}
	var err error
	s.view(func(tx *state.Tx) {
		view := s.instanceView(tx)
		var page []*shown
		if page, out.NextToken, err = list(tx, q, s.instances, func(i instance) *shown {
			if len(q.ids) == 0 && s.hopeless(tx, i, in.Filters) {
				return nil
			}
			return &shown{view(i), i, s.cfg.Account}
		}); err != nil {
			return
		}
		by := map[string]*ec2api.Reservation{}
		for _, v := range page {
			r := by[v.rec.Reservation]
			if r == nil {
				r = &ec2api.Reservation{ReservationId: v.rec.Reservation, OwnerId: s.cfg.Account}
				by[r.ReservationId] = r
				out.Reservations = append(out.Reservations, r)
			}
			r.Instances = append(r.Instances, v.Instance)
		}
	})
	if err != nil {
		return nil, err
	}
	for _, r := range out.Reservations {
		slices.SortFunc(r.Instances, func(a, b *ec2api.Instance) int { return int(*a.AmiLaunchIndex - *b.AmiLaunchIndex) })
	}
	return out, nil
}
