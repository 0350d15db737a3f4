package ec2

import (
	"context"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/ec2/filter"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const maxTags = 50

// tagsIn checks tags that a caller sets. Only services may set aws: tags.
func tagsIn(ctx context.Context, tags []*ec2api.Tag) (map[string]string, error) {
	caller, _ := wire.CallerFrom(ctx)
	out := make(map[string]string, len(tags))
	for _, t := range tags {
		if t == nil {
			continue
		}
		switch {
		case t.Key == "":
			return nil, wire.Errorf("InvalidParameterValue", "Tag key cannot be empty")
		case utf8.RuneCountInString(t.Key) > 128 || !utf8.ValidString(t.Key):
			return nil, wire.Errorf("InvalidParameterValue", "Tag key exceeds the maximum length of 128 characters")
		case utf8.RuneCountInString(t.Value) > 256 || !utf8.ValidString(t.Value):
			return nil, wire.Errorf("InvalidParameterValue", "Tag value exceeds the maximum length of 256 characters")
		case reserved(t.Key) && caller.Service == "":
			return nil, wire.Errorf("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
		}
		if _, twice := out[t.Key]; twice {
			return nil, wire.Errorf("InvalidParameterValue", "Duplicate tag key '%s' specified.", t.Key)
		}
		out[t.Key] = t.Value
	}
	return out, countTags(out)
}

func reserved(key string) bool { return strings.HasPrefix(strings.ToLower(key), "aws:") }

func countTags(t map[string]string) error {
	n := 0
	for k := range t {
		if !reserved(k) {
			n++
		}
	}
	if n > maxTags {
		return wire.Errorf("TagLimitExceeded", "More than %d tags specified", maxTags)
	}
	return nil
}

// tagSpecs checks the tags of a create call, for the resource types that it
// makes.
func tagSpecs(ctx context.Context, specs []*ec2api.TagSpecification, kinds ...string) (map[string]map[string]string, error) {
	by := map[string][]*ec2api.Tag{}
	for _, sp := range specs {
		if sp == nil {
			continue
		}
		if !slices.Contains(kinds, sp.ResourceType) {
			return nil, wire.Errorf("InvalidParameterValue", "'%.64s' is not a valid taggable resource type for this operation.", sp.ResourceType)
		}
		by[sp.ResourceType] = append(by[sp.ResourceType], sp.Tags...)
	}
	out := map[string]map[string]string{}
	for k, tags := range by {
		m, err := tagsIn(ctx, tags)
		if err != nil {
			return nil, err
		}
		out[k] = m
	}
	return out, nil
}

func (s *Service) putTags(tx *state.Tx, kind, id string, tags map[string]string) {
	if len(tags) == 0 {
		s.tagsOf.Delete(tx, id)
		return
	}
	s.tagsOf.Put(tx, id, tagSet{Kind: kind, Tags: tags})
}

// tagList gives an object's tags, sorted by key.
func (s *Service) tagList(tx *state.Tx, id string) []*ec2api.Tag {
	t, _ := s.tagsOf.Get(tx, id)
	return tagsOut(t.Tags)
}

func tagsOut(m map[string]string) []*ec2api.Tag {
	if len(m) == 0 {
		return nil
	}
	out := make([]*ec2api.Tag, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, &ec2api.Tag{Key: k, Value: m[k]})
	}
	return out
}

// kindOf finds out what an id is, and whether it is there and may be tagged by
// the account.
func (s *Service) kindOf(tx *state.Tx, id string) (kind string, err error) {
	prefix, rest, _ := strings.Cut(id, "-")
	has := func(ok bool, kind string, missing func(string) error) (string, error) {
		if !ok {
			return "", missing(id)
		}
		return kind, nil
	}
	ok := false
	switch prefix {
	case "vpc":
		_, ok = s.vpcs.Get(tx, id)
		return has(ok, "vpc", noVPC)
	case "subnet":
		_, ok = s.subnets.Get(tx, id)
		return has(ok, "subnet", noSubnet)
	case "rtb":
		_, ok = s.routes.Get(tx, id)
		return has(ok, "route-table", noRouteTable)
	case "igw":
		_, ok = s.igws.Get(tx, id)
		return has(ok, "internet-gateway", noIGW)
	case "eigw":
		_, ok = s.eigws.Get(tx, id)
		return has(ok, "egress-only-internet-gateway", noEIGW)
	case "nat":
		_, ok = s.nats.Get(tx, id)
		return has(ok, "natgateway", noNAT)
	case "eipalloc":
		_, ok = s.eips.Get(tx, id)
		return has(ok, "elastic-ip", noAllocation)
	case "acl":
		_, ok = s.acls.Get(tx, id)
		return has(ok, "network-acl", noACL)
	case "sg":
		_, ok = s.groups.Get(tx, id)
		return has(ok, "security-group", noGroup)
	case "sgr":
		_, ok = s.ix.rules[id]
		return has(ok, "security-group-rule", noRule)
	case "eni":
		_, ok = s.cards.Get(tx, id)
		return has(ok, "network-interface", noCard)
	case "i":
		_, ok = s.instances.Get(tx, id)
		return has(ok, "instance", noInstance)
	case "vol":
		i, found := s.instances.Get(tx, "i-"+rest)
		return has(found && i.State != terminated, "volume", noVolume)
	case "ami":
		i, found := s.images.Get(tx, id)
		return has(found && i.Owner == s.cfg.Account, "image", noImage)
	case "snap":
		sn, found := s.snapshots.Get(tx, id)
		return has(found && sn.Owner == s.cfg.Account, "snapshot", noSnapshot)
	case "lt":
		_, ok = s.templates.Get(tx, id)
		return has(ok, "launch-template", noTemplateID)
	case "dopt":
		_, ok = s.dhcp.Get(tx, id)
		return has(ok, "dhcp-options", noDHCP)
	}
	return "", wire.Errorf("InvalidID", "The ID '%.64s' is not valid", id)
}

func checkTagCall(ids []string, n int) error {
	switch {
	case len(ids) == 0:
		return wire.Errorf("MissingParameter", "The request must contain the parameter resourceIdSet")
	case n == 0:
		return wire.Errorf("MissingParameter", "The request must contain the parameter tagSet")
	case len(ids) > 1000 || n > 1000:
		return wire.Errorf("InvalidParameterValue", "At most 1000 resources may be tagged in one call")
	}
	return nil
}

// CreateTags adds or overwrites tags of any objects, all or none.
func (s *Service) CreateTags(ctx context.Context, in *ec2api.CreateTagsRequest) error {
	if err := checkTagCall(in.Resources, len(in.Tags)); err != nil {
		return err
	}
	tags, err := tagsIn(ctx, in.Tags)
	if err != nil {
		return err
	}
	return s.update(func(tx *state.Tx) error {
		for _, id := range in.Resources {
			kind, err := s.kindOf(tx, id)
			if err != nil {
				return err
			}
			if i, ok := s.instances.Get(tx, id); ok && i.Meta.Tags {
				if err := checkMetaTags(tags); err != nil {
					return err
				}
			}
			old, _ := s.tagsOf.Get(tx, id)
			m := maps.Clone(old.Tags)
			if m == nil {
				m = map[string]string{}
			}
			maps.Copy(m, tags)
			if err := countTags(m); err != nil {
				return err
			}
			s.putTags(tx, kind, id, m)
		}
		return dry(in.DryRun)
	})
}

// DeleteTags removes tags: by key, or by key and value where one is given.
func (s *Service) DeleteTags(ctx context.Context, in *ec2api.DeleteTagsRequest) error {
	if err := checkTagCall(in.Resources, 1); err != nil {
		return err
	}
	caller, _ := wire.CallerFrom(ctx)
	for _, t := range in.Tags {
		if t != nil && reserved(t.Key) && caller.Service == "" {
			return wire.Errorf("InvalidParameterValue", "Tag keys starting with 'aws:' are reserved for internal use")
		}
	}
	return s.update(func(tx *state.Tx) error {
		for _, id := range in.Resources {
			kind, err := s.kindOf(tx, id)
			if err != nil {
				return err
			}
			old, _ := s.tagsOf.Get(tx, id)
			m := maps.Clone(old.Tags)
			maps.DeleteFunc(m, func(k, v string) bool {
				if len(in.Tags) == 0 {
					return !reserved(k)
				}
				return slices.ContainsFunc(in.Tags, func(t *ec2api.Tag) bool { return t != nil && t.Key == k && (t.Value == "" || t.Value == v) })
			})
			if len(m) != len(old.Tags) {
				s.putTags(tx, kind, id, m)
			}
		}
		return dry(in.DryRun)
	})
}

var tagFields = filter.Fields[*ec2api.TagDescription]{
	By: map[string]func(*ec2api.TagDescription) []string{
		"key":           func(t *ec2api.TagDescription) []string { return filter.One(t.Key) },
		"value":         func(t *ec2api.TagDescription) []string { return []string{t.Value} },
		"resource-id":   func(t *ec2api.TagDescription) []string { return filter.One(t.ResourceId) },
		"resource-type": func(t *ec2api.TagDescription) []string { return filter.One(t.ResourceType) },
	},
}

// DescribeTags lists tags of everything.
func (s *Service) DescribeTags(ctx context.Context, in *ec2api.DescribeTagsRequest) (*ec2api.DescribeTagsResult, error) {
	out := &ec2api.DescribeTagsResult{}
	var filters []*ec2api.Filter
	for _, f := range in.Filters { // tag:KEY means the pair itself here
		if f == nil {
			continue
		}
		if key, ok := strings.CutPrefix(f.Name, "tag:"); ok {
			filters = append(filters, &ec2api.Filter{Name: "key", Values: []string{key}}, &ec2api.Filter{Name: "value", Values: f.Values})
		} else {
			filters = append(filters, f)
		}
	}
	q := query[ec2api.TagDescription]{filters: filters, max: in.MaxResults, token: in.NextToken, dry: in.DryRun, fields: tagFields,
		id: func(t *ec2api.TagDescription) string { return t.ResourceId + "\x00" + t.Key }}
	var err error
	s.view(func(tx *state.Tx) {
		out.Tags, out.NextToken, err = q.run(func(yield func(*ec2api.TagDescription) bool) {
			for id, set := range s.tagsOf.All(tx) {
				for _, k := range slices.Sorted(maps.Keys(set.Tags)) {
					if !yield(&ec2api.TagDescription{ResourceId: id, ResourceType: set.Kind, Key: k, Value: set.Tags[k]}) {
						return
					}
				}
			}
		}, nil)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
