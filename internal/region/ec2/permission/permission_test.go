package permission

import (
	"reflect"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
)

func peer(g *ec2api.UserIdGroupPair) (string, error) { return g.GroupId, nil }

func cidrs(s ...string) (out []*ec2api.IpRange) {
	for _, x := range s {
		out = append(out, &ec2api.IpRange{CidrIp: x})
	}
	return out
}

func TestExpandRefuses(t *testing.T) {
	p := func(proto string, from, to *int64, c ...string) *ec2api.IpPermission {
		return &ec2api.IpPermission{IpProtocol: proto, FromPort: from, ToPort: to, IpRanges: cidrs(c...)}
	}
	for _, c := range []struct {
		name, code string
		perms      []*ec2api.IpPermission
	}{
		{"none", "MissingParameter", nil},
		{"no protocol", "MissingParameter", []*ec2api.IpPermission{p("", nil, nil, "0.0.0.0/0")}},
		{"no peer", "InvalidPermission.Malformed", []*ec2api.IpPermission{p("tcp", new(int64(1)), new(int64(1)))}},
		{"bad protocol", "InvalidPermission.Malformed", []*ec2api.IpPermission{p("tpc", new(int64(1)), new(int64(1)), "0.0.0.0/0")}},
		{"no ports", "InvalidParameterValue", []*ec2api.IpPermission{p("tcp", nil, nil, "0.0.0.0/0")}},
		{"ports reversed", "InvalidParameterValue", []*ec2api.IpPermission{p("udp", new(int64(2)), new(int64(1)), "0.0.0.0/0")}},
		{"port too high", "InvalidParameterValue", []*ec2api.IpPermission{p("tcp", new(int64(2)), new(int64(65536)), "0.0.0.0/0")}},
		{"port huge", "InvalidParameterValue", []*ec2api.IpPermission{p("tcp", new(int64(1<<40)), new(int64(1<<41)), "0.0.0.0/0")}},
		{"bad range", "InvalidParameterValue", []*ec2api.IpPermission{p("-1", nil, nil, "10.0.0.0")}},
		{"IPv6 as IPv4", "InvalidParameterValue", []*ec2api.IpPermission{p("-1", nil, nil, "::/0")}},
		{"icmp code", "InvalidParameterValue", []*ec2api.IpPermission{p("icmp", new(int64(300)), new(int64(0)), "0.0.0.0/0")}},
		{"twice", "InvalidParameterValue", []*ec2api.IpPermission{p("-1", nil, nil, "10.0.0.0/8", "10.1.0.0/8")}},
		{"prefix list", "UnsupportedOperation", []*ec2api.IpPermission{{IpProtocol: "-1", PrefixListIds: []*ec2api.PrefixListId{{PrefixListId: "pl-1"}}}}},
	} {
		if _, err := Expand(c.perms, false, peer); err == nil || !strings.HasPrefix(err.Error(), c.code+":") {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
	}
}

func TestExpandAndFold(t *testing.T) {
	in := []*ec2api.IpPermission{
		{IpProtocol: "-1", UserIdGroupPairs: []*ec2api.UserIdGroupPair{{GroupId: "sg-1", UserId: "1", Description: "self"}}},
		{IpProtocol: "icmp", FromPort: new(int64(8)), ToPort: new(int64(-1)), IpRanges: cidrs("0.0.0.0/0")},
		{IpProtocol: "tcp", FromPort: new(int64(80)), ToPort: new(int64(90)), IpRanges: cidrs("10.0.0.0/8", "192.168.1.0/24"), Ipv6Ranges: []*ec2api.Ipv6Range{{CidrIpv6: "::/0"}}},
	}
	rules, err := Expand(in, false, peer)
	if err != nil || len(rules) != 5 {
		t.Fatalf("%v %v", rules, err)
	}
	if got := Fold(rules, false, "1"); !reflect.DeepEqual(got, in) {
		t.Errorf("%v", got)
	}
	if got := Fold(rules, true, "1"); got != nil {
		t.Errorf("egress: %v", got)
	}
	n := 0
	for _, r := range rules {
		if _, ok := r.Network(); ok {
			n++
		}
	}
	if n != 4 {
		t.Errorf("%d of 5 rules are for the network, want 4: one is IPv6", n)
	}
	six, err := Expand([]*ec2api.IpPermission{{IpProtocol: "6", FromPort: new(int64(80)), ToPort: new(int64(90)), IpRanges: cidrs("10.3.0.0/8")}}, false, peer)
	if err != nil || !six[0].Same(rules[2]) {
		t.Errorf("%+v is not %+v (%v)", six, rules[2], err)
	}
}
