package ec2

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/api/iamapi"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/instancetype"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// launchTagKinds are the resources that a launch can tag. There are no spot
// requests, but templates may carry tags for them.
var launchTagKinds = []string{"instance", "volume", "network-interface", "spot-instances-request"}

// maxLaunch bounds one call.
const maxLaunch = 5000

// spec is a launch that was checked as far as it can be without the tables.
type spec struct {
	min, max   int
	image      string
	kind       instancetype.Type
	subnet     string
	groups     []string
	ip         netip.Addr
	public     *bool
	cardText   string
	profile    *profile
	tags       map[string]map[string]string
	userData   string
	terminate  bool
	noTerm     bool
	noStop     bool
	monitoring bool
	ebs        bool
	meta       *ec2api.InstanceMetadataOptionsRequest
	names      *ec2api.PrivateDnsNameOptionsRequest
	volumeGiB  int64
	volumeType string
	device     string
	zone       string
	token      string
}

// fromTemplate lays a request over the launch template that it names.
func (s *Service) fromTemplate(in *ec2api.RunInstancesRequest) (*ec2api.RunInstancesRequest, error) {
	if in.LaunchTemplate == nil {
		return in, nil
	}
	var t template
	var v templateVersion
	var err error
	s.view(func(tx *state.Tx) {
		if t, err = s.findTemplate(tx, in.LaunchTemplate.LaunchTemplateId, in.LaunchTemplate.LaunchTemplateName); err == nil {
			v, err = s.findVersion(tx, t, in.LaunchTemplate.Version)
		}
	})
	if err != nil {
		return nil, err
	}
	if v.Data.InstanceRequirements != nil && in.InstanceType == "" {
		return nil, unsupported("InstanceRequirements: name an instance type")
	}
	out := convert[ec2api.RunInstancesRequest](v.Data)
	own := *in
	if len(out.NetworkInterfaces) > 0 && len(own.NetworkInterfaces) == 0 {
		// As Auto Scaling does on AWS, a subnet and groups that come with the
		// request go into the template's first interface.
		nic := *out.NetworkInterfaces[0]
		if own.SubnetId != "" {
			nic.SubnetId = own.SubnetId
		}
		if len(own.SecurityGroupIds) > 0 {
			nic.Groups = own.SecurityGroupIds
		}
		if own.PrivateIpAddress != "" {
			nic.PrivateIpAddress = own.PrivateIpAddress
		}
		out.NetworkInterfaces = append([]*ec2api.InstanceNetworkInterfaceSpecification{&nic}, out.NetworkInterfaces[1:]...)
		own.SubnetId, own.SecurityGroupIds, own.PrivateIpAddress = "", nil, ""
	} else if len(own.NetworkInterfaces) > 0 {
		out.SecurityGroupIds, out.SecurityGroups = nil, nil
		if len(out.NetworkInterfaces) > 0 && own.NetworkInterfaces[0] != nil {
			nic := *out.NetworkInterfaces[0]
			overlay(&nic, own.NetworkInterfaces[0])
			own.NetworkInterfaces = append([]*ec2api.InstanceNetworkInterfaceSpecification{&nic}, own.NetworkInterfaces[1:]...)
		}
	}
	if len(own.SecurityGroupIds) > 0 {
		out.SecurityGroups = nil
	}
	tags := mergeTags(out.TagSpecifications, in.TagSpecifications)
	if out.MetadataOptions != nil && own.MetadataOptions != nil {
		m := *out.MetadataOptions
		overlay(&m, own.MetadataOptions)
		own.MetadataOptions = &m
	}
	overlay(out, &own)
	out.TagSpecifications = tags
	out.LaunchTemplate = &ec2api.LaunchTemplateSpecification{LaunchTemplateId: t.ID, Version: strconv.FormatInt(v.Number, 10)}
	return out, nil
}

// mergeTags lays tags over tags, by resource type and key.
func mergeTags(base, over []*ec2api.TagSpecification) []*ec2api.TagSpecification {
	by := map[string]map[string]string{}
	for _, specs := range [][]*ec2api.TagSpecification{base, over} {
		for _, sp := range specs {
			if sp == nil {
				continue
			}
			if by[sp.ResourceType] == nil {
				by[sp.ResourceType] = map[string]string{}
			}
			for _, t := range sp.Tags {
				if t != nil {
					by[sp.ResourceType][t.Key] = t.Value
				}
			}
		}
	}
	var out []*ec2api.TagSpecification
	for k, m := range by {
		out = append(out, &ec2api.TagSpecification{ResourceType: k, Tags: tagsOut(m)})
	}
	return out
}

// specOf checks a request whose template was laid under it already.
func (s *Service) specOf(ctx context.Context, in *ec2api.RunInstancesRequest) (*spec, error) {
	if err := refuse(in); err != nil {
		return nil, err
	}
	x := &spec{image: in.ImageId, subnet: in.SubnetId, groups: in.SecurityGroupIds, token: in.ClientToken, userData: in.UserData,
		noTerm: yes(in.DisableApiTermination), noStop: yes(in.DisableApiStop), ebs: yes(in.EbsOptimized), meta: in.MetadataOptions, names: in.PrivateDnsNameOptions}
	x.monitoring = in.Monitoring != nil && yes(in.Monitoring.Enabled)
	switch {
	case in.MinCount == nil || in.MaxCount == nil:
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameters MinCount and MaxCount")
	case *in.MinCount < 1:
		return nil, wire.Errorf("InvalidParameterValue", "Value (%d) for parameter minCount is invalid. The value must be at least 1.", *in.MinCount)
	case *in.MaxCount < *in.MinCount:
		return nil, wire.Errorf("InvalidParameterValue", "Value (%d) for parameter maxCount is invalid. The value must not be less than minCount.", *in.MaxCount)
	case *in.MinCount > maxLaunch:
		return nil, wire.Errorf("InstanceLimitExceeded", "At most %d instances may be launched in one call", maxLaunch)
	case in.ImageId == "":
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter ImageId")
	case in.InstanceType == "":
		return nil, wire.Errorf("MissingParameter", "The request must contain the parameter InstanceType: the region has no m1.small, AWS's default")
	case in.KeyName != "":
		return nil, noKeyPair(in.KeyName)
	}
	x.min, x.max = int(*in.MinCount), int(min(*in.MaxCount, maxLaunch))
	var ok bool
	if x.kind, ok = instancetype.Get(in.InstanceType); !ok {
		return nil, wire.Errorf("InvalidParameterValue", "Invalid value '%.64s' for InstanceType.", in.InstanceType)
	}
	switch in.InstanceInitiatedShutdownBehavior {
	case "", "stop":
	case "terminate":
		x.terminate = true
	default:
		return nil, wire.Errorf("InvalidParameterValue", "Value (%.64s) for parameter instanceInitiatedShutdownBehavior is invalid", in.InstanceInitiatedShutdownBehavior)
	}
	if err := checkUserData(in.UserData); err != nil {
		return nil, err
	}
	if err := x.nic(in); err != nil {
		return nil, err
	}
	if err := x.disk(in.BlockDeviceMappings); err != nil {
		return nil, err
	}
	if p := in.Placement; p != nil {
		x.zone = p.AvailabilityZone
		if p.AvailabilityZoneId != "" {
			z, err := s.zone("", p.AvailabilityZoneId)
			if err != nil {
				return nil, err
			}
			x.zone = z
		}
	}
	if err := checkMeta(in.MetadataOptions); err != nil {
		return nil, err
	}
	var err error
	if x.tags, err = tagSpecs(ctx, in.TagSpecifications, launchTagKinds...); err != nil {
		return nil, err
	}
	if t := in.LaunchTemplate; t != nil {
		m := map[string]string{"aws:ec2launchtemplate:id": t.LaunchTemplateId, "aws:ec2launchtemplate:version": t.Version}
		for k, v := range x.tags["instance"] {
			m[k] = v
		}
		x.tags["instance"] = m
	}
	if x.profile, err = s.findProfile(ctx, in.IamInstanceProfile); err != nil {
		return nil, err
	}
	return x, nil
}

// refuse answers for what no launch here can have.
func refuse(in *ec2api.RunInstancesRequest) error {
	on := func(what string, cond bool) error {
		if cond {
			return unsupported("%s", what)
		}
		return nil
	}
	p := in.Placement
	if p == nil {
		p = &ec2api.Placement{}
	}
	for _, err := range []error{
		on("spot instances (InstanceMarketOptions)", in.InstanceMarketOptions != nil),
		on("hibernation", in.HibernationOptions != nil && yes(in.HibernationOptions.Configured)),
		on("enclaves", in.EnclaveOptions != nil && yes(in.EnclaveOptions.Enabled)),
		on("accelerators", len(in.ElasticGpuSpecification) > 0 || len(in.ElasticInferenceAccelerators) > 0),
		on("licenses", len(in.LicenseSpecifications) > 0),
		on("capacity reservations", in.CapacityReservationSpecification != nil && in.CapacityReservationSpecification.CapacityReservationTarget != nil),
		on("CPU options", in.CpuOptions != nil),
		on("kernels and RAM disks of one's own", in.KernelId != "" || in.RamdiskId != ""),
		on("IPv6 addresses of instances", in.Ipv6AddressCount != nil && *in.Ipv6AddressCount > 0 || len(in.Ipv6Addresses) > 0 || yes(in.EnablePrimaryIpv6)),
		on("secondary network interfaces", len(in.SecondaryInterfaces) > 0),
		on("tenancy "+p.Tenancy, p.Tenancy != "" && p.Tenancy != "default"),
		on("placement groups and hosts", p.GroupName != "" || p.GroupId != "" || p.HostId != "" || p.HostResourceGroupArn != "" || p.PartitionNumber != nil || p.Affinity != ""),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// nic reads the network part: either of the request itself, or of the one
// interface that it describes.
func (x *spec) nic(in *ec2api.RunInstancesRequest) error {
	addr := in.PrivateIpAddress
	if len(in.SecurityGroups) > 0 {
		return wire.Errorf("InvalidParameterCombination", "The parameter groupName cannot be used with the parameter subnet")
	}
	if len(in.NetworkInterfaces) > 0 {
		n := in.NetworkInterfaces[0]
		switch {
		case len(in.NetworkInterfaces) > 1:
			return unsupported("more than one network interface")
		case n == nil:
			return wire.Errorf("InvalidParameterValue", "The network interface is empty")
		case in.SubnetId != "":
			return wire.Errorf("InvalidParameterCombination", "Network interfaces and an instance-level subnet ID may not be specified on the same request")
		case len(in.SecurityGroupIds) > 0:
			return wire.Errorf("InvalidParameterCombination", "Network interfaces and an instance-level security groups may not be specified on the same request")
		case in.PrivateIpAddress != "":
			return wire.Errorf("InvalidParameterCombination", "Network interfaces and an instance-level private address may not be specified on the same request")
		case n.DeviceIndex != nil && *n.DeviceIndex != 0 || n.NetworkCardIndex != nil && *n.NetworkCardIndex != 0:
			return wire.Errorf("InvalidParameterValue", "The first network interface has the device index 0")
		case n.NetworkInterfaceId != "":
			return unsupported("network interfaces that were made before")
		case n.DeleteOnTermination != nil && !*n.DeleteOnTermination:
			return unsupported("network interfaces that stay when their instance terminates")
		case n.InterfaceType != "" && n.InterfaceType != "interface" || yes(n.AssociateCarrierIpAddress):
			return unsupported("network interfaces of type %q", n.InterfaceType)
		case n.SecondaryPrivateIpAddressCount != nil && *n.SecondaryPrivateIpAddressCount > 0 || len(n.PrivateIpAddresses) > 1 || len(n.Ipv4Prefixes) > 0 || n.Ipv4PrefixCount != nil:
			return unsupported("secondary private addresses")
		case n.Ipv6AddressCount != nil && *n.Ipv6AddressCount > 0 || len(n.Ipv6Addresses) > 0 || len(n.Ipv6Prefixes) > 0 || n.Ipv6PrefixCount != nil || yes(n.PrimaryIpv6):
			return unsupported("IPv6 addresses of instances")
		}
		x.subnet, x.groups, x.public, x.cardText, addr = n.SubnetId, n.Groups, n.AssociatePublicIpAddress, n.Description, n.PrivateIpAddress
		if len(n.PrivateIpAddresses) == 1 && n.PrivateIpAddresses[0] != nil && addr == "" {
			addr = n.PrivateIpAddresses[0].PrivateIpAddress
		}
	}
	if x.subnet == "" {
		return wire.Errorf("VPCIdNotSpecified", "No default VPC for this user. A subnet must be named.")
	}
	if addr != "" {
		ip, err := netip.ParseAddr(addr)
		if err != nil || !ip.Is4() {
			return wire.Errorf("InvalidParameterValue", "Value (%.40s) for parameter privateIpAddress is invalid", addr)
		}
		if x.max > 1 {
			return wire.Errorf("InvalidParameterCombination", "A private address may be given for a single instance only")
		}
		x.ip = ip
	}
	return nil
}

// disk reads what is said about the root volume, the only one there is.
func (x *spec) disk(ms []*ec2api.BlockDeviceMapping) error {
	x.volumeType = "gp3"
	for _, m := range ms {
		if m == nil {
			continue
		}
		if x.device != "" || m.Ebs == nil {
			return unsupported("volumes beside the root volume (%s)", m.DeviceName)
		}
		e := m.Ebs
		switch {
		case e.DeleteOnTermination != nil && !*e.DeleteOnTermination:
			return unsupported("volumes that stay when their instance terminates")
		case yes(e.Encrypted) || e.KmsKeyId != "":
			return unsupported("encrypted volumes")
		case e.SnapshotId != "":
			return unsupported("a root volume of another snapshot than the image's")
		case e.VolumeSize != nil && (*e.VolumeSize < 1 || *e.VolumeSize > 16384):
			return wire.Errorf("InvalidParameterValue", "Volume of %dGiB is out of range", *e.VolumeSize)
		case e.VolumeType != "" && !slices.Contains([]string{"gp2", "gp3", "io1", "io2", "standard", "st1", "sc1"}, e.VolumeType):
			return wire.Errorf("InvalidParameterValue", "Invalid volume type '%.20s'", e.VolumeType)
		}
		x.device = m.DeviceName
		if e.VolumeSize != nil {
			x.volumeGiB = *e.VolumeSize
		}
		if e.VolumeType != "" {
			x.volumeType = e.VolumeType
		}
	}
	return nil
}

// findProfile asks IAM for an instance profile.
func (s *Service) findProfile(ctx context.Context, p *ec2api.IamInstanceProfileSpecification) (*profile, error) {
	if p == nil || p.Arn == "" && p.Name == "" {
		return nil, nil
	}
	if p.Arn != "" && p.Name != "" {
		return nil, wire.Errorf("InvalidParameterCombination", "The parameter 'iamInstanceProfile.name' may not be used in combination with 'iamInstanceProfile.arn'")
	}
	name := p.Name
	if p.Arn != "" {
		name = p.Arn[strings.LastIndex(p.Arn, "/")+1:]
	}
	c, _ := wire.CallerFrom(ctx)
	c.Account, c.Service = s.cfg.Account, "ec2"
	out, err := wire.Call[iamapi.GetInstanceProfileResponse](wire.WithCaller(ctx, c), s.cfg.Bus, "iam", "GetInstanceProfile", &iamapi.GetInstanceProfileRequest{InstanceProfileName: name})
	if e, ok := err.(*wire.Error); ok && (e.Code == "NoSuchEntity" || e.Code == "ValidationError") || err == nil && (out == nil || out.InstanceProfile == nil || p.Arn != "" && out.InstanceProfile.Arn != p.Arn) {
		if p.Arn != "" {
			return nil, wire.Errorf("InvalidParameterValue", "Value (%.200s) for parameter iamInstanceProfile.arn is invalid. Invalid IAM Instance Profile ARN", p.Arn)
		}
		return nil, wire.Errorf("InvalidParameterValue", "Value (%.128s) for parameter iamInstanceProfile.name is invalid. Invalid IAM Instance Profile name", p.Name)
	}
	if err != nil {
		return nil, err
	}
	return &profile{ARN: out.InstanceProfile.Arn, ID: out.InstanceProfile.InstanceProfileId}, nil
}
