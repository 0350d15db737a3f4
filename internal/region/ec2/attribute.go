package ec2

import (
	"context"
	"encoding/base64"
	"strconv"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// DescribeInstanceAttribute tells one attribute of an instance.
func (s *Service) DescribeInstanceAttribute(ctx context.Context, in *ec2api.DescribeInstanceAttributeRequest) (*ec2api.InstanceAttribute, error) {
	out := &ec2api.InstanceAttribute{InstanceId: in.InstanceId}
	var err error
	s.view(func(tx *state.Tx) {
		i, ok := s.instances.Get(tx, in.InstanceId)
		if !ok {
			err = noInstance(in.InstanceId)
			return
		}
		if err = dry(in.DryRun); err != nil {
			return
		}
		flag := func(b bool) *ec2api.AttributeBooleanValue { return &ec2api.AttributeBooleanValue{Value: new(b)} }
		text := func(s string) *ec2api.AttributeValue { return &ec2api.AttributeValue{Value: s} }
		switch in.Attribute {
		case "instanceType":
			out.InstanceType = text(i.Type)
		case "userData":
			out.UserData = text(i.UserData)
		case "disableApiTermination":
			out.DisableApiTermination = flag(i.NoTerminate)
		case "disableApiStop":
			out.DisableApiStop = flag(i.NoStop)
		case "instanceInitiatedShutdownBehavior":
			out.InstanceInitiatedShutdownBehavior = text("stop")
			if i.Terminate {
				out.InstanceInitiatedShutdownBehavior = text("terminate")
			}
		case "rootDeviceName":
			out.RootDeviceName = text(rootDevice)
		case "blockDeviceMapping":
			out.BlockDeviceMappings = s.instanceView(tx)(i).BlockDeviceMappings
		case "groupSet":
			c, _ := s.cards.Get(tx, i.Card)
			out.Groups = s.groupIDs(tx, c.Groups)
		case "ebsOptimized":
			out.EbsOptimized = flag(i.EBSOptimized)
		case "sourceDestCheck":
			out.SourceDestCheck = flag(true)
		case "enaSupport":
			out.EnaSupport = flag(true)
		case "enclaveOptions":
			out.EnclaveOptions = &ec2api.EnclaveOptions{Enabled: new(false)}
		case "productCodes", "kernel", "ramdisk", "sriovNetSupport": // none
		default:
			err = wire.Errorf("InvalidParameterValue", "Value (%.64s) for parameter attribute is invalid. Unknown attribute.", in.Attribute)
		}
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// oldForm carries Attribute and Value, as old clients send them, into the
// fields of the attribute.
func oldForm(in *ec2api.ModifyInstanceAttributeRequest) (*ec2api.ModifyInstanceAttributeRequest, error) {
	if in.Attribute == "" {
		return in, nil
	}
	out := *in
	flag := func() (*ec2api.AttributeBooleanValue, error) {
		b, err := strconv.ParseBool(in.Value)
		if err != nil {
			return nil, wire.Errorf("InvalidParameterValue", "Value (%.20s) for parameter value is invalid. Expecting a boolean.", in.Value)
		}
		return &ec2api.AttributeBooleanValue{Value: new(b)}, nil
	}
	var err error
	switch in.Attribute {
	case "disableApiTermination":
		out.DisableApiTermination, err = flag()
	case "disableApiStop":
		out.DisableApiStop, err = flag()
	case "sourceDestCheck":
		out.SourceDestCheck, err = flag()
	case "instanceInitiatedShutdownBehavior":
		out.InstanceInitiatedShutdownBehavior = &ec2api.AttributeValue{Value: in.Value}
	case "instanceType":
		out.InstanceType = &ec2api.AttributeValue{Value: in.Value}
	case "userData":
		raw, derr := base64.StdEncoding.DecodeString(in.Value)
		if derr != nil {
			err = wire.Errorf("InvalidUserData.Malformed", "Invalid BASE64 encoding of user data.")
		}
		out.UserData = &ec2api.SecureBlobAttributeValue{Value: raw}
	default:
		err = unsupported("changing the attribute %.64q", in.Attribute)
	}
	return &out, err
}

// ModifyInstanceAttribute changes one attribute of an instance.
func (s *Service) ModifyInstanceAttribute(ctx context.Context, in *ec2api.ModifyInstanceAttributeRequest) error {
	in, err := oldForm(in)
	if err != nil {
		return err
	}
	if len(in.BlockDeviceMappings) > 0 || in.EbsOptimized != nil || in.EnaSupport != nil || in.EnclaveOptions != nil || in.Kernel != nil || in.Ramdisk != nil || in.SriovNetSupport != nil {
		return unsupported("changing this attribute of an instance")
	}
	if in.SourceDestCheck != nil && !yes(in.SourceDestCheck.Value) {
		return unsupported("instances that forward packets (sourceDestCheck=false)")
	}
	var c card
	err = s.update(func(tx *state.Tx) error {
		i, ok := s.instances.Get(tx, in.InstanceId)
		if !ok {
			return noInstance(in.InstanceId)
		}
		if i.State == terminated || i.State == shuttingDown {
			return wrongState(&i, "modified")
		}
		n := 0
		if in.SourceDestCheck != nil {
			n++
		}
		if in.DisableApiTermination != nil {
			i.NoTerminate = yes(in.DisableApiTermination.Value)
			n++
		}
		if in.DisableApiStop != nil {
			i.NoStop = yes(in.DisableApiStop.Value)
			n++
		}
		if v := in.InstanceInitiatedShutdownBehavior; v != nil {
			if v.Value != "stop" && v.Value != "terminate" {
				return wire.Errorf("InvalidParameterValue", "Value (%.32s) for parameter instanceInitiatedShutdownBehavior is invalid", v.Value)
			}
			i.Terminate = v.Value == "terminate"
			n++
		}
		if v := in.InstanceType; v != nil {
			if v.Value != i.Type {
				return unsupported("another type for an instance; launch a new one")
			}
			n++
		}
		if v := in.UserData; v != nil {
			if i.State != stopped {
				return wire.Errorf("IncorrectInstanceState", "The instance '%s' is not in the 'stopped' state.", i.ID)
			}
			if len(v.Value) > maxUserData {
				return wire.Errorf("InvalidParameterValue", "User data is limited to %d bytes", maxUserData)
			}
			i.UserData = base64.StdEncoding.EncodeToString(v.Value)
			n++
		}
		if len(in.Groups) > 0 {
			c, _ = s.cards.Get(tx, i.Card)
			groups, err := s.checkGroups(tx, i.VPC, in.Groups)
			if err != nil {
				return err
			}
			c.Groups = groups
			s.putCard(tx, c)
			n++
		}
		if n != 1 {
			return wire.Errorf("InvalidParameterCombination", "Exactly one attribute must be given, not %d", n)
		}
		s.putInstance(tx, i)
		return dry(in.DryRun)
	})
	if err != nil || c.ID == "" {
		return err
	}
	return s.pushCard(ctx, c.VPC, c.ID)
}

// ModifyInstanceMetadataOptions changes how an instance reaches its metadata,
// at once.
func (s *Service) ModifyInstanceMetadataOptions(ctx context.Context, in *ec2api.ModifyInstanceMetadataOptionsRequest) (*ec2api.ModifyInstanceMetadataOptionsResult, error) {
	m := &ec2api.InstanceMetadataOptionsRequest{HttpEndpoint: in.HttpEndpoint, HttpProtocolIpv6: in.HttpProtocolIpv6, HttpPutResponseHopLimit: in.HttpPutResponseHopLimit, HttpTokens: in.HttpTokens, InstanceMetadataTags: in.InstanceMetadataTags}
	if err := checkMeta(m); err != nil {
		return nil, err
	}
	out := &ec2api.ModifyInstanceMetadataOptionsResult{InstanceId: in.InstanceId}
	return out, s.update(func(tx *state.Tx) error {
		i, ok := s.instances.Get(tx, in.InstanceId)
		if !ok {
			return noInstance(in.InstanceId)
		}
		if i.State == terminated || i.State == shuttingDown {
			return wrongState(&i, "modified")
		}
		i.Meta = applyMeta(i.Meta, m)
		if i.Meta.Tags {
			t, _ := s.tagsOf.Get(tx, i.ID)
			if err := checkMetaTags(t.Tags); err != nil {
				return err
			}
		}
		s.putInstance(tx, i)
		out.InstanceMetadataOptions = metaView(i.Meta)
		return dry(in.DryRun)
	})
}
