package ec2

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// rootDevice is where every image has its root volume.
const rootDevice = "/dev/xvda"

// RunInstances writes new instances down as pending and answers; Run makes
// them. The same client token gives the same reservation again.
func (s *Service) RunInstances(ctx context.Context, in *ec2api.RunInstancesRequest) (*ec2api.Reservation, error) {
	hash := hashOf(in)
	var ids []string
	var err error
	s.view(func(tx *state.Tx) { ids, err = s.once(tx, "reservation", in.ClientToken, hash) })
	if err != nil {
		return nil, err
	}
	var out *ec2api.Reservation
	if ids == nil {
		req, err := s.fromTemplate(in)
		if err != nil {
			return nil, err
		}
		x, err := s.specOf(ctx, req)
		if err != nil {
			return nil, err
		}
		var made []string
		err = s.update(func(tx *state.Tx) error {
			if ids, err = s.once(tx, "reservation", in.ClientToken, hash); err != nil || ids != nil {
				return err // somebody was faster with the same token
			}
			if made, err = s.reserve(tx, x); err != nil {
				return err
			}
			s.remember(tx, "reservation", in.ClientToken, hash, made...)
			out = s.reservation(tx, made)
			return dry(in.DryRun)
		})
		if err != nil {
			return nil, err
		}
		if made != nil {
			s.work.add(made...)
			return out, nil
		}
	}
	s.view(func(tx *state.Tx) { out = s.reservation(tx, ids) })
	return out, nil
}

// reservation tells the instances of one launch. Those that are forgotten
// already were terminated.
func (s *Service) reservation(tx *state.Tx, ids []string) *ec2api.Reservation {
	out := &ec2api.Reservation{OwnerId: s.cfg.Account}
	view := s.instanceView(tx)
	for _, id := range ids {
		i, ok := s.instances.Get(tx, id)
		if !ok {
			out.Instances = append(out.Instances, &ec2api.Instance{InstanceId: id, State: stateView(terminated)})
			continue
		}
		out.ReservationId = i.Reservation
		out.Instances = append(out.Instances, view(i))
	}
	return out
}

// reserve checks a launch against the tables and writes its instances down.
func (s *Service) reserve(tx *state.Tx, x *spec) ([]string, error) {
	img, ok := s.images.Get(tx, x.image)
	if !ok || !img.Public && img.Owner != s.cfg.Account {
		return nil, noImage(x.image)
	}
	if img.State != "available" {
		return nil, wire.Errorf("InvalidAMIID.Unavailable", "The image id '[%s]' is not available: it is %s", img.ID, img.State)
	}
	if x.device != "" && x.device != rootDevice {
		return nil, unsupported("volumes beside the root volume %s (%.64s)", rootDevice, x.device)
	}
	if x.volumeGiB != 0 && x.volumeGiB < img.GiB {
		return nil, wire.Errorf("InvalidBlockDeviceMapping", "Volume of size %dGB is smaller than snapshot '%s', expect size >= %dGB", x.volumeGiB, img.Snapshot, img.GiB)
	}
	sn, ok := s.subnets.Get(tx, x.subnet)
	if !ok {
		return nil, noSubnet(x.subnet)
	}
	if x.zone != "" && x.zone != sn.Zone {
		return nil, wire.Errorf("InvalidParameterValue", "The availability zone %.64s is not that of subnet %s (%s)", x.zone, sn.ID, sn.Zone)
	}
	groups, err := s.checkGroups(tx, sn.VPC, x.groups)
	if err != nil {
		return nil, err
	}
	n, err := s.room(tx, x, sn)
	if err != nil {
		return nil, err
	}
	base := instance{
		Reservation: s.newID("r"), Token: x.token, Image: img.ID, Disk: img.Disk, Arch: img.Arch, Type: x.kind.Name, State: pending,
		Launched: s.now(), VPC: sn.VPC, Subnet: sn.ID, Zone: sn.Zone, UserData: x.userData, Terminate: x.terminate, NoTerminate: x.noTerm, NoStop: x.noStop,
		Monitoring: x.monitoring, EBSOptimized: x.ebs, VolumeGiB: max(x.volumeGiB, img.GiB), VolumeType: x.volumeType, Epoch: 1,
		WantPublic: sn.MapPublic, Resource: sn.Resource, NameA: sn.NameA,
	}
	if x.public != nil {
		base.WantPublic = *x.public
	}
	if p := x.names; p != nil {
		switch p.HostnameType {
		case "":
		case "ip-name", "resource-name":
			base.Resource = p.HostnameType == "resource-name"
		default:
			return nil, wire.Errorf("InvalidParameterValue", "Value (%.32s) for parameter hostnameType is invalid", p.HostnameType)
		}
		if p.EnableResourceNameDnsARecord != nil {
			base.NameA = *p.EnableResourceNameDnsARecord
		}
	}
	base.Meta = applyMeta(metadata{Required: img.IMDS == "v2.0", Hops: 1}, x.meta)
	if img.IMDS == "v2.0" && (x.meta == nil || x.meta.HttpPutResponseHopLimit == nil) {
		base.Meta.Hops = 2
	}
	if base.Meta.Tags {
		if err := checkMetaTags(x.tags["instance"]); err != nil {
			return nil, err
		}
	}
	ids := make([]string, 0, n)
	for k := range n {
		i := base
		i.ID, i.Index = s.newID("i"), int64(k)
		i.IP = x.ip
		if !i.IP.IsValid() {
			if i.IP, ok = s.ix.take(sn); !ok {
				return nil, noAddresses(sn)
			}
		}
		i.Card = s.newID("eni")
		i.Hostname = hostname(i)
		if x.profile != nil {
			p := *x.profile
			p.Assoc, p.Since = s.newID("iip-assoc"), i.Launched
			i.Profile = &p
		}
		s.putCard(tx, card{ID: i.Card, VPC: sn.VPC, Subnet: sn.ID, Zone: sn.Zone, Kind: cardInstance, IP: i.IP, Groups: groups, Instance: i.ID, Description: x.cardText, Created: i.Launched})
		s.putInstance(tx, i)
		s.putTags(tx, "instance", i.ID, x.tags["instance"])
		s.putTags(tx, "volume", volumeID(i.ID), x.tags["volume"])
		s.putTags(tx, "network-interface", i.Card, x.tags["network-interface"])
		ids = append(ids, i.ID)
	}
	return ids, nil
}

// room is how many instances there is room for, between min and max.
func (s *Service) room(tx *state.Tx, x *spec, sn subnet) (int, error) {
	n := x.max
	if s.full.has(sn.Zone, x.kind.Name) {
		return 0, &wire.Error{Code: "InsufficientInstanceCapacity", Status: http.StatusInternalServerError, Message: fmt.Sprintf(
			"We currently do not have sufficient %s capacity in the Availability Zone you requested (%s). Our system will be working on provisioning additional capacity.", x.kind.Name, sn.Zone)}
	}
	if q := s.cfg.Quota.Instances; q > 0 {
		n = min(n, q-s.ix.live)
		if n < x.min {
			return 0, wire.Errorf("InstanceLimitExceeded", "You have requested more instances (%d) than your current instance limit of %d allows.", s.ix.live+x.min, q)
		}
	}
	if q := s.cfg.Quota.VCPUs; q > 0 {
		n = min(n, (q-s.ix.vcpus)/x.kind.VCPUs)
		if n < x.min {
			return 0, wire.Errorf("VcpuLimitExceeded", "You have requested more vCPU capacity than your current vCPU limit of %d allows for the instance bucket that the specified instance type belongs to.", q)
		}
	}
	if x.ip.IsValid() {
		if !usable(sn, x.ip) {
			return 0, wire.Errorf("InvalidParameterValue", "Address %s does not fall within the subnet's address range, or is reserved", x.ip)
		}
		if _, used := s.ix.at[place{sn.VPC, x.ip}]; used {
			return 0, wire.Errorf("InvalidIPAddress.InUse", "Address %s is in use.", x.ip)
		}
	}
	n = min(n, s.ix.free(sn))
	if n < x.min {
		return 0, noAddresses(sn)
	}
	return n, nil
}

// hostname is what the instance calls itself.
func hostname(i instance) string {
	if i.Resource {
		return i.ID
	}
	return "ip-" + dashed(i.IP)
}

func dashed(a netip.Addr) string { return strings.ReplaceAll(a.String(), ".", "-") }

// volumeID is the root volume's id: it follows from the instance's.
func volumeID(instance string) string { return "vol" + strings.TrimPrefix(instance, "i") }
