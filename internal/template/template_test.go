package template

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func load(t *testing.T, file string) *Template {
	t.Helper()
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	tmpl, problems := Parse(filepath.Base(file), src)
	for _, p := range problems {
		t.Error(p)
	}
	if tmpl == nil {
		t.FailNow()
	}
	return tmpl
}

func scope(t *Template, values Values) *Scope {
	all, resolved, _ := t.Resolve(values, func(n string) (string, error) { return "value-of-" + n, nil })
	return &Scope{Template: t, Values: all, Resolved: resolved, Zones: []string{"local-1a", "local-1b", "local-1c"},
		Pseudo: map[string]any{"AWS::Region": "local-1", "AWS::StackName": "demo", "AWS::AccountId": "123456789012", "AWS::NotificationARNs": []string{}}}
}

func TestSamplesAreRight(t *testing.T) {
	for _, f := range []string{"network.yaml", "fleet.yaml"} {
		for _, p := range Check(load(t, "testdata/"+f)) {
			t.Error(p)
		}
	}
}

// TestPublicTemplates looks at templates that are not part of the repository.
func TestPublicTemplates(t *testing.T) {
	dir := os.Getenv("DAYFLY_TEMPLATES")
	if dir == "" {
		t.Skip("DAYFLY_TEMPLATES names no folder of templates")
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*.yaml"))
	for _, f := range files {
		for _, p := range Check(load(t, f)) {
			if !p.Local {
				t.Error(p)
			}
			t.Log(p)
		}
	}
}

func TestNetworkEvaluates(t *testing.T) {
	tmpl := load(t, "testdata/network.yaml")
	s := scope(tmpl, Values{"ClassB": "7"})
	deps, _, err := tmpl.Dependencies(s)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(deps["Public"], " "); got != "VPC VPCCidrBlock" {
		t.Errorf("Public needs %q", got)
	}
	s.Ref = func(n string) (any, bool, error) { return "id-" + n, true, nil }
	s.GetAtt = func(n, a string) (any, bool, error) {
		switch n + "." + a {
		case "VPC.CidrBlock":
			return "10.7.0.0/16", true, nil
		case "VPC.Ipv6CidrBlocks":
			return []string{"2600:1f18:1::/56"}, true, nil
		}
		return "att-" + n + "-" + a, true, nil
	}
	check := func(resource, want string) {
		t.Helper()
		r := tmpl.Resource(resource)
		n, err := s.Eval(r.Properties)
		if err != nil {
			t.Fatal(err)
		}
		n, problems := tmpl.Properties(r, n)
		for _, p := range problems {
			t.Error(p)
		}
		b, _ := json.Marshal(n.Value())
		if string(b) != want {
			t.Errorf("%s =\n%s\nwant\n%s", resource, b, want)
		}
	}
	check("VPC", `{"CidrBlock":"10.7.0.0/16","EnableDnsHostnames":true,"Tags":[{"Key":"Name","Value":"demo-vpc"}]}`)
	check("Public", `{"AvailabilityZone":"local-1a","CidrBlock":"10.7.0.0/24","Ipv6CidrBlock":"2600:1f18:1::/64","MapPublicIpOnLaunch":true,"VpcId":"id-VPC"}`)
	check("PrivateSubnet", `{"AvailabilityZone":"local-1b","CidrBlock":"10.7.1.0/24","VpcId":"id-VPC"}`)
	check("Routes", `{"Tags":[{"Key":"Zones","Value":"local-1a,local-1b,local-1c"}],"VpcId":"id-VPC"}`)
	check("AclIn", `{"CidrBlock":"0.0.0.0/0","NetworkAclId":"id-Acl","Protocol":-1,"RuleAction":"allow","RuleNumber":100}`)
	check("Web", `{"GroupDescription":"web","SecurityGroupIngress":[{"CidrIp":"0.0.0.0/0","FromPort":80,"IpProtocol":"tcp","ToPort":80},{"CidrIp":"10.0.0.0/8","FromPort":443,"IpProtocol":"tcp","ToPort":443}],"VpcId":"id-VPC"}`)

	s = scope(tmpl, Values{"Private": "no"})
	if deps, _, err = tmpl.Dependencies(s); err != nil {
		t.Fatal(err)
	}
	if _, ok := deps["PrivateSubnet"]; ok {
		t.Error("a resource whose condition does not hold is made")
	}
}

func TestFunctions(t *testing.T) {
	const head = "Parameters:\n  P: {Type: String, Default: x}\n  L: {Type: CommaDelimitedList, Default: 'a, b,c'}\n  S: {Type: 'AWS::SSM::Parameter::Value<String>', Default: /img}\nMappings:\n  M: {a: {b: c, l: [1, 2]}}\nConditions:\n  Yes: !Equals [!Ref P, x]\n  No: !Or [!Not [!Condition Yes], !And [!Condition Yes, !Equals [a, b]]]\nResources:\n  R: {Type: 'AWS::EC2::VPC'}\nOutputs:\n  O:\n    Value: "
	for in, want := range map[string]string{
		"!Ref P":                               `"x"`,
		"!Ref L":                               `["a","b","c"]`,
		"!Ref S":                               `"value-of-/img"`,
		"!Ref AWS::Region":                     `"local-1"`,
		"!Ref R":                               `null`, // not there yet
		"!Join ['-', [a, !Ref P, 3]]":          `"a-x-3"`,
		"!Join ['', !Ref L]":                   `"abc"`,
		"!Select [1, !Ref L]":                  `"b"`,
		"!Select ['2', !Split ['|', 'a|b|c']]": `"c"`,
		"!FindInMap [M, a, b]":                 `"c"`,
		"!FindInMap [M, a, l]":                 `[1,2]`,
		"!FindInMap [M, a, z, {DefaultValue: d}]":      `"d"`,
		"!FindInMap [N, a, z, {DefaultValue: !Ref P}]": `"x"`,
		"!If [Yes, 1, 2]":                                  `1`,
		"!If [No, 1, !Ref 'AWS::NoValue']":                 `null`,
		"[a, !If [No, 1, !Ref 'AWS::NoValue'], b]":         `["a","b"]`,
		"!Sub 'a ${P} ${!P} ${AWS::StackName} $ {P} ${'":   `"a x ${P} demo $ {P} ${"`,
		"!Sub ['${v}${P}', {v: !Join ['', [1, 2]]}]":       `"12x"`,
		"{'Fn::Sub': 'q'}":                                 `"q"`,
		"{k: !Ref AWS::Region, l: [!Ref AWS::StackName]}":  `{"k":"local-1","l":["demo"]}`,
		"[{k: {Fn::Sub: '${P}:1'}, l: a:b, m: http://x/}]": `[{"k":"x:1","l":"a:b","m":"http://x/"}]`,
		"!Base64 {Fn::Sub: 'a::b: c'}":                     `"YTo6YjogYw=="`,
		"!Base64 abc":                                      `"YWJj"`,
		"!Base64\n      Fn::Sub: '${P}'":                   `"eA=="`,
		"!Cidr [10.0.0.0/16, 3, 5]":                        `["10.0.0.0/27","10.0.0.32/27","10.0.0.64/27"]`,
		"!Cidr ['10.0.0.0/16', 4]":                         `["10.0.0.0/18","10.0.64.0/18","10.0.128.0/18","10.0.192.0/18"]`,
		"!GetAZs":                                          `["local-1a","local-1b","local-1c"]`,
		"!GetAZs\n  Q: {Value: 1}":                         `["local-1a","local-1b","local-1c"]`,
		"!Length [a, b]":                                   `2`,
		"{'Fn::ToJsonString': {a: [1, true]}}":             `"{\"a\":[1,true]}"`,
		"010":                                              `10`,
		"0x1F":                                             `31`,
		"!!str 010":                                        `"010"`,
		"'1e3'":                                            `"1e3"`,
		"!Sub |\n      a\n      ${P}\n":                    `"a\nx\n"`,
		"!Select [0, !Cidr [!GetAtt R.CidrBlock, 2, 8]]":   `null`,
		"!Select [9, !Ref L]":                              "cannot select nonexistent value at index 9",
		"!Ref Nix":                                         "Unresolved resource dependencies [Nix]",
		"!GetAtt R.CidrBlok":                               "resource R does not support attribute type CidrBlok in Fn::GetAtt",
		"!GetAtt Q.CidrBlock":                              "instance of Fn::GetAtt references undefined resource Q",
		"!FindInMap [M, a, z]":                             "Unable to get mapping for M::a::z",
		"!Join [a]":                                        "every Fn::Join object requires two parameters",
		"!Sub '${L}'":                                      "variable L in Fn::Sub expression does not resolve to a string",
		"!Sub {a: b}":                                      "Fn::Sub intrinsic functions don't specify expected arguments",
		"!If [Nope, 1, 2]":                                 "Unresolved condition dependency Nope",
		"!Cidr [nonsense, 1, 8]":                           "is not an address block",
		"!Cidr [10.0.0.0/24, 3, 8]":                        "has no room for 3 blocks",
		"!Equals [a, b]":                                   "can stand in Conditions only",
	} {
		tmpl, problems := Parse("t.yaml", []byte(head+in+"\n"))
		if len(problems) > 0 {
			t.Errorf("%s: %v", in, problems)
			continue
		}
		s := scope(tmpl, nil)
		got := ""
		if n, err := s.Eval(tmpl.Outputs[0].Value); err != nil {
			got = err.Error()
			if !strings.Contains(got, want) || !strings.HasPrefix(got, "t.yaml:14:") {
				t.Errorf("%s: got %s, want %s", in, got, want)
			}
			if ps := Check(tmpl); len(ps) == 0 && !strings.Contains(in, "${L}") && !strings.Contains(in, "[M, a, z]") && !strings.Contains(in, "[9,") {
				t.Errorf("%s: the check without values finds nothing", in)
			}
		} else if b, _ := json.Marshal(n.Value()); string(b) != want {
			t.Errorf("%s = %s, want %s", in, b, want)
		} else if ps := Check(tmpl); len(ps) > 0 {
			t.Errorf("%s: the check finds %v", in, ps)
		}
	}
}

func TestProblems(t *testing.T) {
	vpc := "Resources:\n  V: {Type: AWS::EC2::VPC, Properties: {CidrBlock: 10.0.0.0/16}}\n"
	for name, c := range map[string]struct{ src, want string }{
		"unknown type":      {"Resources:\n  A:\n    Type: AWS::EC2::SubNet\n", "t:3:11: Template format error: Unrecognized resource types: [AWS::EC2::SubNet] (did you mean AWS::EC2::Subnet?)"},
		"not here":          {"Resources:\n  A:\n    Type: AWS::S3::Bucket\n", "t:3:11: the local region does not have the resource type AWS::S3::Bucket"},
		"unknown property":  {"Resources:\n  A:\n    Type: AWS::EC2::VPC\n    Properties:\n      CidrBlok: 1\n", "t:5:7: Encountered unsupported property CidrBlok (did you mean CidrBlock?)"},
		"property not here": {"Resources:\n  A:\n    Type: AWS::EC2::VPC\n    Properties:\n      Ipv4IpamPoolId: x\n", "t:5:7: the local region does not realise the property Ipv4IpamPoolId of AWS::EC2::VPC"},
		"missing property":  {"Resources:\n  A:\n    Type: AWS::EC2::Subnet\n", "t:2:3: Property VpcId cannot be empty."},
		"wrong type":        {"Resources:\n  A:\n    Type: AWS::EC2::VPC\n    Properties:\n      CidrBlock: [a]\n", "t:5:18: Value of property CidrBlock must be of type String"},
		"list for text":     {"Resources:\n  A:\n    Type: AWS::EC2::VPC\n    Properties:\n      CidrBlock: !GetAZs\n", "t:5:18: Value of property CidrBlock must be of type String"},
		"nested":            {"Resources:\n  A:\n    Type: AWS::EC2::VPC\n    Properties:\n      Tags:\n        - Key: a\n          Valu: b\n", "t:7:11: Encountered unsupported property Tags.Valu (did you mean Value?)|t:6:11: Property Tags.Value cannot be empty."},
		"circle":            {"Resources:\n  A:\n    Type: AWS::EC2::VPC\n    DependsOn: B\n  B:\n    Type: AWS::EC2::VPC\n    Properties:\n      CidrBlock: !Ref A\n", "t:4:16: Circular dependency between resources: [A, B] (A (4:16) -> B (8:18) -> A)"},
		"unresolved":        {vpc + "Outputs: {O: {Value: !Ref W}}", "t:3:22: Template format error: Unresolved resource dependencies [W] in the Resources block of the template (did you mean V?)"},
		"depends":           {"Resources:\n  A:\n    Type: AWS::EC2::VPC\n    DependsOn: [B]\n", "t:4:17: Template format error: Unresolved resource dependencies [B]"},
		"section":           {vpc + "Output: {}\n", "t:3:1: Invalid template property or properties [Output] (did you mean Outputs?)"},
		"transform":         {"Transform: AWS::Serverless-2016-10-31\n" + vpc, "t:1:1: the local region does not run transforms (AWS::Serverless-2016-10-31)"},
		"no resources":      {"Outputs: {}\n", "At least one Resources member must be defined"},
		"tag":               {"Resources:\n  A: !Reff b\n", "t:2:6: Template format error: unknown tag !Reff"},
		"private":           {"A: \ue000", "t:1:4: Template format error: the private character U+E000"},
		"alias":             {"A: &x 1\nB: *x\n", "t:1:4: Template format error: YAML aliases are not allowed"},
		"duplicate":         {vpc + "Resources: {}\n", "t:3:1: Template format error: YAML not well-formed: mapping key \"Resources\" already defined"},
		"yaml":              {"Resources:\n  A: [1,\n", "Template format error: YAML not well-formed"},
		"json":              {"{\"Resources\": {\n  \"A\": ,\n}}", "t:2:8: Template format error: JSON not well-formed"},
		"json twice":        {"{\"A\": 1,\n \"A\": 2}", "the key \"A\" is there twice"},
		"deep":              {strings.Repeat("[", 9000), "nested more than 64 deep"},
		"deep json":         {"{\"a\": " + strings.Repeat("[", 9000) + strings.Repeat("]", 9000) + "}", "nested more than 64 deep"},
		"deep dashes":       {strings.Repeat("- ", 9000) + "a", "nested more than 64 deep"},
		"big":               {strings.Repeat(" ", MaxBytes+1), "may not exceed"},
		"parameter type":    {"Parameters: {A: {Type: Strin}}\n" + vpc, "Unrecognized parameter type: Strin (did you mean String?)"},
		"parameter default": {"Parameters:\n  A:\n    Type: Number\n    Default: x\n" + vpc, "t:4:14: Parameter 'A' must be a number"},
		"pattern":           {"Parameters:\n  A:\n    Type: String\n    AllowedPattern: '(?!x)a'\n" + vpc, "t:4:21: the local region cannot read the pattern of parameter A"},
		"condition circle":  {"Conditions:\n  A: !Condition B\n  B: !Not [!Condition A]\n" + vpc, "Circular dependencies for conditions: A (2:16) -> B"},
		"condition ref":     {"Conditions:\n  A: !Equals [!Ref V, a]\n" + vpc, "t:2:14: Template error: conditions cannot refer to resources, such as V"},
		"resource cond":     {"Resources:\n  A:\n    Type: AWS::EC2::VPC\n    Condition: Nix\n", "t:4:16: Template format error: Unresolved condition dependency Nix"},
		"deletion policy":   {"Resources:\n  A:\n    Type: AWS::EC2::VPC\n    DeletionPolicy: Keep\n", "t:4:21: Template format error: Unrecognized DeletionPolicy Keep"},
		"signals":           {"Resources:\n  A:\n    Type: AWS::EC2::Instance\n    CreationPolicy: {ResourceSignal: {Timeout: 15m}}\n", "Timeout must be a duration such as PT15M"},
		"null":              {"Resources:\n  A:\n    Type: AWS::EC2::VPC\n    Properties:\n      CidrBlock:\n", "'null' values are not allowed in templates"},
		"map version":       {"AWSTemplateFormatVersion: '2012-01-01'\n" + vpc, "t:1:27: Template format error: Template format version"},
	} {
		t.Run(name, func(t *testing.T) {
			tmpl, ps := Parse("t", []byte(c.src))
			if tmpl != nil {
				ps = append(ps, Check(tmpl)...)
			}
			var all []string
			for _, p := range ps {
				all = append(all, p.Error())
			}
			for _, want := range strings.Split(c.want, "|") {
				if !strings.Contains(strings.Join(all, "\n"), want) {
					t.Errorf("got\n%s\nwant\n%s", strings.Join(all, "\n"), want)
				}
			}
		})
	}
}

func TestClassicIsRefusedWithPositions(t *testing.T) {
	var got []string
	for _, p := range Check(load(t, "testdata/classic.json")) {
		if !p.Local {
			t.Errorf("not local: %v", p)
		}
		got = append(got, fmt.Sprintf("%d:%d %s", p.Line, p.Column, p.Message))
	}
	want := []string{
		"9:15 the local region does not have the resource type AWS::ElasticLoadBalancing::LoadBalancer",
		"13:15 the local region does not have the resource type AWS::AutoScaling::LaunchConfiguration",
		"21:9 the local region does not realise the property LaunchConfigurationName of AWS::AutoScaling::AutoScalingGroup",
		"22:9 the local region does not realise the property LoadBalancerNames of AWS::AutoScaling::AutoScalingGroup",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

func TestParameters(t *testing.T) {
	const src = `Parameters:
  N: {Type: Number, MinValue: 1, MaxValue: 5}
  S: {Type: String, Default: abc, MinLength: 2, MaxLength: 4, AllowedPattern: '[a-z]+'}
  V: {Type: String, Default: a, AllowedValues: [a, b]}
  L: {Type: List<Number>, Default: '1, 2'}
  C: {Type: String, Default: a, AllowedPattern: a, ConstraintDescription: must be a}
Resources: {A: {Type: AWS::EC2::VPC}}`
	tmpl, ps := Parse("t", []byte(src))
	if len(ps) > 0 {
		t.Fatal(ps)
	}
	for _, c := range []struct {
		in   Values
		want string
	}{
		{Values{"N": "3"}, ""},
		{Values{}, "t:2:3: Parameters: [N] must have values"},
		{Values{"N": "x"}, "t:2:3: Parameter 'N' must be a number"},
		{Values{"N": "0"}, "t:2:3: Parameter 'N' must be a number not less than 1"},
		{Values{"N": "6"}, "t:2:3: Parameter 'N' must be a number not greater than 5"},
		{Values{"N": "1", "S": "a"}, "t:3:3: Parameter 'S' must contain at least 2 characters"},
		{Values{"N": "1", "S": "aaaaa"}, "t:3:3: Parameter 'S' must contain at most 4 characters"},
		{Values{"N": "1", "S": "ABC"}, "t:3:3: Parameter 'S' must match pattern [a-z]+"},
		{Values{"N": "1", "V": "c"}, "t:4:3: Parameter 'V' must be one of AllowedValues"},
		{Values{"N": "1", "L": "1,x"}, "t:5:3: Parameter 'L' must be a number"},
		{Values{"N": "1", "C": "b"}, "t:6:3: Parameter C failed to satisfy constraint: must be a"},
		{Values{"N": "1", "Vv": "c"}, "Parameters: [Vv] do not exist in the template (did you mean V?)"},
	} {
		_, _, ps := tmpl.Resolve(c.in, nil)
		got := ""
		if len(ps) > 0 {
			got = ps[0].Error()
		}
		if got != c.want {
			t.Errorf("%v: got %q, want %q", c.in, got, c.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"network.yaml", "fleet.yaml", "classic.json"} {
		src, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	f.Add([]byte("A: !GetAZs\nB:\n  - !If [a, !Ref b, !Sub '${c}']\n"))
	f.Fuzz(func(t *testing.T, src []byte) {
		tmpl, problems := Parse("f", src)
		if tmpl == nil {
			if len(problems) == 0 {
				t.Fatal("nothing was read and nothing is wrong")
			}
			return
		}
		Check(tmpl)
		s := scope(tmpl, nil)
		deps, properties, err := tmpl.Dependencies(s)
		if err != nil {
			return
		}
		for name := range deps {
			tmpl.Properties(tmpl.Resource(name), properties[name])
		}
	})
}
