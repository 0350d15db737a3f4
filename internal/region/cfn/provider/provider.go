// Package provider makes, changes and deletes the resources of CloudFormation
// stacks by calling the region's other services over the bus, one provider a
// resource type. A provider says how an interrupted creation's result is found
// again, so that nothing is ever made twice. It must not know stacks, events
// or templates.
package provider

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Request is one resource that a provider is to treat.
type Request struct {
	Bus             *wire.Bus
	Account, Region string

	StackID, StackName, Logical string
	// Generation counts replacements: every generation has a name and a token
	// of its own.
	Generation int
	// ID is the physical id, once it is known.
	ID string
	// Properties are what the template wants; Old what there was before an update.
	Properties, Old map[string]any
	// Tags are the stack's own and the aws:cloudformation: ones; OldTags those
	// before an update.
	Tags, OldTags map[string]string
	// Others are ids of the resource's other generations.
	Others []string
}

// Provider treats one resource type. Find and Create are always there; nil
// elsewhere means that there is nothing to do.
type Provider struct {
	// Find looks for what an interrupted Create made; "" is nothing.
	Find func(context.Context, *Request) (id string, err error)
	// Create makes the resource in one call. A repeated call under the same
	// token gives the same resource, or Find finds it.
	Create func(context.Context, *Request) (id string, err error)
	// Configure does what Create's call cannot; it can be repeated.
	Configure func(context.Context, *Request) error
	// Ready tells whether the resource can be used.
	Ready func(context.Context, *Request) (bool, error)
	// Update changes the properties that Mutable lists from Old to Properties.
	Update  func(context.Context, *Request) error
	Mutable []string
	// Remove begins the deletion; what is gone already is success.
	Remove func(context.Context, *Request) error
	// Gone tells whether the deletion is done.
	Gone func(context.Context, *Request) (bool, error)
	// Attributes are the values of GetAtt as they are now.
	Attributes func(context.Context, *Request) (map[string]any, error)
	// Ref is what a Ref to the resource gives; nil: its physical id.
	Ref func(*Request) (string, error)
	// Volatile are the attributes that an Update may change.
	Volatile []string
	// Named is the property that gives the resource a name of the user's.
	Named string
	// After are types whose resources go before this one though the template
	// does not say so: those with the same value of a property, or, with *,
	// all. Templates leave such orders out where AWS is slow enough for them
	// to come about by themselves.
	After map[string]string
	// Refuse tells why properties cannot be realised, before anything is made:
	// the property's name and the reason. Values that are not known yet are nil.
	Refuse func(properties map[string]any) (property, reason string)
}

var providers = map[string]*Provider{
	"AWS::AutoScaling::AutoScalingGroup":        autoScalingGroup,
	"AWS::AutoScaling::LifecycleHook":           lifecycleHook,
	"AWS::CloudFormation::WaitConditionHandle":  waitConditionHandle,
	"AWS::EC2::EIP":                             elasticIP,
	"AWS::EC2::EgressOnlyInternetGateway":       egressGateway,
	"AWS::EC2::Instance":                        instance,
	"AWS::EC2::InternetGateway":                 internetGateway,
	"AWS::EC2::LaunchTemplate":                  launchTemplate,
	"AWS::EC2::NatGateway":                      natGateway,
	"AWS::EC2::NetworkAcl":                      networkACL,
	"AWS::EC2::NetworkAclEntry":                 networkACLEntry,
	"AWS::EC2::Route":                           route,
	"AWS::EC2::RouteTable":                      routeTable,
	"AWS::EC2::SecurityGroup":                   securityGroup,
	"AWS::EC2::SecurityGroupEgress":             securityGroupEgress,
	"AWS::EC2::SecurityGroupIngress":            securityGroupIngress,
	"AWS::EC2::Subnet":                          subnet,
	"AWS::EC2::SubnetCidrBlock":                 subnetCIDRBlock,
	"AWS::EC2::SubnetNetworkAclAssociation":     networkACLAssociation,
	"AWS::EC2::SubnetRouteTableAssociation":     routeTableAssociation,
	"AWS::EC2::VPC":                             vpc,
	"AWS::EC2::VPCCidrBlock":                    vpcCIDRBlock,
	"AWS::EC2::VPCGatewayAttachment":            gatewayAttachment,
	"AWS::ElasticLoadBalancingV2::Listener":     listener,
	"AWS::ElasticLoadBalancingV2::ListenerRule": listenerRule,
	"AWS::ElasticLoadBalancingV2::LoadBalancer": loadBalancer,
	"AWS::ElasticLoadBalancingV2::TargetGroup":  targetGroup,
	"AWS::IAM::InstanceProfile":                 instanceProfile,
	"AWS::IAM::ManagedPolicy":                   managedPolicy,
	"AWS::IAM::Policy":                          policy,
	"AWS::IAM::Role":                            role,
	"AWS::SSM::Parameter":                       parameter,
}

// Orders that AWS's slowness gives: the way out of a VPC is there before what
// needs it, and an instance does not boot before its routes, rules and rights.
var (
	afterGateway = map[string]string{"AWS::EC2::VPCGatewayAttachment": "*"}
	beforeBoot   = map[string]string{
		"AWS::EC2::VPCGatewayAttachment": "*", "AWS::EC2::Route": "*", "AWS::EC2::SubnetRouteTableAssociation": "*",
		"AWS::EC2::SecurityGroupIngress": "*", "AWS::EC2::SecurityGroupEgress": "*", "AWS::IAM::Policy": "*", "AWS::IAM::ManagedPolicy": "*",
	}
)

// For returns the provider of a resource type.
func For(resourceType string) (*Provider, bool) {
	p, ok := providers[resourceType]
	return p, ok
}

// Types returns the types that have a provider, sorted.
func Types() []string { return slices.Sorted(maps.Keys(providers)) }

func (r *Request) hash() []byte {
	h := sha256.Sum256([]byte(r.StackID + "\x00" + r.Logical + "\x00" + strconv.Itoa(r.Generation)))
	return h[:]
}

// Token is the client token of the resource's creation.
func (r *Request) Token() string { return hex.EncodeToString(r.hash()[:16]) }

const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// Name is the name that the resource gets where the user gives none:
// stack-logical-random, at most limit characters, the same one every time.
func (r *Request) Name(limit int) string {
	suffix := make([]byte, 12)
	for i, b := range r.hash()[16:28] {
		suffix[i] = letters[int(b)%len(letters)]
	}
	stack, logical := r.StackName, r.Logical
	room := limit - len(suffix) - 2
	if len(stack)+len(logical) > room {
		half := room / 2
		switch {
		case len(stack) <= half:
			logical = logical[:room-len(stack)]
		case len(logical) <= half:
			stack = stack[:room-len(logical)]
		default:
			stack, logical = stack[:room-half], logical[:half]
		}
	}
	return strings.TrimRight(stack, "-") + "-" + strings.TrimRight(logical, "-") + "-" + string(suffix)
}

// custom is the user's name in a property, or a made one.
func (r *Request) custom(property string, limit int) string {
	if n := text(r.Properties, property); n != "" {
		return n
	}
	return r.Name(limit)
}

// call runs an operation of another service.
func call[Out any](ctx context.Context, r *Request, service, operation string, in any) (*Out, error) {
	return wire.Call[Out](ctx, r.Bus, service, operation, in)
}

// do runs an operation whose answer does not matter.
func do(ctx context.Context, r *Request, service, operation string, in any) error {
	_, err := r.Bus.Invoke(ctx, service, operation, in)
	return err
}
