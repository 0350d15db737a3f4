package provider

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/template/schema"
)

func TestProvidersAndSchemaAgree(t *testing.T) {
	if got, want := Types(), schema.Realised(); !slices.Equal(got, want) {
		t.Errorf("there are providers for\n%v\nand the schema says\n%v", got, want)
	}
	for _, name := range Types() {
		p, _ := For(name)
		d, _ := schema.Lookup(name)
		if p.Find == nil || p.Create == nil {
			t.Errorf("%s has no Find or Create", name)
		}
		if len(p.Mutable) > 0 && p.Update == nil {
			t.Errorf("%s has no Update", name)
		}
		for _, m := range p.Mutable {
			if !slices.Contains(d.Realised, m) {
				t.Errorf("%s: %s can be changed and is not realised", name, m)
			}
			if d.Properties[m].Replacement == schema.Always {
				t.Errorf("%s: AWS replaces the resource when %s changes", name, m)
			}
		}
		if p.Named != "" && d.Properties[p.Named].Replacement != schema.Always {
			t.Errorf("%s: the name %s is not createOnly", name, p.Named)
		}
	}
}

func TestNamesAreStableAndFit(t *testing.T) {
	r := &Request{StackID: "arn:1", StackName: strings.Repeat("stack-", 20), Logical: strings.Repeat("Logical", 20)}
	for _, limit := range []int{32, 64, 128, 255} {
		n := r.Name(limit)
		if len(n) > limit || n != r.Name(limit) || strings.HasPrefix(n, "-") || strings.Contains(n, "--") {
			t.Errorf("%d: %q", limit, n)
		}
	}
	a := (&Request{StackID: "arn:1", StackName: "s", Logical: "Web"}).Name(32)
	b := (&Request{StackID: "arn:2", StackName: "s", Logical: "Web"}).Name(32)
	c := (&Request{StackID: "arn:1", StackName: "s", Logical: "Web", Generation: 1}).Name(32)
	if !strings.HasPrefix(a, "s-Web-") || a == b || a == c || b == c {
		t.Errorf("%s %s %s", a, b, c)
	}
}

func TestFill(t *testing.T) {
	var got ec2api.RequestLaunchTemplateData
	err := fill(&got, map[string]any{
		"ImageId": "ami-1", "EbsOptimized": "true", "SecurityGroupIds": []any{"sg-1", "sg-2"},
		"MetadataOptions":   map[string]any{"HttpTokens": "required", "HttpPutResponseHopLimit": int64(2)},
		"TagSpecifications": []any{map[string]any{"ResourceType": "instance", "Tags": []any{map[string]any{"Key": "a", "Value": "b"}}}},
	})
	want := ec2api.RequestLaunchTemplateData{
		ImageId: "ami-1", EbsOptimized: new(true), SecurityGroupIds: []string{"sg-1", "sg-2"},
		MetadataOptions:   &ec2api.LaunchTemplateInstanceMetadataOptionsRequest{HttpTokens: "required", HttpPutResponseHopLimit: new(int64(2))},
		TagSpecifications: []*ec2api.LaunchTemplateTagSpecificationRequest{{ResourceType: "instance", Tags: []*ec2api.Tag{{Key: "a", Value: "b"}}}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []map[string]any{{"Nonsense": 1}, {"EbsOptimized": "maybe"}, {"SecurityGroupIds": "x"}, {"MetadataOptions": map[string]any{"x": 1}}} {
		if err := fill(&got, bad); err == nil {
			t.Errorf("%v was taken", bad)
		}
	}
}
