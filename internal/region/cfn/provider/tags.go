package provider

import (
	"context"
	"maps"
	"slices"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
)

// The tags by which a stack's resources are found again.
const (
	TagStackID   = "aws:cloudformation:stack-id"
	TagStackName = "aws:cloudformation:stack-name"
	TagLogicalID = "aws:cloudformation:logical-id"
)

// tagsOf are a resource's tags: the stack's, and over them its own.
func tagsOf(properties map[string]any, stack map[string]string) map[string]string {
	out := maps.Clone(stack)
	if out == nil {
		out = map[string]string{}
	}
	for _, x := range list(properties, "Tags") {
		if m, ok := x.(map[string]any); ok {
			out[text(m, "Key")] = text(m, "Value")
		}
	}
	for k, v := range object(properties, "Tags") { // some types have a map
		out[k] = asText(v)
	}
	return out
}

func (r *Request) tags() map[string]string { return tagsOf(r.Properties, r.Tags) }

// tagChanges is what an update does to the tags.
func (r *Request) tagChanges() (put map[string]string, remove []string) {
	before, after := tagsOf(r.Old, r.OldTags), r.tags()
	put = map[string]string{}
	for k, v := range after {
		if old, ok := before[k]; !ok || old != v {
			put[k] = v
		}
	}
	for _, k := range slices.Sorted(maps.Keys(before)) {
		if _, ok := after[k]; !ok {
			remove = append(remove, k)
		}
	}
	return put, remove
}

func ec2Tags(m map[string]string) []*ec2api.Tag {
	var out []*ec2api.Tag
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, &ec2api.Tag{Key: k, Value: m[k]})
	}
	return out
}

func (r *Request) specification(kind string) []*ec2api.TagSpecification {
	return []*ec2api.TagSpecification{{ResourceType: kind, Tags: ec2Tags(r.tags())}}
}

// ours are the filters that find this resource among EC2's.
func (r *Request) ours() []*ec2api.Filter {
	return []*ec2api.Filter{
		{Name: "tag:" + TagStackID, Values: []string{r.StackID}},
		{Name: "tag:" + TagLogicalID, Values: []string{r.Logical}},
	}
}

// pick is the first id that is of no other generation.
func (r *Request) pick(ids []string) string {
	for _, id := range ids {
		if id != "" && !slices.Contains(r.Others, id) {
			return id
		}
	}
	return ""
}

// retagEC2 brings an EC2 resource's tags up to date.
func retagEC2(ctx context.Context, r *Request, id string) error {
	put, remove := r.tagChanges()
	if len(put) > 0 {
		if err := do(ctx, r, "ec2", "CreateTags", &ec2api.CreateTagsRequest{Resources: []string{id}, Tags: ec2Tags(put)}); err != nil {
			return err
		}
	}
	if len(remove) == 0 {
		return nil
	}
	in := &ec2api.DeleteTagsRequest{Resources: []string{id}}
	for _, k := range remove {
		in.Tags = append(in.Tags, &ec2api.Tag{Key: k})
	}
	return do(ctx, r, "ec2", "DeleteTags", in)
}

func retag(ctx context.Context, r *Request) error { return retagEC2(ctx, r, r.ID) }
