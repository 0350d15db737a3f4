package ec2

import (
	"reflect"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Every operation of the model is there: the table of operations cannot grow
// without the service.
func TestEveryOperation(t *testing.T) {
	s := reflect.TypeFor[*Service]()
	for name := range ec2api.Model.Operations {
		if _, ok := s.MethodByName(name); !ok {
			t.Errorf("%s is missing", name)
		}
	}
	wire.NewBus().Register(ec2api.Model, new(Service)) // panics on a wrong form
}

func TestLaunchAndTerminate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x := w.site("10.0.0.0/16")
		ids := w.run(x.public, 5, func(in *ec2api.RunInstancesRequest) {
			in.SecurityGroupIds = []string{x.group}
			in.IamInstanceProfile = &ec2api.IamInstanceProfileSpecification{Name: "web"}
			in.UserData = "IyEvYmluL3NoCg=="
			in.MetadataOptions = &ec2api.InstanceMetadataOptionsRequest{HttpTokens: "required", InstanceMetadataTags: "enabled"}
			in.TagSpecifications = []*ec2api.TagSpecification{{ResourceType: "instance", Tags: []*ec2api.Tag{{Key: "Name", Value: "web"}}}, {ResourceType: "volume", Tags: []*ec2api.Tag{{Key: "of", Value: "web"}}}}
		})
		w.await(running, ids...)
		d := w.describe(ids[0])
		if d.PublicIpAddress == "" || d.PublicDnsName == "" || d.PrivateIpAddress != "10.0.0.5" || d.PrivateDnsName != "ip-10-0-0-5.local-1.compute.internal" {
			t.Errorf("addresses %s %s %s %s", d.PublicIpAddress, d.PublicDnsName, d.PrivateIpAddress, d.PrivateDnsName)
		}
		h, _ := w.hyper.Instance(ids[0])
		if h.Hostname != "ip-10-0-0-5" || h.Resolver != "169.254.169.253" || h.Env["AWS_ENDPOINT_URL"] != "http://169.254.169.250" || h.Env["AWS_REGION"] != "local-1" || string(h.UserData) != "#!/bin/sh\n" || h.MemoryMiB != 1024 {
			t.Errorf("the hypervisor got %+v", h)
		}
		a, _ := w.s.AddressByName(x.vpc, d.PrivateDnsName)
		if id, found := w.s.InstanceByAddress(x.vpc, a); !found || id != ids[0] {
			t.Errorf("%s is %q", a, id)
		}
		v, _ := w.s.Snapshot(ids[0])
		if v.ProfileARN == "" || !v.Metadata.TokenRequired || v.Tags["Name"] != "web" || len(v.Groups) != 1 || v.Groups[0].Name != "web" || string(v.UserData) != "#!/bin/sh\n" {
			t.Errorf("view %+v", v)
		}
		sn := must(w.s.DescribeSubnets(w.ctx, &ec2api.DescribeSubnetsRequest{SubnetIds: []string{x.public}}))(t).Subnets[0]
		if *sn.AvailableIpAddressCount != 251-5-1 { // and the NAT gateway
			t.Errorf("%d addresses are free", *sn.AvailableIpAddressCount)
		}
		vols := must(w.s.DescribeVolumes(w.ctx, &ec2api.DescribeVolumesRequest{Filters: []*ec2api.Filter{{Name: "tag:of", Values: []string{"w*"}}}}))(t)
		if len(vols.Volumes) != 5 {
			t.Errorf("%d volumes", len(vols.Volumes))
		}
		st := must(w.s.DescribeInstanceStatus(w.ctx, &ec2api.DescribeInstanceStatusRequest{InstanceIds: ids[:1]}))(t)
		if len(st.InstanceStatuses) != 1 || st.InstanceStatuses[0].InstanceStatus.Status != "ok" {
			t.Errorf("status %+v", st.InstanceStatuses)
		}
		// One bad id and none is touched.
		_, err := w.s.TerminateInstances(w.ctx, &ec2api.TerminateInstancesRequest{InstanceIds: []string{ids[0], "i-0123456789abcdef0"}})
		if code(err) != "InvalidInstanceID.NotFound" || w.state(ids[0]) != running {
			t.Errorf("%v, and it is %s", err, w.state(ids[0]))
		}
		w.terminate(ids...)
		if n := len(must(w.hyper.List(w.ctx))(t)); n != 0 {
			t.Errorf("%d instances are left in the hypervisor", n)
		}
		if d := w.describe(ids[0]); d.State.Name != terminated || d.StateReason.Code != "Client.UserInitiatedShutdown" {
			t.Errorf("%+v", d)
		}
		time.Sleep(61 * time.Minute)
		synctest.Wait()
		if _, err := w.s.DescribeInstances(w.ctx, &ec2api.DescribeInstancesRequest{InstanceIds: ids}); code(err) != "InvalidInstanceID.NotFound" {
			t.Errorf("terminated instances are seen for ever: %v", err)
		}
		w.raze(x)
		w.close()
	})
}

func TestIdempotentLaunch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x := w.site("10.0.0.0/16")
		in := &ec2api.RunInstancesRequest{ImageId: baseAMI, InstanceType: "t3.micro", SubnetId: x.private, MinCount: new(int64(2)), MaxCount: new(int64(3)), ClientToken: "tok"}
		a := must(w.s.RunInstances(w.ctx, in))(t)
		b := must(w.s.RunInstances(w.ctx, in))(t)
		if len(a.Instances) != 3 || a.ReservationId != b.ReservationId || len(b.Instances) != 3 || a.Instances[2].InstanceId != b.Instances[2].InstanceId {
			t.Errorf("%s %d, %s %d", a.ReservationId, len(a.Instances), b.ReservationId, len(b.Instances))
		}
		other := *in
		other.InstanceType = "t3.small"
		if _, err := w.s.RunInstances(w.ctx, &other); code(err) != "IdempotentParameterMismatch" {
			t.Errorf("%v", err)
		}
		var ids []string
		for _, i := range a.Instances {
			ids = append(ids, i.InstanceId)
		}
		w.await(running, ids...)
		w.terminate(ids...)
		if c := must(w.s.RunInstances(w.ctx, in))(t); c.Instances[0].State.Name != terminated {
			t.Errorf("a retry after the end launched %s", c.Instances[0].State.Name)
		}
		w.raze(x)
		w.close()
	})
}

func TestStopStartReboot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x := w.site("10.0.0.0/16")
		id := w.run(x.public, 1)[0]
		w.await(running, id)
		first := w.describe(id)
		ok(t, w.s.RebootInstances(w.ctx, &ec2api.RebootInstancesRequest{InstanceIds: []string{id}}))
		w.until("rebooted", func() bool { i, _ := w.s.record(id); return !i.Reboot })
		must(w.s.StopInstances(w.ctx, &ec2api.StopInstancesRequest{InstanceIds: []string{id}}))(t)
		w.await(stopped, id)
		synctest.Wait()
		d := w.describe(id)
		if d.PublicIpAddress != "" || d.PrivateIpAddress != first.PrivateIpAddress || d.StateReason.Code != "Client.UserInitiatedShutdown" {
			t.Errorf("stopped: %q %q %+v", d.PublicIpAddress, d.PrivateIpAddress, d.StateReason)
		}
		if _, err := w.s.StopInstances(w.ctx, &ec2api.StopInstancesRequest{InstanceIds: []string{id}}); err != nil {
			t.Errorf("stopping twice: %v", err)
		}
		if err := w.s.RebootInstances(w.ctx, &ec2api.RebootInstancesRequest{InstanceIds: []string{id}}); code(err) != "IncorrectInstanceState" {
			t.Errorf("rebooting a stopped one: %v", err)
		}
		must(w.s.StartInstances(w.ctx, &ec2api.StartInstancesRequest{InstanceIds: []string{id}}))(t)
		w.await(running, id)
		if d := w.describe(id); d.PublicIpAddress == "" || d.StateReason != nil {
			t.Errorf("started: %q %+v", d.PublicIpAddress, d.StateReason)
		}
		w.terminate(id)
		w.raze(x)
		w.close()
	})
}

// An instance that ends by itself stops or terminates, and says whose doing it
// was.
func TestEndsByItself(t *testing.T) {
	for _, c := range []struct{ behaviour, how, state, code string }{
		{"stop", "exited 0", stopped, "Client.InstanceInitiatedShutdown"},
		{"terminate", "exited 0", terminated, "Client.InstanceInitiatedShutdown"},
		{"stop", "killed by signal 9", stopped, "Server.InternalError"},
		{"terminate", "out of memory", terminated, "Server.InternalError"},
	} {
		t.Run(c.behaviour+" "+c.how, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				x := w.site("10.0.0.0/16")
				id := w.run(x.public, 1, func(in *ec2api.RunInstancesRequest) { in.InstanceInitiatedShutdownBehavior = c.behaviour })[0]
				w.await(running, id)
				ok(t, w.hyper.Kill(id, c.how))
				w.await(c.state, id)
				if r := w.describe(id).StateReason; r == nil || r.Code != c.code {
					t.Errorf("%+v", r)
				}
				if c.state == stopped {
					w.terminate(id)
				}
				w.raze(x)
				w.close()
			})
		})
	}
}

func TestLaunchFromTemplate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x := w.site("10.0.0.0/16")
		data := &ec2api.RequestLaunchTemplateData{ImageId: baseAMI, InstanceType: "t3.micro", SecurityGroupIds: []string{x.group},
			TagSpecifications: []*ec2api.LaunchTemplateTagSpecificationRequest{{ResourceType: "instance", Tags: []*ec2api.Tag{{Key: "a", Value: "1"}, {Key: "b", Value: "1"}}}}}
		lt := must(w.s.CreateLaunchTemplate(w.ctx, &ec2api.CreateLaunchTemplateRequest{LaunchTemplateName: "web", LaunchTemplateData: data}))(t).LaunchTemplate
		second := must(w.s.CreateLaunchTemplateVersion(w.ctx, &ec2api.CreateLaunchTemplateVersionRequest{LaunchTemplateId: lt.LaunchTemplateId, SourceVersion: "1", LaunchTemplateData: &ec2api.RequestLaunchTemplateData{InstanceType: "t3.small"}}))(t).LaunchTemplateVersion
		if second.LaunchTemplateData.ImageId != baseAMI || second.LaunchTemplateData.InstanceType != "t3.small" || *second.VersionNumber != 2 {
			t.Errorf("%+v", second)
		}
		for version, want := range map[string]string{"$Default": "t3.micro", "$Latest": "t3.small", "1": "t3.micro", "": "t3.micro"} {
			id := w.run(x.private, 1, func(in *ec2api.RunInstancesRequest) {
				in.ImageId, in.InstanceType = "", ""
				in.LaunchTemplate = &ec2api.LaunchTemplateSpecification{LaunchTemplateName: "web", Version: version}
				in.TagSpecifications = []*ec2api.TagSpecification{{ResourceType: "instance", Tags: []*ec2api.Tag{{Key: "b", Value: "2"}}}}
			})[0]
			d := w.describe(id)
			if d.InstanceType != want || d.SecurityGroups[0].GroupId != x.group {
				t.Errorf("%q: %s %v", version, d.InstanceType, d.SecurityGroups)
			}
			tags := map[string]string{}
			for _, tag := range d.Tags {
				tags[tag.Key] = tag.Value
			}
			if tags["a"] != "1" || tags["b"] != "2" || tags["aws:ec2launchtemplate:id"] != lt.LaunchTemplateId {
				t.Errorf("%q: tags %v", version, tags)
			}
			w.await(running, id)
			w.terminate(id)
		}
		_, err := w.s.RunInstances(w.ctx, &ec2api.RunInstancesRequest{SubnetId: x.private, MinCount: new(int64(1)), MaxCount: new(int64(1)), LaunchTemplate: &ec2api.LaunchTemplateSpecification{LaunchTemplateName: "web", Version: "7"}})
		if code(err) != "InvalidLaunchTemplateId.VersionNotFound" {
			t.Errorf("%v", err)
		}
		must(w.s.ModifyLaunchTemplate(w.ctx, &ec2api.ModifyLaunchTemplateRequest{LaunchTemplateId: lt.LaunchTemplateId, DefaultVersion: "2"}))(t)
		vs := must(w.s.DescribeLaunchTemplateVersions(w.ctx, &ec2api.DescribeLaunchTemplateVersionsRequest{LaunchTemplateName: "web"}))(t).LaunchTemplateVersions
		if len(vs) != 2 || *vs[0].VersionNumber != 2 || !*vs[0].DefaultVersion {
			t.Errorf("%+v", vs)
		}
		must(w.s.DeleteLaunchTemplate(w.ctx, &ec2api.DeleteLaunchTemplateRequest{LaunchTemplateId: lt.LaunchTemplateId}))(t)
		w.raze(x)
		w.close()
	})
}

// Pages of instances hold every instance once, those of a launch together.
func TestPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		x := w.site("10.0.0.0/16")
		ids := append(w.run(x.public, 7), w.run(x.private, 8)...)
		var seen []string
		token := ""
		for {
			out := must(w.s.DescribeInstances(w.ctx, &ec2api.DescribeInstancesRequest{MaxResults: new(int64(5)), NextToken: token,
				Filters: []*ec2api.Filter{{Name: "instance-state-name", Values: []string{"pending", "running"}}}}))(t)
			for _, r := range out.Reservations {
				for _, i := range r.Instances {
					seen = append(seen, i.InstanceId)
				}
			}
			if token = out.NextToken; token == "" {
				break
			}
		}
		slices.Sort(seen)
		slices.Sort(ids)
		if !slices.Equal(seen, ids) {
			t.Errorf("%v, want %v", seen, ids)
		}
		w.await(running, ids...)
		w.terminate(ids...)
		w.raze(x)
		w.close()
	})
}
