// Package cloud is the platform's one driver: the AWS API through
// aws-sdk-go-v2, in the words that the loops need. Every mutating call runs
// under an Intent whose record is durable before the call (law 3), is found
// again after a crash, and is tagged in the call that creates it. Loops declare
// the narrow interfaces that they use; *Driver satisfies them all. It must not
// know blueprints, environments or the local region.
package cloud

import (
	"time"
)

// Intent names one mutating call for ever. ID is deterministic and unique, such
// as "bake/4f2a/create-image/1" (object/step/attempt): after a crash the same
// step asks with the same ID and gets the first call's result. Changed
// parameters need another ID. It begins with the object and a slash, so that an
// object's intents are found without a look at all others.
type Intent struct {
	ID string
	// Object is the record that the call is for, such as "bake/4f2a".
	Object string
}

// Tags that Dayfly puts on what it makes; Owner is this installation's id.
const (
	TagOwner       = "dayfly:owner"
	TagObject      = "dayfly:object"   // record that it belongs to, kind/name
	TagDeadline    = "dayfly:deadline" // RFC 3339; after it the sweep may remove it
	TagIntent      = "dayfly:intent"
	TagEnvironment = "dayfly:environment"
	TagGeneration  = "dayfly:generation"
	TagImage       = "dayfly:image"
	TagRelease     = "dayfly:release" // digest
)

// Tags by key. The driver adds owner and intent.
type Tags map[string]string

// Stack is a CloudFormation stack as it is.
type Stack struct {
	ID, Name string
	Status   string // CREATE_COMPLETE, ...
	Reason   string
	Outputs  map[string]string
	Tags     map[string]string
	Created  time.Time
}

// StackInput makes a stack.
type StackInput struct {
	Name       string // deterministic: the name is how it is found again
	Template   string
	Parameters map[string]string
	Tags       Tags
	// KeepOnFailure leaves what was made for a look (OnFailure=DO_NOTHING);
	// otherwise a failed creation rolls back.
	KeepOnFailure bool
}

// StackEvent is one line of a stack's history.
type StackEvent struct {
	Time                           time.Time
	Resource, Type, Status, Reason string
}

// StackResource is one thing of a stack.
type StackResource struct {
	Logical, Type, Physical, Status string
}

// Instance as it is.
type Instance struct {
	ID, Image, Type, Zone string
	State                 string // pending, running, shutting-down, terminated, stopping, stopped
	Reason                string // why, when AWS says
	PrivateIP             string
	Launched              time.Time
	Tags                  map[string]string
}

// InstanceInput launches instances outside a group (builders' canaries).
type InstanceInput struct {
	Image, Type, Subnet, Profile string // Profile: instance profile's name or ARN
	Groups                       []string
	Count                        int
	UserData                     string
	Tags                         Tags
}

// Image is an AMI as it is.
type Image struct {
	ID, Name, State, Reason string // pending, available, failed, ...
	Snapshots               []string
	Tags                    map[string]string
	Created                 time.Time
}

// Command is a script for SSM Run Command on one instance.
type Command struct {
	Instance string
	Script   string
	Timeout  time.Duration
	Comment  string
}

// CommandResult is how far it is.
type CommandResult struct {
	ID             string
	Status         string // Pending, InProgress, Success, Failed, TimedOut, Cancelled, DeliveryTimedOut, ...
	ExitCode       int
	Stdout, Stderr string // at most 24,000 characters each, as AWS keeps them
}

// Finished tells whether the command has ended.
func (c CommandResult) Finished() bool {
	switch c.Status {
	case "Pending", "InProgress", "Delayed", "Cancelling", "":
		return false
	}
	return true
}

// Object is one of Dayfly's bucket; Modified is the zero time where S3 tells none.
type Object struct {
	Key      string
	Modified time.Time
}

// Group is an Auto Scaling group as it is.
type Group struct {
	Name              string
	Min, Max, Desired int
	Members           []Member
	TargetGroups      []string // ARNs
	Tags              map[string]string
	Deleting          bool
	Suspended         []string // processes, such as Launch
}

// Member is an instance of a group.
type Member struct {
	Instance, Zone string
	Lifecycle      string // Pending:Wait, InService, Terminating, ...
	Healthy        bool
	Protected      bool
}

// Activity is a scaling activity: why a launch failed, for instance.
type Activity struct {
	ID, Status, Description, Cause, Message string
	Started                                 time.Time
}

// Target is a target group's member and its health.
type Target struct {
	Instance string
	Port     int
	State    string // initial, healthy, unhealthy, unused, draining, unavailable
	Reason   string
}

// Weight is a target group's share in a listener.
type Weight struct {
	TargetGroup string // ARN
	Weight      int
}

/*
What *Driver has (the implementation is in the files beside this one):

	Stacks:    CreateStack(ctx, Intent, StackInput) (id string, err error)
	           DeleteStack(ctx, Intent, name string) error             // absent is success
	           Stack(ctx, name string) (Stack, error)                  // ErrNotFound; name or id (deleted stacks by id)
	           StackEvents(ctx, name string) ([]StackEvent, error)
	           StackResources(ctx, name string) ([]StackResource, error)
	           Stacks(ctx) ([]Stack, error)                            // only ours (TagOwner)
	Instances: RunInstances(ctx, Intent, InstanceInput) (ids []string, err error)
	           TerminateInstances(ctx, Intent, ids ...string) error
	           StopInstance(ctx, Intent, id string) error
	           Instances(ctx, filter map[string]string) ([]Instance, error) // "tag:…", "instance-state-name", ... ; paginated to the end
	           Instance(ctx, id string) (Instance, error)
	           Zones(ctx) ([]string, error)                            // that are available, in order
	Images:    CreateImage(ctx, Intent, instance, name string, tags Tags) (id string, err error)
	           DeleteImage(ctx, Intent, id string) error               // deregisters and deletes its snapshots
	           Image(ctx, id string) (Image, error); Images(ctx) ([]Image, error) // ours
	Commands:  SendCommand(ctx, Intent, Command) (id string, err error)
	           CommandResult(ctx, instance, id string) (CommandResult, error)
	           CommandReady(ctx, instance string) (bool, error)        // the instance is online in SSM
	           Parameter(ctx, name string) (string, error)
	Groups:    Group(ctx, name string) (Group, error); Groups(ctx) ([]Group, error) // ours
	           Activities(ctx, group string) ([]Activity, error)
	           DeleteGroup(ctx, Intent, name string) error             // force, for scale-in protected ones
	Traffic:   Targets(ctx, targetGroup string) ([]Target, error)
	           DrainDelay(ctx, targetGroup string) (time.Duration, error) // how long a target that is left may end its requests
	           SetListener(ctx, Intent, listener string, weights []Weight) error // default action: weighted forward
	           ListenerWeights(ctx, listener string) ([]Weight, error)
	           Figures(ctx, listener string, groups []string, from, to time.Time) ([]Figures, error) // what the balancer counted, by FiguresPeriod()
	Objects:   PutObject(ctx, Intent, key string, body io.ReadSeeker, size int64) error // in Dayfly's own bucket, made at need
	           GetObject(ctx, key string) (io.ReadCloser, error)       // ErrNotFound
	           DeletePrefix(ctx, Intent, prefix string) error
	           ListObjects(ctx, prefix string) ([]string, error)
	           Objects(ctx, prefix string) ([]Object, error)           // with their times
	           Bucket() string                                         // dayfly-<account>-<region>[-<owner>]
	Account:   Identity(ctx) (account, arn string, err error); Region() string; Owner() string

An error is a *fault.Error with the AWS code kept; ErrNotFound for what is not
there, ErrThrottled after the retries, ErrCapacity for the codes that mean
"elsewhere or later".
*/
