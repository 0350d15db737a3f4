// Package network is the port between the region's services and what carries
// packets: network/kernel (namespaces, bridges, nftables, through netlink) and
// network/sim (decides with the same rules, in memory). It knows VPCs,
// addresses, routes and packet filters; it must not know instances or EC2.
package network

import (
	"context"
	"net/netip"
)

// VPC is a network of its own; the same prefix may be in many.
type VPC struct {
	ID    string         // vpc-…
	CIDRs []netip.Prefix // IPv4
}

// Egress is where a subnet's default route leads.
type Egress string

const (
	EgressNone     Egress = ""         // no way out
	EgressInternet Egress = "internet" // internet gateway: an interface needs a public address to use it
	EgressNAT      Egress = "nat"      // NAT gateway: everything leaves by one address
)

// Subnet is a bridge inside a VPC; .1 is its router, as on AWS.
type Subnet struct {
	ID     string
	VPC    string
	CIDR   netip.Prefix
	Egress Egress
}

// Interface is a network card (ENI).
type Interface struct {
	ID     string // eni-…
	VPC    string
	Subnet string
	IP     netip.Addr
	Public netip.Addr // 1:1 address in the internet; the zero Addr is none
	Groups []string   // sg-…
	// Shared is true for cards of load balancers, whose processes run in the
	// VPC's own namespace: the address is then there, and no namespace is made.
	Shared bool
}

// Rule lets packets pass; what no rule lets pass is dropped. Answers to what
// was let pass always pass.
type Rule struct {
	Protocol string       // "tcp", "udp", "icmp" or "-1" for all
	From, To int          // ports, inclusive; -1, -1 = all
	CIDR     netip.Prefix // peer's prefix, or
	Group    string       // peer is any interface in this group
}

// Group is a security group.
type Group struct {
	ID      string
	VPC     string
	Ingress []Rule
	Egress  []Rule
}

// Network carries packets. Every Ensure and Remove is idempotent and safe for
// concurrent use, Ensure also changes what is there; all of it outlives the
// process, and a new Network adopts it.
type Network interface {
	EnsureVPC(ctx context.Context, v VPC) error
	RemoveVPC(ctx context.Context, id string) error // interfaces and subnets must be gone
	EnsureSubnet(ctx context.Context, s Subnet) error
	RemoveSubnet(ctx context.Context, vpc, id string) error
	EnsureGroup(ctx context.Context, g Group) error
	RemoveGroup(ctx context.Context, vpc, id string) error

	// Attach makes interfaces (many at once: that is the fast way) with their
	// groups; the result has, per interface, the path of a network namespace
	// with eth0 up, its address and default route set ("" where Shared).
	Attach(ctx context.Context, is []Interface) (netns []string, err error)
	// SetGroups replaces an interface's groups.
	SetGroups(ctx context.Context, vpc, eni string, groups []string) error
	Detach(ctx context.Context, vpc string, enis []string) error

	// AllocatePublic reserves an address of the region's internet; Release
	// gives it back. Both survive a restart through the caller, who names the
	// addresses in use with every Interface.
	AllocatePublic(ctx context.Context) (netip.Addr, error)
	ReleasePublic(ctx context.Context, a netip.Addr) error

	// NetNS is the path of a VPC's own namespace, for listeners and
	// balancers; "" in a simulation.
	NetNS(vpc string) string
	// VPCs lists the networks that are there, for the sweep after a crash.
	VPCs(ctx context.Context) ([]string, error)
	// Sweep removes every kernel object of this region that is not in keep
	// (interfaces by ENI id), and returns what it removed.
	Sweep(ctx context.Context, vpcs, enis []string) (removed []string, err error)
	Close() error
}

// Link-local addresses inside every VPC, as instances see them.
var (
	MetadataAddr = netip.MustParseAddr("169.254.169.254") // IMDS, port 80
	ResolverAddr = netip.MustParseAddr("169.254.169.253") // DNS, port 53 (also at VPC+2)
	EndpointAddr = netip.MustParseAddr("169.254.169.250") // AWS API, port 80
)
