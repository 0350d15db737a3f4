package schema

import "testing"

func TestSchemaKnowsWhatTheRegionRealises(t *testing.T) {
	if n := len(Names()); n < 1000 {
		t.Fatalf("%d names of types, want all of AWS's", n)
	}
	for _, name := range Realised() {
		d, _ := Lookup(name)
		if !Exists(name) {
			t.Errorf("%s is realised and not in the list of names", name)
		}
		for _, p := range d.Realised {
			if _, ok := d.Properties[p]; !ok {
				t.Errorf("%s has no property %s", name, p)
			}
		}
		for n, p := range d.Properties {
			if p.Required && len(d.Realised) > 0 && !contains(d.Realised, n) {
				t.Errorf("%s: the required property %s is not realised", name, n)
			}
		}
	}
	if _, ok := Lookup("AWS::ElasticLoadBalancing::LoadBalancer"); ok || !Exists("AWS::ElasticLoadBalancing::LoadBalancer") {
		t.Error("the classic load balancer must exist on AWS and not here")
	}
	if Exists("AWS::EC2::Nothing") {
		t.Error("AWS::EC2::Nothing exists")
	}
}

func TestTypes(t *testing.T) {
	d, _ := Lookup("AWS::EC2::LaunchTemplate")
	ltd := d.Properties["LaunchTemplateData"]
	if !ltd.Required || ltd.Type.Kind() != Object {
		t.Fatalf("LaunchTemplateData = %+v", ltd)
	}
	ids := ltd.Type.Object().Properties["SecurityGroupIds"].Type
	if ids.Words() != "List of String" || ids.Elem().Kind() != String {
		t.Errorf("SecurityGroupIds is %s", ids.Words())
	}
	if d.Properties["LaunchTemplateName"].Replacement != Always {
		t.Error("a launch template's name can be changed in place")
	}
	vpc, _ := Lookup("AWS::EC2::VPC")
	if vpc.Properties["Tags"].Type.Elem().Object() == nil {
		t.Error("a tag has no definition")
	}
}

func contains(s []string, v string) bool {
	for _, x := range s {
		if x == v {
			return true
		}
	}
	return false
}
