package ec2

import (
	"encoding/base64"
	"maps"
	"net/netip"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/ec2/instancetype"
	"github.com/dayfly-infra/dayfly/internal/region/network"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

// InstanceView is what the metadata service tells an instance about itself.
type InstanceView struct {
	ID, Image, Type string
	Architecture    string // x86_64
	State           string
	Reservation     string
	Index           int64
	Account, Region string
	Zone, ZoneID    string
	VPC, Subnet     string
	VPCCIDRs        []string
	SubnetCIDR      string
	Interface       string // eni-…
	MAC             string
	IP, Public      netip.Addr
	Hostname        string // with its domain, as local-hostname tells it
	PublicHostname  string
	Groups          []Group
	ProfileARN      string // of the instance profile, "" = none
	ProfileID       string
	Tags            map[string]string // nil where metadata shall not show them
	Metadata        MetadataOptions
	UserData        []byte
	Launched        time.Time
	VCPUs           int
	MemoryMiB       int64
}

// Group names a security group of an instance.
type Group struct{ ID, Name string }

// MetadataOptions say how an instance reaches its metadata.
type MetadataOptions struct {
	Enabled       bool
	TokenRequired bool // IMDSv2 only
	HopLimit      int64
	Tags          bool
}

// InstanceByAddress finds the instance with a private address in a VPC, in one
// step.
func (s *Service) InstanceByAddress(vpc string, ip netip.Addr) (id string, ok bool) {
	s.view(func(tx *state.Tx) {
		c, found := s.cards.Get(tx, s.ix.at[place{vpc, ip.Unmap()}])
		id, ok = c.Instance, found && c.Instance != ""
	})
	return id, ok
}

// Snapshot tells what an instance is at this moment; terminated ones are gone.
func (s *Service) Snapshot(id string) (v InstanceView, ok bool) {
	s.view(func(tx *state.Tx) {
		var i instance
		if i, ok = s.instances.Get(tx, id); !ok || i.State == terminated {
			ok = false
			return
		}
		t, _ := instancetype.Get(i.Type)
		c, _ := s.cards.Get(tx, i.Card)
		sn, _ := s.subnets.Get(tx, i.Subnet)
		vp, _ := s.vpcs.Get(tx, i.VPC)
		v = InstanceView{
			ID: i.ID, Image: i.Image, Type: i.Type, Architecture: "x86_64", State: i.State, Reservation: i.Reservation, Index: i.Index, Account: s.cfg.Account, Region: s.cfg.Region,
			Zone: i.Zone, ZoneID: s.zoneID(i.Zone), VPC: i.VPC, Subnet: i.Subnet, SubnetCIDR: sn.CIDR, Interface: i.Card, MAC: network.MAC(i.Card).String(), IP: i.IP, Public: c.Public,
			Hostname: s.privateName(i), PublicHostname: s.publicName(tx, i.VPC, c.Public), Launched: i.Launched, VCPUs: t.VCPUs, MemoryMiB: t.MemoryMiB,
			Metadata: MetadataOptions{Enabled: !i.Meta.Off, TokenRequired: i.Meta.Required, HopLimit: i.Meta.Hops, Tags: i.Meta.Tags},
		}
		for _, b := range vp.CIDRs {
			v.VPCCIDRs = append(v.VPCCIDRs, b.CIDR)
		}
		for _, g := range c.Groups {
			rec, _ := s.groups.Get(tx, g)
			v.Groups = append(v.Groups, Group{g, rec.Name})
		}
		if i.Profile != nil {
			v.ProfileARN, v.ProfileID = i.Profile.ARN, i.Profile.ID
		}
		if i.Meta.Tags {
			set, _ := s.tagsOf.Get(tx, i.ID)
			v.Tags = maps.Clone(set.Tags)
			if v.Tags == nil {
				v.Tags = map[string]string{}
			}
		}
		v.UserData, _ = base64.StdEncoding.DecodeString(i.UserData) // checked when it came in
	})
	return v, ok
}

// AddressByName resolves a private DNS name inside a VPC, such as
// ip-10-0-1-5.REGION.compute.internal or i-….REGION.compute.internal.
func (s *Service) AddressByName(vpc, name string) (netip.Addr, bool) {
	host, ok := strings.CutSuffix(strings.ToLower(strings.TrimSuffix(name, ".")), "."+s.domain())
	if !ok {
		return netip.Addr{}, false
	}
	if rest, ok := strings.CutPrefix(host, "ip-"); ok {
		a, err := netip.ParseAddr(strings.ReplaceAll(rest, "-", "."))
		if err != nil {
			return netip.Addr{}, false
		}
		_, there := s.InstanceByAddress(vpc, a)
		return a, there
	}
	v, ok := s.Snapshot(host)
	return v.IP, ok && v.VPC == vpc
}

// VPC is a network that instances may be in.
type VPC struct {
	ID    string
	CIDRs []netip.Prefix
	DNS   bool // the resolver answers
}

// VPCs lists the VPCs that are there, for those who listen inside them.
func (s *Service) VPCs() (out []VPC) {
	s.view(func(tx *state.Tx) {
		for _, v := range s.vpcs.All(tx) {
			x := VPC{ID: v.ID, DNS: v.DNSSupport}
			for _, b := range v.CIDRs {
				x.CIDRs = append(x.CIDRs, netip.MustParsePrefix(b.CIDR))
			}
			out = append(out, x)
		}
	})
	return out
}
