package autoscaling

import (
	"context"
	"slices"
	"strings"

	api "github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

const mostTags = 50

// mergeTags adds tags to a group's, with AWS's limits. Tags that begin with
// aws: are the services' own.
func mergeTags(ctx context.Context, have []tag, name string, add []*api.Tag) ([]tag, error) {
	caller, _ := wire.CallerFrom(ctx)
	out := slices.Clone(have)
	for _, t := range add {
		switch {
		case t.ResourceId != "" && t.ResourceId != name:
			return nil, invalid("The tag's resource id %s is not the group's name %s", t.ResourceId, name)
		case t.ResourceType != "" && t.ResourceType != "auto-scaling-group":
			return nil, invalid("The resource type %s is not valid: use auto-scaling-group", t.ResourceType)
		case t.Key == "" || len(t.Key) > 128 || len(t.Value) > 256:
			return nil, invalid("The tag '%s' is not valid: keys have 1 to 128 characters, values up to 256", t.Key)
		case strings.HasPrefix(strings.ToLower(t.Key), "aws:") && caller.Service == "":
			return nil, invalid("aws: prefixed tag key names are not allowed for external use.")
		}
		nt := tag{Key: t.Key, Value: t.Value, Propagate: truth(t.PropagateAtLaunch)}
		if i := slices.IndexFunc(out, func(x tag) bool { return x.Key == t.Key }); i >= 0 {
			out[i] = nt
		} else {
			out = append(out, nt)
		}
	}
	if len(out) > mostTags {
		return nil, wire.Errorf("LimitExceeded", "The number of tags must not exceed %d", mostTags)
	}
	slices.SortFunc(out, func(a, b tag) int { return strings.Compare(a.Key, b.Key) })
	return out, nil
}

func tagOut(name string, t tag) *api.TagDescription {
	return &api.TagDescription{Key: t.Key, Value: t.Value, PropagateAtLaunch: new(t.Propagate), ResourceId: name, ResourceType: "auto-scaling-group"}
}

// CreateOrUpdateTags tags groups; what runs already is not tagged.
func (s *Service) CreateOrUpdateTags(ctx context.Context, in *api.CreateOrUpdateTagsType) error {
	return s.eachTag(in.Tags, func(g *group, t *api.Tag) (err error) {
		g.Tags, err = mergeTags(ctx, g.Tags, g.Name, []*api.Tag{t})
		return err
	})
}

// DeleteTags removes tags; those that are not there are no error.
func (s *Service) DeleteTags(ctx context.Context, in *api.DeleteTagsType) error {
	caller, _ := wire.CallerFrom(ctx)
	return s.eachTag(in.Tags, func(g *group, t *api.Tag) error {
		if strings.HasPrefix(strings.ToLower(t.Key), "aws:") && caller.Service == "" {
			return invalid("aws: prefixed tag key names are not allowed for external use.")
		}
		g.Tags = slices.DeleteFunc(slices.Clone(g.Tags), func(x tag) bool {
			return x.Key == t.Key && (t.Value == "" || t.Value == x.Value)
		})
		return nil
	})
}

func (s *Service) eachTag(tags []*api.Tag, f func(*group, *api.Tag) error) error {
	return s.c.DB.Update(func(tx *state.Tx) error {
		for _, t := range tags {
			g, ok := s.groups.Get(tx, t.ResourceId)
			if !ok || g.Deleting {
				return noGroup(t.ResourceId)
			}
			if err := f(&g, t); err != nil {
				return err
			}
			s.groups.Put(tx, g.Name, g)
		}
		return nil
	})
}

// DescribeTags lists the tags of all groups.
func (s *Service) DescribeTags(_ context.Context, in *api.DescribeTagsType) (*api.TagsType, error) {
	for _, f := range in.Filters {
		if !slices.Contains([]string{"auto-scaling-group", "key", "value", "propagate-at-launch"}, f.Name) {
			return nil, invalid("Filter type %s is not correct. Allowed Filter types are: auto-scaling-group key propagate-at-launch value", f.Name)
		}
	}
	var all []*api.TagDescription
	s.c.DB.View(func(tx *state.Tx) {
		for _, g := range s.groups.All(tx) {
			for _, t := range g.Tags {
				fits := true
				for _, f := range in.Filters {
					v := map[string]string{"auto-scaling-group": g.Name, "key": t.Key, "value": t.Value, "propagate-at-launch": "false"}
					if t.Propagate {
						v["propagate-at-launch"] = "true"
					}
					fits = fits && slices.Contains(f.Values, v[f.Name])
				}
				if fits {
					all = append(all, tagOut(g.Name, t))
				}
			}
		}
	})
	from, to, next, err := page(len(all), in.NextToken, in.MaxRecords, 100)
	if err != nil {
		return nil, err
	}
	return &api.TagsType{Tags: append([]*api.TagDescription{}, all[from:to]...), NextToken: next}, nil
}
