// Package play is what would run inside the instances of a simulated region:
// every command succeeds unless the file that it runs says otherwise of itself
// (a line "# simulated: exit 3"), checks of an image pass, a suite leaves a
// passing result, and an instance completes the launch hooks of its group as
// soon as it has booted. It reads the scripts that it is given as text, and must not know
// who sent them nor how instances are made.
package play

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	api "github.com/dayfly-infra/dayfly/internal/region/api/autoscalingapi"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Actor plays. Its functions are hooks of hypervisor/sim.
type Actor struct {
	Bus   *wire.Bus
	Clock clock.Clock
	Log   *slog.Logger
	// Caller makes a context whose calls are allowed everything.
	Caller func(context.Context) context.Context
	// Put writes an object.
	Put func(ctx context.Context, bucket, key string, body []byte) error
}

// MachineID is the one that an instance made at its first boot.
func MachineID(instance string) string {
	return fmt.Sprintf("%x", sha256.Sum256([]byte(instance)))[:32]
}

var (
	variable = regexp.MustCompile(`(?ms)^([A-Z][A-Z0-9_]*)='(.*?)'$`)
	ends     = regexp.MustCompile(`(?m)^# simulated: exit ([0-9]{1,3})$`)
	results  = regexp.MustCompile(`--results 's3://([^/']+)/([^']*)'`)
)

const passes = `<testsuite name="simulated" tests="1"><testcase classname="simulated" name="passes"/></testsuite>`

// checks are those that an image's verification has built in.
var checks = []string{"agent", "hand-off", "secrets", "inventory"}

// Script answers a command.
func (a *Actor) Script(ctx context.Context, in hypervisor.Instance, c hypervisor.Command) hypervisor.Result {
	vars := map[string]string{}
	for _, m := range variable.FindAllSubmatch(c.Script, -1) {
		vars[string(m[1])] = strings.ReplaceAll(string(m[2]), `'\''`, "'")
	}
	id := MachineID(in.ID)
	var out bytes.Buffer
	facts := fmt.Sprintf("fact machine-id %s\nfact hostname ip-%s\n", id, strings.TrimPrefix(in.ID, "i-"))
	if nonce := vars["NONCE"]; nonce != "" { // the checks of an image
		for _, name := range append(append([]string{}, checks...), strings.Split(vars["CHECKS"], "\n")...) {
			if name != "" {
				fmt.Fprintf(&out, "@@%s 0 %s\n", nonce, name)
			}
		}
		fmt.Fprintf(&out, "@@%s facts\n%s@@%s end\n", nonce, facts, nonce)
		return hypervisor.Result{Stdout: out.Bytes()}
	}
	exit := 0
	if body, err := base64.StdEncoding.DecodeString(vars["BODY"]); err == nil { // a team's own file
		if m := ends.FindSubmatch(body); m != nil {
			exit, _ = strconv.Atoi(string(m[1])) // digits
		}
	}
	if m := results.FindSubmatch(c.Script); m != nil && exit == 0 { // a suite
		if err := a.Put(a.Caller(ctx), string(m[1]), string(m[2])+"/junit.xml", []byte(passes)); err != nil {
			return hypervisor.Result{ExitCode: 1, Stderr: []byte(err.Error())}
		}
	}
	fmt.Fprintf(&out, "machine-id %s\n%s", id, facts)
	return hypervisor.Result{ExitCode: exit, Stdout: out.Bytes()}
}

// Boot completes the launch hooks that the instance's group waits for.
func (a *Actor) Boot(ctx context.Context, in hypervisor.Instance) {
	call := a.Caller(ctx)
	// The instance may be faster than its group: until that knows of it, or
	// waits, it is asked again.
	for pause, waited := 50*time.Millisecond, time.Duration(0); waited < 2*time.Minute; pause = min(2*pause, 2*time.Second) {
		done, err := a.complete(call, in.ID)
		if done {
			return
		}
		e, _ := errors.AsType[*wire.Error](err)
		starting := e != nil && e.Code == "ServiceUnavailable" // the region itself is starting
		if err != nil && ctx.Err() == nil && !starting {
			a.Log.Warn("a simulated instance could not complete its hook", "instance", in.ID, "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-a.Clock.After(pause):
		}
		waited += pause
	}
}

// complete does what can be done now; done says that nothing more will come.
func (a *Actor) complete(ctx context.Context, id string) (done bool, err error) {
	r, err := wire.Call[api.AutoScalingInstancesType](ctx, a.Bus, "autoscaling", "DescribeAutoScalingInstances", &api.DescribeAutoScalingInstancesType{InstanceIds: []string{id}})
	if err != nil {
		return false, err
	}
	if len(r.AutoScalingInstances) == 0 {
		return false, nil // a group that does not know it yet, or it has none
	}
	i := r.AutoScalingInstances[0]
	if !strings.HasPrefix(i.LifecycleState, "Pending") {
		return true, nil
	}
	hooks, err := wire.Call[api.DescribeLifecycleHooksAnswer](ctx, a.Bus, "autoscaling", "DescribeLifecycleHooks", &api.DescribeLifecycleHooksType{AutoScalingGroupName: i.AutoScalingGroupName})
	if err != nil {
		return false, err
	}
	launching := 0
	for _, h := range hooks.LifecycleHooks {
		if h.LifecycleTransition != "autoscaling:EC2_INSTANCE_LAUNCHING" {
			continue
		}
		launching++
		_, err := a.Bus.Invoke(ctx, "autoscaling", "CompleteLifecycleAction", &api.CompleteLifecycleActionType{
			AutoScalingGroupName: i.AutoScalingGroupName, LifecycleHookName: h.LifecycleHookName, InstanceId: id, LifecycleActionResult: "CONTINUE",
		})
		if e, ok := errors.AsType[*wire.Error](err); ok && e.Code == "ValidationError" {
			return false, nil // the group does not wait yet
		}
		if err != nil {
			return false, err
		}
	}
	return launching == 0, nil
}
