package ec2

import (
	"regexp"

	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// The errors of ids that are not there, with AWS's own codes.

func noVPC(id string) error {
	return wire.Errorf("InvalidVpcID.NotFound", "The vpc ID '%.64s' does not exist", id)
}
func noSubnet(id string) error {
	return wire.Errorf("InvalidSubnetID.NotFound", "The subnet ID '%.64s' does not exist", id)
}
func noRouteTable(id string) error {
	return wire.Errorf("InvalidRouteTableID.NotFound", "The routeTable ID '%.64s' does not exist", id)
}
func noAssociation(id string) error {
	return wire.Errorf("InvalidAssociationID.NotFound", "The association ID '%.64s' does not exist", id)
}
func noIGW(id string) error {
	return wire.Errorf("InvalidInternetGatewayID.NotFound", "The internetGateway ID '%.64s' does not exist", id)
}
func noEIGW(id string) error {
	return wire.Errorf("InvalidGatewayID.NotFound", "The eigw ID '%.64s' does not exist", id)
}
func noNAT(id string) error {
	return wire.Errorf("NatGatewayNotFound", "NatGateway %.64s was not found", id)
}
func noAllocation(id string) error {
	return wire.Errorf("InvalidAllocationID.NotFound", "The allocation ID '%.64s' does not exist", id)
}
func noACL(id string) error {
	return wire.Errorf("InvalidNetworkAclID.NotFound", "The networkAcl ID '%.64s' does not exist", id)
}
func noDHCP(id string) error {
	return wire.Errorf("InvalidDhcpOptionID.NotFound", "The dhcpOption ID '%.64s' does not exist", id)
}
func noRule(id string) error {
	return wire.Errorf("InvalidSecurityGroupRuleId.NotFound", "The security group rule ID '%.64s' does not exist", id)
}
func noCard(id string) error {
	return wire.Errorf("InvalidNetworkInterfaceID.NotFound", "The networkInterface ID '%.64s' does not exist", id)
}
func noVolume(id string) error {
	return wire.Errorf("InvalidVolume.NotFound", "The volume '%.64s' does not exist.", id)
}
func noSnapshot(id string) error {
	return wire.Errorf("InvalidSnapshot.NotFound", "The snapshot '%.64s' does not exist.", id)
}

var (
	instanceForm = regexp.MustCompile(`^i-([0-9a-f]{8}|[0-9a-f]{17})$`)
	imageForm    = regexp.MustCompile(`^ami-[0-9a-f]{8,17}$`)
	groupForm    = regexp.MustCompile(`^sg-[0-9a-zA-Z-]{1,40}$`)
)

func noInstance(id string) error {
	if !instanceForm.MatchString(id) {
		return wire.Errorf("InvalidInstanceID.Malformed", "Invalid id: \"%.64s\"", id)
	}
	return wire.Errorf("InvalidInstanceID.NotFound", "The instance ID '%s' does not exist", id)
}

func noImage(id string) error {
	if !imageForm.MatchString(id) {
		return wire.Errorf("InvalidAMIID.Malformed", "Invalid id: \"%.64s\"", id)
	}
	return wire.Errorf("InvalidAMIID.NotFound", "The image id '[%s]' does not exist", id)
}

func noGroup(id string) error {
	if !groupForm.MatchString(id) {
		return wire.Errorf("InvalidGroupId.Malformed", "Invalid id: \"%.64s\"", id)
	}
	return wire.Errorf("InvalidGroup.NotFound", "The security group '%s' does not exist", id)
}
