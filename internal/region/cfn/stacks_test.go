package cfn_test

import (
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/cloudformationapi"
	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/api/ssmapi"
)

func TestFailureRollsBack(t *testing.T) {
	r := newRegion(t)
	body := read(t, "testdata/full.yaml")
	bad := strings.Replace(body, "Port: 80\n      Protocol: HTTP", "Port: 80\n      Protocol: NONSENSE", 1)
	for _, c := range []struct{ onFailure, status string }{{"ROLLBACK", "ROLLBACK_COMPLETE"}, {"DELETE", "DELETE_COMPLETE"}, {"DO_NOTHING", "CREATE_FAILED"}} {
		out, err := r.cf.CreateStack(r.ctx, &cloudformationapi.CreateStackInput{StackName: "bad", TemplateBody: bad, OnFailure: c.onFailure, Capabilities: []string{"CAPABILITY_IAM"},
			Parameters: []*cloudformationapi.Parameter{{ParameterKey: "ImageId", ParameterValue: ami}, {ParameterKey: "Size", ParameterValue: "3"}}})
		if err != nil {
			t.Fatal(err)
		}
		r.until(out.StackId, c.status)
		if h := r.history(out.StackId); !strings.Contains(h, "Listener CREATE_FAILED") || !strings.Contains(h, "The following resource(s) failed to create: [") {
			t.Errorf("events:\n%s", h)
		}
		if c.status != "DELETE_COMPLETE" {
			if c.status == "ROLLBACK_COMPLETE" {
				r.empty()
			}
			r.delete("bad")
		}
		r.empty()
	}
}

func parameters(m map[string]string) (out []*cloudformationapi.Parameter) {
	for k, v := range m {
		out = append(out, &cloudformationapi.Parameter{ParameterKey: k, ParameterValue: v})
	}
	return out
}

func TestUpdateByChangeSet(t *testing.T) {
	r := newRegion(t)
	body := read(t, "testdata/full.yaml")
	values := map[string]string{"ImageId": ami, "Size": "2"}
	r.create("shop", body, values)
	r.until("shop", "CREATE_COMPLETE")

	values["IngressPort"] = "8443"
	changed := strings.Replace(body, "Value: !GetAtt VPC.CidrBlock}", "Value: changed}", 1)
	changed = strings.Replace(changed, "InstanceType: t3.micro", "InstanceType: t3.small", 1)
	changed = strings.Replace(changed, "HealthCheckPath: /healthz", "HealthCheckPath: /ready", 1)
	changed = strings.Replace(changed, "{Port: 8080, Protocol: HTTP,", "{Port: 9090, Protocol: HTTP,", 1) // another target group
	changed = strings.Replace(changed, "  Peers:", "  Added:\n    Type: AWS::EC2::InternetGateway\n  Peers:", 1)
	changed = changed[:strings.Index(changed, "  More:\n")] + changed[strings.Index(changed, "  Managed:\n"):]
	_, err := r.cf.CreateChangeSet(r.ctx, &cloudformationapi.CreateChangeSetInput{StackName: "shop", ChangeSetName: "next", TemplateBody: changed, Parameters: parameters(values), Capabilities: []string{"CAPABILITY_IAM"}})
	if err != nil {
		t.Fatal(err)
	}
	set, err := r.cf.DescribeChangeSet(r.ctx, &cloudformationapi.DescribeChangeSetInput{StackName: "shop", ChangeSetName: "next"})
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, c := range set.Changes {
		got[c.ResourceChange.LogicalResourceId] = strings.TrimSpace(c.ResourceChange.Action + " " + c.ResourceChange.Replacement)
	}
	for name, want := range map[string]string{
		"Door": "Modify False", "Setting": "Modify False", "Template": "Modify False", "Fleet": "Modify False", "Targets": "Modify True",
		"Listener": "Modify False", "Rule": "Modify False", "Added": "Add", "More": "Remove",
	} {
		if got[name] != want {
			t.Errorf("%s: %q, want %q", name, got[name], want)
		}
		delete(got, name)
	}
	if len(got) > 0 {
		t.Errorf("changes that nobody wanted: %v", got)
	}
	if _, err := r.cf.ExecuteChangeSet(r.ctx, &cloudformationapi.ExecuteChangeSetInput{StackName: "shop", ChangeSetName: "next"}); err != nil {
		t.Fatal(err)
	}
	r.until("shop", "UPDATE_COMPLETE")
	p := call[ssmapi.GetParameterResult](r, "ssm", "GetParameter", &ssmapi.GetParameterRequest{Name: output(r.describe("shop"), "Parameter")})
	if p.Parameter.Value != "changed" {
		t.Errorf("the parameter is %q", p.Parameter.Value)
	}
	g := call[autoscalingapi.AutoScalingGroupsType](r, "autoscaling", "DescribeAutoScalingGroups", &autoscalingapi.AutoScalingGroupNamesType{}).AutoScalingGroups[0]
	if g.LaunchTemplate.Version != "2" || len(g.TargetGroupARNs) != 1 {
		t.Errorf("the group has template version %s and %d target groups", g.LaunchTemplate.Version, len(g.TargetGroupARNs))
	}
	groups := call[ec2api.DescribeSecurityGroupsResult](r, "ec2", "DescribeSecurityGroups", &ec2api.DescribeSecurityGroupsRequest{Filters: []*ec2api.Filter{{Name: "tag:aws:cloudformation:logical-id", Values: []string{"Door"}}}}).SecurityGroups
	if len(groups) != 1 || len(groups[0].IpPermissions) != 1 || *groups[0].IpPermissions[0].FromPort != 8443 {
		t.Errorf("the door is %+v", groups)
	}

	// The same again is nothing, by both ways.
	again := &cloudformationapi.CreateChangeSetInput{StackName: "shop", ChangeSetName: "again", TemplateBody: changed, Parameters: parameters(values), Capabilities: []string{"CAPABILITY_IAM"}}
	if _, err := r.cf.CreateChangeSet(r.ctx, again); err != nil {
		t.Fatal(err)
	}
	set, err = r.cf.DescribeChangeSet(r.ctx, &cloudformationapi.DescribeChangeSetInput{StackName: "shop", ChangeSetName: "again"})
	if err != nil || set.Status != "FAILED" || !strings.Contains(set.StatusReason, "didn't contain changes") {
		t.Errorf("the empty change set is %s: %s, %v", set.Status, set.StatusReason, err)
	}
	_, err = r.cf.UpdateStack(r.ctx, &cloudformationapi.UpdateStackInput{StackName: "shop", TemplateBody: changed, Parameters: parameters(values), Capabilities: []string{"CAPABILITY_IAM"}})
	r.fails(err, "ValidationError: No updates are to be performed.")

	// What cannot be done is said before anything is.
	_, err = r.cf.UpdateStack(r.ctx, &cloudformationapi.UpdateStackInput{StackName: "shop", TemplateBody: strings.Replace(changed, "s3:ListBucket", "s3:GetObject", 1), Parameters: parameters(values), Capabilities: []string{"CAPABILITY_IAM"}})
	r.fails(err, "ValidationError: the local region cannot change the property PolicyDocument of the AWS::IAM::ManagedPolicy Managed in place [line 71, column 7]")

	// What fails half way is taken back.
	worse := strings.Replace(changed, "Value: changed}", "Value: worse}", 1)
	worse = strings.Replace(worse, "[{Field: path-pattern, PathPatternConfig: {Values: [/api/*]}}]", "[{Field: nonsense}]", 1)
	if _, err := r.cf.UpdateStack(r.ctx, &cloudformationapi.UpdateStackInput{StackName: "shop", TemplateBody: worse, Parameters: parameters(values), Capabilities: []string{"CAPABILITY_IAM"}}); err != nil {
		t.Fatal(err)
	}
	r.until("shop", "UPDATE_ROLLBACK_COMPLETE")
	p = call[ssmapi.GetParameterResult](r, "ssm", "GetParameter", &ssmapi.GetParameterRequest{Name: output(r.describe("shop"), "Parameter")})
	if p.Parameter.Value != "changed" {
		t.Errorf("the parameter is %q after the way back", p.Parameter.Value)
	}
	r.delete("shop")
	r.empty()
}

func output(st *cloudformationapi.Stack, key string) string {
	for _, o := range st.Outputs {
		if o.OutputKey == key {
			return o.OutputValue
		}
	}
	return ""
}

// fails sees that an error says what it must.
func (r *region) fails(err error, want string) {
	r.t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		r.t.Errorf("got %v, want %s", err, want)
	}
}

const gateway = "Resources:\n  G: {Type: AWS::EC2::InternetGateway}\n"

func TestRequests(t *testing.T) {
	r := newRegion(t)
	create := func(in cloudformationapi.CreateStackInput) error {
		if in.StackName == "" {
			in.StackName = "x"
		}
		_, err := r.cf.CreateStack(r.ctx, &in)
		return err
	}
	r.fails(create(cloudformationapi.CreateStackInput{StackName: "1x", TemplateBody: gateway}), "ValidationError: 1 validation error detected: Value '1x' at 'stackName'")
	r.fails(create(cloudformationapi.CreateStackInput{}), "Either Template URL or Template Body must be specified.")
	r.fails(create(cloudformationapi.CreateStackInput{TemplateURL: "https://x"}), "not from TemplateURL")
	r.fails(create(cloudformationapi.CreateStackInput{TemplateBody: gateway, NotificationARNs: []string{"arn:x"}}), "the local region sends no notifications")
	r.fails(create(cloudformationapi.CreateStackInput{TemplateBody: gateway, Tags: []*cloudformationapi.Tag{{Key: "aws:x", Value: "y"}}}), "aws: prefixed tag key names are not allowed")
	r.fails(create(cloudformationapi.CreateStackInput{TemplateBody: gateway, Parameters: parameters(map[string]string{"P": "1"})}), "Parameters: [P] do not exist in the template")
	r.fails(create(cloudformationapi.CreateStackInput{TemplateBody: "Parameters: {P: {Type: String}}\n" + gateway}), "Parameters: [P] must have values")
	r.fails(create(cloudformationapi.CreateStackInput{TemplateBody: "Resources:\n  B:\n    Type: AWS::S3::Bucket\n"}), "ValidationError: the local region does not have the resource type AWS::S3::Bucket [line 3, column 11]")
	r.fails(create(cloudformationapi.CreateStackInput{TemplateBody: "Resources:\n  A: {Type: AWS::EC2::VPC, DependsOn: B}\n  B: {Type: AWS::EC2::VPC, DependsOn: A}\n"}), "Circular dependency between resources: [A, B]")
	r.fails(create(cloudformationapi.CreateStackInput{TemplateBody: "Resources:\n  R:\n    Type: AWS::IAM::Role\n    Properties: {AssumeRolePolicyDocument: {}}\n"}), "InsufficientCapabilitiesException: Requires capabilities : [CAPABILITY_IAM]")
	r.fails(create(cloudformationapi.CreateStackInput{Capabilities: []string{"CAPABILITY_IAM"}, TemplateBody: "Resources:\n  R:\n    Type: AWS::IAM::Role\n    Properties: {RoleName: x, AssumeRolePolicyDocument: {}}\n"}), "Requires capabilities : [CAPABILITY_NAMED_IAM]")
	// A handle is a placeholder; its address is not there.
	if err := create(cloudformationapi.CreateStackInput{StackName: "h", TemplateBody: "Resources:\n  H: {Type: AWS::CloudFormation::WaitConditionHandle}\n  P: {Type: AWS::SSM::Parameter, Properties: {Type: String, Value: !Ref H}}\n"}); err != nil {
		t.Error(err)
	}
	if r.until("h", "ROLLBACK_COMPLETE"); !strings.Contains(r.history("h"), "P CREATE_FAILED the local region does not serve the addresses of wait condition handles, such as H [line 3, column 68]") {
		t.Error(r.history("h"))
	}
	if err := create(cloudformationapi.CreateStackInput{StackName: "i", TemplateBody: gateway + "Outputs: {U: {Value: !ImportValue nothing}}\n"}); err != nil {
		t.Error(err)
	}
	if r.until("i", "ROLLBACK_COMPLETE"); !strings.Contains(r.history("i"), "No export named nothing found") {
		t.Error(r.history("i"))
	}
	// A type of a condition that does not hold is not made, so it may be missing here.
	if err := create(cloudformationapi.CreateStackInput{StackName: "c", TemplateBody: "Conditions: {No: !Equals [a, b]}\n" + gateway + "  B: {Type: AWS::S3::Bucket, Condition: No}\n"}); err != nil {
		t.Error(err)
	}
	r.until("c", "CREATE_COMPLETE")
	r.delete("c")

	_, err := r.cf.DescribeStacks(r.ctx, &cloudformationapi.DescribeStacksInput{StackName: "nix"})
	r.fails(err, "ValidationError: Stack with id nix does not exist")
	if err := r.cf.DeleteStack(r.ctx, &cloudformationapi.DeleteStackInput{StackName: "nix"}); err != nil {
		t.Error(err)
	}
	in := cloudformationapi.CreateStackInput{StackName: "t", TemplateBody: gateway, ClientRequestToken: "one", EnableTerminationProtection: new(true)}
	first, err := r.cf.CreateStack(r.ctx, &in)
	if err != nil {
		t.Fatal(err)
	}
	again := in
	second, err := r.cf.CreateStack(r.ctx, &again)
	if err != nil || second.StackId != first.StackId {
		t.Errorf("the same request gives %v, %v", second, err)
	}
	again.StackName = "u"
	r.fails(create(again), "TokenAlreadyExistsException")
	again = in
	again.ClientRequestToken = "two"
	r.fails(create(again), "AlreadyExistsException: Stack [t] already exists")
	r.until("t", "CREATE_COMPLETE")
	r.fails(r.cf.DeleteStack(r.ctx, &cloudformationapi.DeleteStackInput{StackName: "t"}), "cannot be deleted while TerminationProtection is enabled")
}

func TestExports(t *testing.T) {
	r := newRegion(t)
	r.create("from", gateway+"Outputs: {G: {Value: !Ref G, Export: {Name: gate}}}\n", nil)
	r.until("from", "CREATE_COMPLETE")
	user := "Resources:\n  P: {Type: AWS::SSM::Parameter, Properties: {Type: String, Value: !ImportValue gate}}\n"
	r.create("to", user, nil)
	r.until("to", "CREATE_COMPLETE")
	imports, err := r.cf.ListImports(r.ctx, &cloudformationapi.ListImportsInput{ExportName: "gate"})
	if err != nil || len(imports.Imports) != 1 || imports.Imports[0] != "to" {
		t.Errorf("imports %v, %v", imports, err)
	}
	if err := r.cf.DeleteStack(r.ctx, &cloudformationapi.DeleteStackInput{StackName: "from"}); err != nil {
		t.Fatal(err)
	}
	if st := r.describe("from"); st.StackStatus != "CREATE_COMPLETE" || !strings.Contains(r.history("from"), "Delete canceled. Cannot delete export gate as it is in use by to.") {
		t.Errorf("a stack whose export is in use is %s", st.StackStatus)
	}
	// Another stack cannot have the same export: it is made, and rolled back.
	r.create("twin", gateway+"Outputs: {G: {Value: !Ref G, Export: {Name: gate}}}\n", nil)
	if st := r.until("twin", "ROLLBACK_COMPLETE"); !strings.Contains(r.history("twin"), "Export with name gate is already exported by stack from") {
		t.Errorf("twin: %s\n%s", st.StackStatusReason, r.history("twin"))
	}
	r.delete("twin")
	// Nor can the export's value go while it is used.
	if _, err := r.cf.UpdateStack(r.ctx, &cloudformationapi.UpdateStackInput{StackName: "from", TemplateBody: gateway}); err != nil {
		t.Fatal(err)
	}
	r.until("from", "UPDATE_ROLLBACK_COMPLETE")
	r.delete("to")
	r.delete("from")
	r.empty()
}

func TestSignals(t *testing.T) {
	r := newRegion(t)
	body := `Parameters: {Image: {Type: String}, Subnet: {Type: String}}
Resources:
  I:
    Type: AWS::EC2::Instance
    CreationPolicy: {ResourceSignal: {Count: 2, Timeout: PT1M}}
    Properties: {ImageId: !Ref Image, InstanceType: t3.micro, SubnetId: !Ref Subnet}
Outputs: {Ip: {Value: !GetAtt I.PrivateIp}}
`
	r.create("net", strings.Split(read(t, "testdata/network.yaml"), "  Nat:\n")[0], nil)
	r.until("net", "CREATE_COMPLETE")
	subnet := call[cloudformationapi.DescribeStackResourceOutput](r, "cloudformation", "DescribeStackResource", &cloudformationapi.DescribeStackResourceInput{StackName: "net", LogicalResourceId: "Public"}).StackResourceDetail.PhysicalResourceId
	for _, second := range []string{"SUCCESS", "FAILURE"} {
		r.create("s", body, map[string]string{"Image": ami, "Subnet": subnet})
		for _, x := range [][2]string{{"a", "SUCCESS"}, {"a", "SUCCESS"}, {"b", second}} {
			for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
				err := r.cf.SignalResource(r.ctx, &cloudformationapi.SignalResourceInput{StackName: "s", LogicalResourceId: "I", UniqueId: x[0], Status: x[1]})
				if err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
		}
		if second == "SUCCESS" {
			if st := r.until("s", "CREATE_COMPLETE"); !strings.HasPrefix(output(st, "Ip"), "10.0.") {
				t.Errorf("outputs %v", st.Outputs)
			}
		} else if r.until("s", "ROLLBACK_COMPLETE"); !strings.Contains(r.history("s"), "Received 1 FAILURE signal(s) out of 2. Unable to satisfy 100% MinSuccessfulInstancesPercent requirement") {
			t.Error(r.history("s"))
		}
		r.delete("s")
	}
	r.delete("net")
	r.empty()
}

func TestRetainAndProtection(t *testing.T) {
	r := newRegion(t)
	r.create("keep", "Resources:\n  G: {Type: AWS::EC2::InternetGateway, DeletionPolicy: Retain}\n  H: {Type: AWS::EC2::InternetGateway}\n", nil)
	r.until("keep", "CREATE_COMPLETE")
	id := r.describe("keep").StackId
	r.delete("keep")
	gws := call[ec2api.DescribeInternetGatewaysResult](r, "ec2", "DescribeInternetGateways", &ec2api.DescribeInternetGatewaysRequest{Filters: []*ec2api.Filter{{Name: "tag:aws:cloudformation:stack-id", Values: []string{id}}}}).InternetGateways
	if len(gws) != 1 || !strings.Contains(r.history(id), "G DELETE_SKIPPED") {
		t.Errorf("%d gateways are kept\n%s", len(gws), r.history(id))
	}

	// Instances that are protected from scale-in hold the deletion up, as on AWS.
	body := strings.Replace(read(t, "testdata/full.yaml"), "      MinSize: 0\n", "      MinSize: 0\n      NewInstancesProtectedFromScaleIn: true\n", 1)
	sid := r.create("held", body, map[string]string{"ImageId": ami, "Size": "2"})
	r.until("held", "CREATE_COMPLETE")
	group := output(r.describe("held"), "Group")
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		g := call[autoscalingapi.AutoScalingGroupsType](r, "autoscaling", "DescribeAutoScalingGroups", &autoscalingapi.AutoScalingGroupNamesType{AutoScalingGroupNames: []string{group}}).AutoScalingGroups[0]
		if len(g.Instances) == 2 && g.Instances[0].LifecycleState == "InService" && g.Instances[1].LifecycleState == "InService" {
			break
		}
	}
	if err := r.cf.DeleteStack(r.ctx, &cloudformationapi.DeleteStackInput{StackName: "held"}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(400 * time.Millisecond)
	if st := r.describe(sid); st.StackStatus != "DELETE_IN_PROGRESS" {
		t.Fatalf("the stack is %s, and its instances are protected", st.StackStatus)
	}
	call[struct{}](r, "autoscaling", "DeleteAutoScalingGroup", &autoscalingapi.DeleteAutoScalingGroupType{AutoScalingGroupName: group, ForceDelete: new(true)})
	r.until(sid, "DELETE_COMPLETE")
}

// TestDeleteWhileCreating deletes a stack before it is complete.
func TestDeleteWhileCreating(t *testing.T) {
	r := newRegion(t)
	for i := range 12 {
		id := r.create("hasty", read(t, "testdata/full.yaml"), map[string]string{"ImageId": ami, "Size": "3"})
		time.Sleep(time.Duration(i) * 3 * time.Millisecond)
		if err := r.cf.DeleteStack(r.ctx, &cloudformationapi.DeleteStackInput{StackName: "hasty"}); err != nil {
			t.Fatal(err)
		}
		r.until(id, "DELETE_COMPLETE")
		r.empty()
	}
}
