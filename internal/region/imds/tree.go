package imds

import (
	"context"
	"encoding/json"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A dir is a directory of the metadata: names lead to a leaf (func() string),
// or to another dir. Leaves are made only when they are asked for.
type dir map[string]any

type leaf func() string

func set(d dir, name, value string) {
	if value != "" {
		d[name] = leaf(func() string { return value })
	}
}

func addr(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

// versions that a client may name instead of latest; they all show the same.
var versions = []string{"1.0", "2007-01-19", "2009-04-04", "2011-01-01", "2012-01-12", "2014-02-25", "2016-09-02", "2018-09-24", "2020-10-27", "2021-07-15", "2022-09-24", "latest"}

// find gives the text at a path: a leaf's value, or the names in a directory.
func (h *handler) find(ctx context.Context, in Instance, path string) (string, bool) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	slash := strings.HasSuffix(path, "/")
	if slash {
		parts = parts[:len(parts)-1]
	}
	if len(parts) == 0 || parts[0] == "" {
		return strings.Join(versions, "\n"), path == "/" || path == ""
	}
	if !slices.Contains(versions, parts[0]) {
		return "", false
	}
	var at any = h.root(ctx, in)
	for i, p := range parts[1:] {
		d, ok := at.(dir)
		if !ok {
			return "", false
		}
		if at, ok = d[p]; !ok {
			// A tag's key may have slashes.
			if at, ok = d[strings.Join(parts[1+i:], "/")]; !ok {
				return "", false
			}
			break
		}
	}
	switch x := at.(type) {
	case leaf:
		return x(), !slash || len(parts) == 2 // user-data/ is as good as user-data
	case dir:
		names := slices.Sorted(maps.Keys(x))
		for i, n := range names {
			if parts[len(parts)-1] == "public-keys" {
				names[i] = n + "=" + in.KeyName
			} else if _, ok := x[n].(dir); ok && !flatDirs[n] {
				names[i] = n + "/"
			}
		}
		return strings.Join(names, "\n"), true
	}
	return "", false
}

// flatDirs are shown without a slash: those at the top.
var flatDirs = map[string]bool{"meta-data": true, "dynamic": true}

func (h *handler) root(ctx context.Context, in Instance) dir {
	root := dir{"meta-data": h.metadata(ctx, in), "dynamic": dir{"instance-identity": dir{"document": leaf(func() string { return identity(in) })}}}
	set(root, "user-data", string(in.UserData))
	return root
}

func (h *handler) metadata(ctx context.Context, in Instance) dir {
	d := dir{}
	set(d, "ami-id", in.ImageID)
	set(d, "ami-launch-index", strconv.Itoa(in.LaunchIndex))
	set(d, "ami-manifest-path", "(unknown)")
	set(d, "hostname", in.LocalHostname)
	set(d, "instance-action", "none")
	set(d, "instance-id", in.ID)
	set(d, "instance-life-cycle", "on-demand")
	set(d, "instance-type", in.Type)
	set(d, "local-hostname", in.LocalHostname)
	set(d, "local-ipv4", addr(in.LocalIP))
	set(d, "mac", in.MAC)
	set(d, "profile", "default-hvm")
	set(d, "public-hostname", in.PublicHostname)
	set(d, "public-ipv4", addr(in.PublicIP))
	set(d, "reservation-id", in.ReservationID)
	set(d, "security-groups", groups(in, func(g Group) string { return g.Name }))

	placement := dir{}
	set(placement, "availability-zone", in.Zone)
	set(placement, "availability-zone-id", in.ZoneID)
	set(placement, "region", in.Region)
	d["placement"] = placement

	services := dir{}
	set(services, "domain", "amazonaws.com")
	set(services, "partition", "aws")
	d["services"] = services

	ident := dir{}
	ident["ec2"] = dir{"info": leaf(func() string {
		return indent(struct{ Code, LastUpdated, AccountId string }{"Success", stamp(in.LaunchTime), in.Account})
	})}
	d["identity-credentials"] = ident

	if in.MAC != "" {
		d["network"] = dir{"interfaces": dir{"macs": dir{in.MAC: nic(in)}}}
	}
	if in.ProfileARN != "" {
		iam := dir{"info": leaf(func() string {
			return indent(struct{ Code, LastUpdated, InstanceProfileArn, InstanceProfileId string }{"Success", stamp(in.LaunchTime), in.ProfileARN, in.ProfileID})
		})}
		if in.Role != "" {
			iam["security-credentials"] = dir{in.Role: leaf(func() string { return h.credentials(ctx, in) })}
		}
		d["iam"] = iam
	}
	if in.TargetLifecycleState != "" {
		a := dir{}
		set(a, "target-lifecycle-state", in.TargetLifecycleState)
		d["autoscaling"] = a
	}
	if in.ShowTags {
		tags := dir{}
		for k, v := range in.Tags {
			tags[k] = leaf(func() string { return v })
		}
		d["tags"] = dir{"instance": tags}
	}
	if in.PublicKey != "" {
		key := dir{}
		set(key, "openssh-key", in.PublicKey)
		d["public-keys"] = dir{"0": key}
	}
	return d
}

func nic(in Instance) dir {
	n := dir{}
	set(n, "device-number", "0")
	set(n, "interface-id", in.InterfaceID)
	set(n, "local-hostname", in.LocalHostname)
	set(n, "local-ipv4s", addr(in.LocalIP))
	set(n, "mac", in.MAC)
	set(n, "owner-id", in.Account)
	set(n, "public-hostname", in.PublicHostname)
	set(n, "public-ipv4s", addr(in.PublicIP))
	set(n, "security-group-ids", groups(in, func(g Group) string { return g.ID }))
	set(n, "security-groups", groups(in, func(g Group) string { return g.Name }))
	set(n, "subnet-id", in.Subnet)
	set(n, "vpc-id", in.VPC)
	if in.SubnetCIDR.IsValid() {
		set(n, "subnet-ipv4-cidr-block", in.SubnetCIDR.String())
	}
	var cidrs []string
	for _, p := range in.VPCCIDRs {
		cidrs = append(cidrs, p.String())
	}
	if len(cidrs) > 0 {
		set(n, "vpc-ipv4-cidr-block", cidrs[0])
		set(n, "vpc-ipv4-cidr-blocks", strings.Join(cidrs, "\n"))
	}
	if in.PublicIP.IsValid() {
		assoc := dir{}
		set(assoc, in.PublicIP.String(), addr(in.LocalIP))
		n["ipv4-associations"] = assoc
	}
	return n
}

func groups(in Instance, name func(Group) string) string {
	var out []string
	for _, g := range in.Groups {
		out = append(out, name(g))
	}
	return strings.Join(out, "\n")
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func indent(v any) string {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return "" // strings only
	}
	return string(b)
}

// credentials are shown with a code of their own when there are none, as AWS does.
func (h *handler) credentials(ctx context.Context, in Instance) string {
	c, err := h.src.Credentials(ctx, in.ID)
	if err != nil {
		code := "Failed"
		if name, _, ok := strings.Cut(err.Error(), ": "); ok && !strings.Contains(name, " ") {
			code = name
		}
		return indent(struct{ Code, Message, LastUpdated string }{code, err.Error(), stamp(h.o.Clock.Now())})
	}
	return indent(struct{ Code, LastUpdated, Type, AccessKeyId, SecretAccessKey, Token, Expiration string }{
		"Success", stamp(c.Issued), "AWS-HMAC", c.AccessKeyID, c.SecretAccessKey, c.SessionToken, stamp(c.Expiration),
	})
}

func identity(in Instance) string {
	return indent(struct {
		AccountID               string   `json:"accountId"`
		Architecture            string   `json:"architecture"`
		AvailabilityZone        string   `json:"availabilityZone"`
		BillingProducts         []string `json:"billingProducts"`
		DevpayProductCodes      []string `json:"devpayProductCodes"`
		MarketplaceProductCodes []string `json:"marketplaceProductCodes"`
		ImageID                 string   `json:"imageId"`
		InstanceID              string   `json:"instanceId"`
		InstanceType            string   `json:"instanceType"`
		KernelID                *string  `json:"kernelId"`
		PendingTime             string   `json:"pendingTime"`
		PrivateIP               string   `json:"privateIp"`
		RamdiskID               *string  `json:"ramdiskId"`
		Region                  string   `json:"region"`
		Version                 string   `json:"version"`
	}{
		AccountID: in.Account, Architecture: in.Architecture, AvailabilityZone: in.Zone, ImageID: in.ImageID, InstanceID: in.ID, InstanceType: in.Type,
		PendingTime: stamp(in.LaunchTime), PrivateIP: addr(in.LocalIP), Region: in.Region, Version: "2017-09-30",
	})
}
