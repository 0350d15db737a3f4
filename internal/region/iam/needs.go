package iam

import (
	"context"
	"reflect"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// A resource that an input names: field is a member of the input (a string or
// a list of them), arn its ARN, in which {} stands for the value. A part that
// the input does not tell is *, which only a policy's own * matches.
type named struct{ field, arn string }

// ec2Names are the resources of EC2 by the members that name them; those whose
// ARN begins with / belong to no account.
var ec2Names = []named{
	{"InstanceId", "instance/{}"}, {"InstanceIds", "instance/{}"}, {"VpcId", "vpc/{}"}, {"SubnetId", "subnet/{}"}, {"SubnetIds", "subnet/{}"},
	{"GroupId", "security-group/{}"}, {"SecurityGroupIds", "security-group/{}"}, {"GroupIds", "security-group/{}"},
	{"InternetGatewayId", "internet-gateway/{}"}, {"EgressOnlyInternetGatewayId", "egress-only-internet-gateway/{}"}, {"NatGatewayId", "natgateway/{}"},
	{"RouteTableId", "route-table/{}"}, {"NetworkAclId", "network-acl/{}"}, {"AllocationId", "elastic-ip/{}"}, {"DhcpOptionsId", "dhcp-options/{}"},
	{"ImageId", "/image/{}"}, {"SnapshotId", "/snapshot/{}"}, {"VolumeId", "volume/{}"}, {"LaunchTemplateId", "launch-template/{}"}, {"LaunchTemplateName", "launch-template/*"},
}

// ec2Creates are the resources that an operation makes.
var ec2Creates = map[string][]string{
	"CreateVpc": {"vpc/*"}, "CreateSubnet": {"subnet/*"}, "CreateInternetGateway": {"internet-gateway/*"}, "CreateEgressOnlyInternetGateway": {"egress-only-internet-gateway/*"},
	"CreateNatGateway": {"natgateway/*"}, "AllocateAddress": {"elastic-ip/*"}, "CreateRouteTable": {"route-table/*"}, "CreateNetworkAcl": {"network-acl/*"},
	"CreateSecurityGroup": {"security-group/*"}, "CreateDhcpOptions": {"dhcp-options/*"}, "CreateLaunchTemplate": {"launch-template/*"},
	"CreateImage": {"/image/*", "/snapshot/*"}, "RegisterImage": {"/image/*"}, "CopyImage": {"/image/*"},
	"RunInstances": {"instance/*", "network-interface/*", "volume/*"},
}

// idKinds are the resource types by the prefix of an id, for CreateTags.
var idKinds = map[string]string{
	"i": "instance/", "vpc": "vpc/", "subnet": "subnet/", "sg": "security-group/", "igw": "internet-gateway/", "eigw": "egress-only-internet-gateway/",
	"nat": "natgateway/", "rtb": "route-table/", "acl": "network-acl/", "eipalloc": "elastic-ip/", "dopt": "dhcp-options/", "ami": "/image/", "snap": "/snapshot/",
	"vol": "volume/", "lt": "launch-template/", "eni": "network-interface/",
}

var otherNames = map[string][]named{
	"autoscaling":          {{"AutoScalingGroupName", "autoScalingGroup:*:autoScalingGroupName/{}"}},
	"elasticloadbalancing": {{"LoadBalancerArn", "{}"}, {"TargetGroupArn", "{}"}, {"ListenerArn", "{}"}, {"RuleArn", "{}"}, {"ResourceArns", "{}"}},
	"cloudformation":       {{"StackName", "stack/{}/*"}},
	"ssm":                  {{"Name", "parameter/{}"}, {"Names", "parameter/{}"}, {"Path", "parameter/{}"}, {"DocumentName", "/document/{}"}},
}

// Needs implements wire.Needer.
func (s *Service) Needs(_ context.Context, c wire.Caller, service, op string, in any) []wire.Need {
	if c.ARN == s.rootARN() {
		return nil
	}
	v := reflect.ValueOf(in).Elem()
	tags := requestTags(v)
	need := wire.Need{Action: op, Conditions: tags}
	switch service {
	case "sts": // who may assume a role is the role's own business, see AssumeRole
		if op == "GetCallerIdentity" || op == "AssumeRole" {
			return nil
		}
	case "iam":
		return s.iamNeeds(need, op, v)
	case "ec2":
		return s.ec2Needs(need, op, v)
	case "monitoring": // what CloudWatch signs with; its actions have another name
		need.Service = "cloudwatch"
	case "autoscaling":
		need.Resources = s.names(service, op, v)
		if len(need.Resources) == 0 && member(v, "InstanceId").IsValid() && !strings.HasPrefix(op, "Describe") {
			need.Resources = []string{s.regional("autoscaling", "autoScalingGroup:*:autoScalingGroupName/*")}
		}
		needs := []wire.Need{need}
		return s.passRole(needs, text(v, "ServiceLinkedRoleARN"), "autoscaling.amazonaws.com")
	case "elasticloadbalancing":
		need.Resources = s.names(service, op, v)
		switch name := text(v, "Name"); op {
		case "CreateLoadBalancer":
			kind := "app"
			if text(v, "Type") == "network" {
				kind = "net"
			}
			need.Resources = []string{s.regional(service, "loadbalancer/"+kind+"/"+name+"/*")}
		case "CreateTargetGroup":
			need.Resources = []string{s.regional(service, "targetgroup/"+name+"/*")}
		}
	case "cloudformation":
		need.Resources = s.names(service, op, v)
		return s.passRole([]wire.Need{need}, text(v, "RoleARN"), "cloudformation.amazonaws.com")
	case "ssm":
		need.Resources = s.names(service, op, v)
		if op == "SendCommand" {
			ids := texts(v, "InstanceIds")
			if len(ids) == 0 {
				ids = []string{"*"}
			}
			for _, id := range ids {
				need.Resources = append(need.Resources, s.regional("ec2", "instance/"+id))
			}
		}
	}
	return []wire.Need{need}
}

func (s *Service) ec2Needs(need wire.Need, op string, v reflect.Value) []wire.Need {
	if strings.HasPrefix(op, "Describe") && op != "DescribeInstanceAttribute" && op != "DescribeImageAttribute" && op != "DescribeVpcAttribute" {
		return []wire.Need{need}
	}
	for _, kind := range ec2Creates[op] {
		need.Resources = append(need.Resources, s.regional("ec2", kind))
	}
	at := []reflect.Value{v}
	// A launch may take its parts from the network interfaces or a template.
	for _, m := range []string{"LaunchTemplate", "NetworkInterfaces"} {
		for x := range each(member(v, m)) {
			at = append(at, x)
		}
	}
	for _, x := range at {
		for _, n := range ec2Names {
			for _, id := range texts(x, n.field) {
				need.Resources = append(need.Resources, s.regional("ec2", strings.ReplaceAll(n.arn, "{}", id)))
			}
		}
	}
	if op == "CreateTags" || op == "DeleteTags" {
		for _, id := range texts(v, "Resources") {
			prefix, _, _ := strings.Cut(id, "-")
			if kind := idKinds[prefix]; kind != "" {
				need.Resources = append(need.Resources, s.regional("ec2", kind+id))
			} else {
				need.Resources = append(need.Resources, s.regional("ec2", "*/"+id))
			}
		}
	}
	needs := []wire.Need{need}
	if len(need.Conditions) > 0 && op != "CreateTags" && op != "DeleteTags" {
		t := wire.Need{Action: "CreateTags", Conditions: map[string]string{"ec2:CreateAction": op}}
		for k, v := range need.Conditions {
			t.Conditions[k] = v
		}
		for _, kind := range ec2Creates[op] {
			t.Resources = append(t.Resources, s.regional("ec2", kind))
		}
		needs = append(needs, t)
	}
	for x := range each(v) {
		for _, holder := range []reflect.Value{x, member(x, "LaunchTemplateData")} {
			for p := range each(member(holder, "IamInstanceProfile")) {
				for _, name := range append(texts(p, "Arn"), texts(p, "Name")...) {
					r, err := s.profileRole(name)
					if err != nil {
						continue // the launch fails on it
					}
					needs = s.passRole(needs, r.ARN, "ec2.amazonaws.com")
				}
			}
		}
	}
	return needs
}

// passRole adds the right to hand a role to a service.
func (s *Service) passRole(needs []wire.Need, arn, to string) []wire.Need {
	if arn == "" {
		return needs
	}
	return append(needs, wire.Need{Service: "iam", Action: "PassRole", Resources: []string{arn}, Conditions: map[string]string{"iam:PassedToService": to}})
}

func (s *Service) iamNeeds(need wire.Need, op string, v reflect.Value) []wire.Need {
	roleName, profileName, policyARN := text(v, "RoleName"), text(v, "InstanceProfileName"), text(v, "PolicyArn")
	path := text(v, "Path")
	if path == "" {
		path = "/"
	}
	roleARN, profileARN := s.arn("role", path, roleName), s.arn("instance-profile", path, profileName)
	s.db.View(func(tx *state.Tx) {
		if r, ok := s.roles.Get(tx, roleName); ok {
			roleARN = r.ARN
		}
		if p, ok := s.profiles.Get(tx, profileName); ok {
			profileARN = p.ARN
		}
	})
	switch {
	case profileName != "":
		need.Resources = []string{profileARN}
		if op == "AddRoleToInstanceProfile" {
			return s.passRole([]wire.Need{need}, roleARN, "ec2.amazonaws.com")
		}
	case roleName != "":
		need.Resources = []string{roleARN}
		if policyARN != "" {
			need.Conditions["iam:PolicyARN"] = policyARN
		}
		if b := text(v, "PermissionsBoundary"); b != "" {
			need.Conditions["iam:PermissionsBoundary"] = b
		}
	case policyARN != "":
		need.Resources = []string{policyARN}
	case op == "CreatePolicy":
		need.Resources = []string{s.arn("policy", path, text(v, "PolicyName"))}
	}
	return []wire.Need{need}
}

// names gives the resources that an input names, none for operations that
// look at everything.
func (s *Service) names(service, op string, v reflect.Value) (out []string) {
	if strings.HasPrefix(op, "Describe") && service != "cloudformation" || op == "DescribeParameters" {
		return nil
	}
	for _, n := range otherNames[service] {
		for _, val := range texts(v, n.field) {
			switch {
			case strings.HasPrefix(val, "arn:"):
				out = append(out, val)
			case service == "ssm" && strings.HasPrefix(val, "/aws/"): // public parameters belong to no account
				out = append(out, "arn:aws:ssm:"+s.cfg.Region+"::"+strings.ReplaceAll(n.arn, "{}", val[1:]))
			default:
				out = append(out, s.regional(service, strings.ReplaceAll(n.arn, "{}", strings.TrimPrefix(val, "/"))))
			}
		}
	}
	return out
}

// regional is the ARN of a resource here; a name that begins with / is in no account.
func (s *Service) regional(service, name string) string {
	if n, ok := strings.CutPrefix(name, "/"); ok {
		return "arn:aws:" + service + ":" + s.cfg.Region + "::" + n
	}
	return "arn:aws:" + service + ":" + s.cfg.Region + ":" + s.cfg.Account + ":" + name
}

// requestTags are the tags that a request gives, as condition keys.
func requestTags(v reflect.Value) map[string]string {
	out := map[string]string{}
	add := func(holder reflect.Value) {
		for t := range each(member(holder, "Tags")) {
			if k := text(t, "Key"); k != "" {
				out["aws:RequestTag/"+k] = text(t, "Value")
			}
		}
	}
	add(v)
	for spec := range each(member(v, "TagSpecifications")) {
		add(spec)
	}
	return out
}

// member is a field of a struct, or the zero Value.
func member(v reflect.Value, name string) reflect.Value {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	return v.FieldByName(name)
}

// each yields the structs in v: itself, what it points to, or its items.
func each(v reflect.Value) func(func(reflect.Value) bool) {
	return func(yield func(reflect.Value) bool) {
		switch {
		case !v.IsValid():
		case v.Kind() == reflect.Slice:
			for i := range v.Len() {
				for x := range each(v.Index(i)) {
					if !yield(x) {
						return
					}
				}
			}
		case v.Kind() == reflect.Pointer:
			if e := v.Elem(); e.Kind() == reflect.Struct {
				yield(e)
			}
		case v.Kind() == reflect.Struct:
			yield(v)
		}
	}
}

func text(v reflect.Value, name string) string {
	if f := member(v, name); f.IsValid() && f.Kind() == reflect.String {
		return f.String()
	}
	return ""
}

func texts(v reflect.Value, name string) []string {
	f := member(v, name)
	if !f.IsValid() {
		return nil
	}
	if l, ok := f.Interface().([]string); ok {
		return l
	}
	if t := text(v, name); t != "" {
		return []string{t}
	}
	return nil
}
