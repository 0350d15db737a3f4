package elb

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	api "github.com/dayfly-infra/dayfly/internal/region/api/elbv2api"
)

// loadBalancer is the record of a load balancer, by ARN.
type loadBalancer struct {
	ARN, Name, Type, Scheme, VPC string
	Subnets                      []zoneSubnet
	Groups                       []string // security groups
	Created                      time.Time
	Active, Deleting             bool
	Interfaces                   []iface
	Attributes                   map[string]string
	Tags                         map[string]string
}

type zoneSubnet struct{ Subnet, Zone string }

type iface struct {
	ID, Subnet string
	IP, Public netip.Addr
}

// targetGroup is the record of a target group with its targets, by ARN.
type targetGroup struct {
	ARN, Name, Protocol, VPC, Type string
	Port                           int64
	Check                          check
	Attributes                     map[string]string
	Tags                           map[string]string
	Targets                        []target
	Created                        time.Time
}

// check is a health check as the user gave it.
type check struct {
	Protocol, Port, Path, Matcher     string
	Interval, Timeout, Healthy, Unfit int64
}

// target is a registered instance or address.
type target struct {
	ID     string
	Port   int64
	Zone   string
	IP     netip.Addr
	State  string // initial, healthy, unhealthy, draining
	Detail string // of an unhealthy one, the balancer's words
	Off    string // state of an instance that is not running
	Until  time.Time
}

const (
	stInitial   = "initial"
	stHealthy   = "healthy"
	stUnhealthy = "unhealthy"
	stDraining  = "draining"
	stUnused    = "unused"
)

// listener and rule keep AWS's own types: they are what the user gave.
type listener struct {
	ARN, LB, Protocol string
	Port              int64
	Actions           []*api.Action
	Tags              map[string]string
	Created           time.Time
}

type rule struct {
	ARN, Listener string
	Priority      int64
	Conditions    []*api.RuleCondition
	Actions       []*api.Action
	Tags          map[string]string
}

// address is what a load balancer is reached by.
func (b *loadBalancer) address() string {
	if len(b.Interfaces) == 0 {
		return ""
	}
	i := b.Interfaces[0]
	if i.Public.IsValid() {
		return i.Public.String()
	}
	return i.IP.String()
}

// tail is an ARN's last part.
func tail(arn string) string { return arn[strings.LastIndexByte(arn, '/')+1:] }

// pool is the balancer's name for a target group.
func (g *targetGroup) pool() string { return g.Name + "-" + tail(g.ARN) }

// server is the balancer's name for a target.
func (t *target) server() string {
	return strings.NewReplacer(".", "-", ":", "-").Replace(t.ID) + "_" + strconv.FormatInt(t.Port, 10)
}

func (g *targetGroup) find(id string, port int64) int {
	return slices.IndexFunc(g.Targets, func(t target) bool { return t.ID == id && t.Port == port })
}

// shares are the weighted target groups of a forward; ok is false for other actions.
func shares(a *api.Action) (out []*api.TargetGroupTuple, ok bool) {
	if a.Type != "forward" {
		return nil, false
	}
	if a.ForwardConfig != nil && len(a.ForwardConfig.TargetGroups) > 0 {
		return a.ForwardConfig.TargetGroups, true
	}
	return []*api.TargetGroupTuple{{TargetGroupArn: a.TargetGroupArn, Weight: new(int64(1))}}, true
}

// uses are the target groups that actions forward to.
func uses(actions []*api.Action) []string {
	var out []string
	for _, a := range actions {
		list, _ := shares(a)
		for _, t := range list {
			out = append(out, t.TargetGroupArn)
		}
	}
	return out
}
