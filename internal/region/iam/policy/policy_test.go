package policy

import (
	"testing"
)

func TestDecide(t *testing.T) {
	const vpc = "arn:aws:ec2:local-1:123456789012:vpc/vpc-1"
	st := func(body string) string { return `{"Version":"2012-10-17","Statement":` + body + `}` }
	tests := []struct {
		name, doc, action, resource string
		ctx                         map[string]string
		want                        Decision
	}{
		{"nothing matches", st(`{"Effect":"Allow","Action":"s3:*","Resource":"*"}`), "ec2:DeleteVpc", vpc, nil, ImplicitDeny},
		{"action wildcard", st(`{"Effect":"Allow","Action":["ec2:del*V?c"],"Resource":"*"}`), "ec2:DeleteVpc", vpc, nil, Allow},
		{"everything", st(`[{"Effect":"Allow","Action":"*","Resource":"*"}]`), "ec2:DeleteVpc", vpc, nil, Allow},
		{"deny wins", st(`[{"Effect":"Deny","Action":"ec2:Delete*","Resource":"*"},{"Effect":"Allow","Action":"*","Resource":"*"}]`), "ec2:DeleteVpc", vpc, nil, ExplicitDeny},
		{"not action", st(`{"Effect":"Allow","NotAction":"iam:*","Resource":"*"}`), "ec2:DeleteVpc", vpc, nil, Allow},
		{"not action, named", st(`{"Effect":"Allow","NotAction":"ec2:*","Resource":"*"}`), "ec2:DeleteVpc", vpc, nil, ImplicitDeny},
		{"resource", st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:ec2:*:*:vpc/*"}`), "ec2:DeleteVpc", vpc, nil, Allow},
		{"other resource", st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:ec2:*:*:subnet/*"}`), "ec2:DeleteVpc", vpc, nil, ImplicitDeny},
		{"resources have case", st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:ec2:*:*:VPC/*"}`), "ec2:DeleteVpc", vpc, nil, ImplicitDeny},
		{"not resource", st(`{"Effect":"Allow","Action":"*","NotResource":"arn:aws:ec2:*:*:vpc/*"}`), "ec2:DeleteVpc", vpc, nil, ImplicitDeny},
		{"a narrow policy does not allow all", st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:ec2:*:*:vpc/*"}`), "ec2:DescribeVpcs", "*", nil, ImplicitDeny},
		{"unknown part needs a wildcard", st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:autoscaling:r:1:autoScalingGroup:1234:autoScalingGroupName/web"}`), "autoscaling:X", "arn:aws:autoscaling:r:1:autoScalingGroup:*:autoScalingGroupName/web", nil, ImplicitDeny},
		{"variable", st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::b/${aws:userid}/*"}`), "s3:GetObject", "arn:aws:s3:::b/me/x", map[string]string{"aws:userid": "me"}, Allow},
		{"variable's star is no wildcard", st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::b/${aws:userid}/*"}`), "s3:GetObject", "arn:aws:s3:::b/you/x", map[string]string{"aws:userid": "*"}, ImplicitDeny},
		{"unknown variable", st(`{"Effect":"Allow","Action":"*","Resource":"arn:aws:s3:::b/${aws:nope}/*"}`), "s3:GetObject", "arn:aws:s3:::b/you/x", nil, ImplicitDeny},
		{"unknown variable denies", st(`[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"*","Resource":"arn:aws:s3:::b/${aws:nope}/*"}]`), "s3:GetObject", "arn:aws:s3:::c/x", nil, ExplicitDeny},
	}
	for _, tt := range tests {
		d, err := Parse(tt.doc)
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		if got := Decide([]*Document{d}, Request{Action: tt.action, Resource: tt.resource, Context: tt.ctx}); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestConditions(t *testing.T) {
	ctx := map[string]string{"aws:RequestedRegion": "local-1", "aws:SourceIp": "10.0.1.2", "aws:SecureTransport": "false", "aws:PrincipalArn": "arn:aws:iam::123456789012:role/a/web",
		"s3:prefix": "home/x", "n": "10", "aws:CurrentTime": "2026-05-05T00:00:00Z", "star": "*"}
	tests := []struct {
		cond  string
		allow bool // when the effect is Allow
		deny  bool // when the effect is Deny
	}{
		{`{"StringEquals":{"aws:requestedregion":["x","local-1"]}}`, true, true},
		{`{"StringEquals":{"aws:RequestedRegion":"x"}}`, false, false},
		{`{"StringEquals":{"nope":"x"}}`, false, false},
		{`{"StringEqualsIfExists":{"nope":"x"}}`, true, true},
		{`{"StringEqualsIfExists":{"aws:RequestedRegion":"x"}}`, false, false},
		{`{"StringNotEquals":{"aws:RequestedRegion":"x"}}`, true, true},
		{`{"StringNotEquals":{"aws:RequestedRegion":["x","local-1"]}}`, false, false},
		{`{"StringNotEquals":{"nope":"x"}}`, true, true},
		{`{"StringEqualsIgnoreCase":{"aws:RequestedRegion":"LOCAL-1"}}`, true, true},
		{`{"StringLike":{"s3:prefix":"home/*"}}`, true, true},
		{`{"StringNotLike":{"s3:prefix":"home/*"}}`, false, false},
		{`{"StringEquals":{"star":"${*}"}}`, true, true},
		{`{"ArnLike":{"aws:PrincipalArn":"arn:aws:iam::*:role/*/web"}}`, true, true},
		{`{"ArnLike":{"aws:PrincipalArn":"arn:*:role/a/web"}}`, false, false},
		{`{"ArnNotEquals":{"aws:PrincipalArn":"arn:aws:iam::*:role/other"}}`, true, true},
		{`{"Bool":{"aws:SecureTransport":false}}`, true, true},
		{`{"Bool":{"aws:SecureTransport":"true"}}`, false, false},
		{`{"BoolIfExists":{"aws:MultiFactorAuthPresent":"true"}}`, true, true},
		{`{"Null":{"nope":"true"}}`, true, true},
		{`{"Null":{"n":"true"}}`, false, false},
		{`{"Null":{"n":false}}`, true, true},
		{`{"NumericLessThan":{"n":11}}`, true, true},
		{`{"NumericGreaterThanEquals":{"n":"10.5"}}`, false, false},
		{`{"NumericEquals":{"aws:RequestedRegion":"1"}}`, false, false},
		{`{"DateGreaterThan":{"aws:CurrentTime":"2026-01-01"}}`, true, true},
		{`{"DateLessThan":{"aws:CurrentTime":"2026-01-01T00:00:00Z"}}`, false, false},
		{`{"IpAddress":{"aws:SourceIp":["10.0.0.0/16"]}}`, true, true},
		{`{"NotIpAddress":{"aws:SourceIp":"10.0.0.0/16"}}`, false, false},
		{`{"ForAllValues:StringEquals":{"aws:TagKeys":["a"]}}`, true, true},
		{`{"ForAnyValue:StringEquals":{"aws:TagKeys":["a"]}}`, false, false},
		{`{"StringEquals":{"n":"10"},"Bool":{"aws:SecureTransport":"true"}}`, false, false},
		{`{"StringSimilar":{"n":"10"}}`, false, true}, // what is not understood opens nothing
		{`{"NullIfExists":{"n":"false"}}`, false, true},
		{`{"StringEquals":{"n":"${nope}"}}`, false, true},
		{`{"StringNotEquals":{"n":"${nope}"}}`, false, true},
	}
	for _, tt := range tests {
		for effect, want := range map[string]bool{"Allow": tt.allow, "Deny": tt.deny} {
			d, err := Parse(`{"Version":"2012-10-17","Statement":[{"Effect":"` + effect + `","Action":"*","Resource":"*","Condition":` + tt.cond + `}]}`)
			if err != nil {
				t.Fatalf("%s: %v", tt.cond, err)
			}
			got := Decide([]*Document{d}, Request{Action: "a:B", Resource: "*", Context: ctx}) != ImplicitDeny
			if got != want {
				t.Errorf("%s %s: holds %v, want %v", effect, tt.cond, got, want)
			}
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{
		``, `[]`, `{}`, `{"Statement":[]}`, `{"Version":"2020-01-01","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`,
		`{"Statement":{"Effect":"Maybe","Action":"*","Resource":"*"}}`,
		`{"Statement":{"Effect":"Allow","Resource":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"*","NotAction":"a:b","Resource":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"nocolon","Resource":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"*","Resource":"bucket"}}`,
		`{"Statement":{"Effect":"Allow","Action":{},"Resource":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Principal":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*","Typo":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}} x`,
	} {
		if _, err := Parse(text); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

func TestTrust(t *testing.T) {
	d, err := ParseTrust(`{"Statement":[{"Effect":"Allow","Principal":{"Service":["ec2.amazonaws.com"],"AWS":"arn:aws:iam::1:root"},"Action":"sts:AssumeRole"}]}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		kind, name string
		want       Decision
	}{{"Service", "ec2.amazonaws.com", Allow}, {"Service", "ssm.amazonaws.com", ImplicitDeny}, {"AWS", "arn:aws:iam::1:root", Allow}, {"AWS", "ec2.amazonaws.com", ImplicitDeny}} {
		if got := Decide([]*Document{d}, Request{Action: "sts:AssumeRole", PrincipalType: tt.kind, Principals: []string{tt.name}}); got != tt.want {
			t.Errorf("%s %s: got %v", tt.kind, tt.name, got)
		}
	}
	for _, text := range []string{
		`{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole"}}`,
		`{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":"x"}}`,
		`{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":{"Nope":"x"}}}`,
		`{"Statement":{"Effect":"Allow","Action":"s3:GetObject","Principal":"*"}}`,
		`{"Statement":{"Effect":"Allow","Action":"sts:AssumeRole","Principal":"*","Resource":"*"}}`,
	} {
		if _, err := ParseTrust(text); err == nil {
			t.Errorf("%s was taken", text)
		}
	}
}

func FuzzPolicy(f *testing.F) {
	f.Add(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"arn:aws:s3:::${a}*","Condition":{"StringLike":{"k":["*a*b*"]}}}]}`, "arn:aws:s3:::x")
	f.Fuzz(func(t *testing.T, text, resource string) {
		d, err := Parse(text)
		if err != nil {
			return
		}
		req := Request{Action: "s3:GetObject", Resource: resource, Context: map[string]string{"k": resource, "a": "x"}}
		first := Decide([]*Document{d}, req)
		// One more denial of everything can only close.
		deny, err := Parse(`{"Statement":{"Effect":"Deny","Action":"*","Resource":"*"}}`)
		if err != nil {
			t.Fatal(err)
		}
		if Decide([]*Document{d, deny}, req) != ExplicitDeny {
			t.Fatalf("%s: %v, and a denial of everything opened it", text, first)
		}
	})
}
