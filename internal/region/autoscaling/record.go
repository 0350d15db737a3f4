package autoscaling

import (
	"slices"
	"time"
)

// Lifecycle states, in AWS's words.
const (
	pending            = "Pending"
	pendingWait        = "Pending:Wait"
	pendingProceed     = "Pending:Proceed"
	inService          = "InService"
	terminating        = "Terminating"
	terminatingWait    = "Terminating:Wait"
	terminatingProceed = "Terminating:Proceed"
	enteringStandby    = "EnteringStandby"
	standby            = "Standby"
	detaching          = "Detaching"

	healthy   = "Healthy"
	unhealthy = "Unhealthy"

	launchingHook   = "autoscaling:EC2_INSTANCE_LAUNCHING"
	terminatingHook = "autoscaling:EC2_INSTANCE_TERMINATING"

	resultContinue = "CONTINUE"
	resultAbandon  = "ABANDON"

	balancedOnly       = "balanced-only"
	balancedBestEffort = "balanced-best-effort"
)

// group is the record of an Auto Scaling group.
type group struct {
	Name, ARN string
	Created   time.Time

	Min, Max, Desired int64
	Template          template // Version as the user gave it
	Zones             []place  // where instances may go, in the user's order
	Subnets           string   // VPCZoneIdentifier
	Distribution      string

	HealthCheckType  string
	Grace            time.Duration
	Cooldown         time.Duration
	Warmup           *int64
	MaxLifetime      time.Duration
	Policies         []string
	ProtectNew       bool
	DeleteProtection string
	ServiceRole      string
	Context          string

	Suspended     map[string]string // process to reason
	Tags          []tag
	Hooks         []hook
	TargetGroups  []source
	DetachTargets []string // target groups whose targets are still to be deregistered

	Deleting bool // force-deleted: everything goes at once

	Launches []launch // intents that have no answer yet
	Note     string   // the user's request, for the causes of what follows from it
	Replace  int      // instances to launch because unhealthy ones went
	Surplus  int      // instances launched to balance the zones, before the ones that they replace go
	Failures int      // launches that failed in a row
	NotUntil time.Time
	Blocked  map[string]time.Time // zones without capacity, until when they are left alone
	Scaled   time.Time            // of the last finished activity, for the cooldown
}

// place is a zone, with the subnet to use there where the group has subnets.
type place struct{ Zone, Subnet string }

// template is a launch template and what matters of its version.
type template struct{ ID, Name, Version string }

type tag struct {
	Key, Value string
	Propagate  bool
}

// source is an attached target group; Typed when attached as a traffic source.
type source struct {
	ARN   string
	Typed bool
}

type hook struct {
	Name, Transition, Default string
	Heartbeat                 time.Duration
	Metadata, Target, Role    string
}

// launch is an intent: stored before RunInstances is called, with its client token.
type launch struct {
	Token    string
	Place    place
	Count    int
	At       time.Time
	Cause    string
	Template template // with a number as version, "" until it is resolved
	Tags     []tag    // as they were when the token was first used: AWS refuses other parameters
	Protect  bool
}

// instance is an instance's place in a group.
type instance struct {
	ID, Group   string
	Zone        string
	Subnet      string
	Type, Image string
	Template    template
	State       string
	Health      string
	Sick        string // why it is unhealthy: the cause of its replacement
	Protected   bool
	Launched    time.Time
	Entered     time.Time // into service
	NoHooks     bool      // came back from standby, or was attached
	Waits       []wait
	Done        []string // hooks completed before they were waited for
	Registered  []string // target groups it is registered with
	Drained     []string // of these, which have been told to let go
	Skip        []string // target groups that were attached while AddToLoadBalancer was suspended
	Activity    string   // current activity
	Gone        bool     // EC2 has ended it: nothing to drain
}

// wait is a hook that an instance waits for.
type wait struct {
	Hook, Token string
	Default     string
	Beat        time.Duration
	Until, Last time.Time // the heartbeat's end, and the end that no heartbeat moves
}

// activity is a scaling activity.
type activity struct {
	ID, Group, GroupARN         string
	Cause, Description, Details string
	Start                       time.Time
	End                         *time.Time
	Status, Message             string
	Progress                    int64
	Instance                    string
}

func (g *group) suspended(process string) bool { _, ok := g.Suspended[process]; return ok }

func (g *group) hooksFor(transition string) []hook {
	var out []hook
	for _, h := range g.Hooks {
		if h.Transition == transition {
			out = append(out, h)
		}
	}
	return out
}

// zoneNames are the group's zones, each once.
func (g *group) zoneNames() []string {
	var out []string
	for _, p := range g.Zones {
		if !slices.Contains(out, p.Zone) {
			out = append(out, p.Zone)
		}
	}
	return out
}

func (g *group) launching() int {
	n := 0
	for _, l := range g.Launches {
		n += l.Count
	}
	return n
}

// counts says whether an instance in that state is part of the group's capacity.
func counts(st string) bool {
	switch st {
	case pending, pendingWait, pendingProceed, inService:
		return true
	}
	return false
}

// leaving says whether an instance in that state is let go by its target groups.
func leaving(st string) bool { return st == terminating || st == enteringStandby || st == detaching }

// settled states last until somebody or something moves the instance.
func settled(st string) bool { return st == inService || st == standby }

// toDrain are the target groups that still hold the instance.
func (in *instance) toDrain() []string {
	var out []string
	for _, a := range in.Registered {
		if !slices.Contains(in.Drained, a) {
			out = append(out, a)
		}
	}
	return out
}

func without(list []string, v string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(x string) bool { return x == v })
}

func with(list []string, v string) []string {
	if slices.Contains(list, v) {
		return list
	}
	return append(slices.Clone(list), v)
}
