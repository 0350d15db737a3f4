package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

// Run is the agent at boot. It returns when it is asked to end.
func (a *Agent) Run(ctx context.Context) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	a.start()
	if err := a.write(handoff.RunDir+"/agent.pid", []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return err
	}
	if err := a.machineID(); err != nil {
		a.say("machine-id: %v", err)
	}
	b := &boot{}
	if !a.load(bootFile, b) || b.Boot != a.bootName() {
		b = &boot{Boot: a.bootName()}
	}
	a.of(b.Launch.Operation)
	switch b.Phase {
	case armed, failed:
		a.idle()
		<-ctx.Done()
		return nil
	case serving:
		return a.supervise(ctx, b)
	}
	err := a.first(ctx, b)
	if ctx.Err() != nil { // asked to end on the way: nothing may go on alone
		for _, p := range []process{b.Script, b.Service} {
			if a.alive(p) {
				a.end(p, serviceStop)
			}
		}
		return nil
	}
	if err != nil {
		return err // nothing is known of this instance: whoever supervises the agent starts it again
	}
	a.idle()
	if b.Phase == serving {
		defer time.AfterFunc(again+rand.N(again/2), func() {
			a.send(ctx, b)
			if a.Again != nil {
				a.renew()
			}
		}).Stop()
		return a.supervise(ctx, b)
	}
	<-ctx.Done()
	return nil
}

// again is when the memory of the boot is given back: not while the other
// instances of the generation still boot on the same processors.
const again = 10 * time.Second

// renew puts a fresh image of this program in its place: everything that the
// boot needed goes, its number and its children stay, and what runs is in the
// record.
func (a *Agent) renew() {
	a.idle()
	if err := a.Again(); err != nil {
		a.say("going on in this process: %v", err)
	}
}

// supervise keeps the service of a boot that is over running.
func (a *Agent) supervise(ctx context.Context, b *boot) error {
	if b.Config.Service == "" {
		a.watch(ctx, b, nil)
		<-ctx.Done()
		return nil
	}
	s := &service{a: a, b: b, save: a.note(b)}
	go a.watch(ctx, b, s)
	done := make(chan struct{})
	go func() { defer close(done); s.run(ctx, b.Service) }()
	t := time.NewTicker(time.Minute)
	defer t.Stop()
	for {
		select {
		case <-done:
			s.stop()
			return nil
		case <-t.C:
			a.trim(serviceLog)
		}
	}
}

func (a *Agent) note(b *boot) func(process) {
	return func(p process) {
		b.Service = p
		if err := a.save(bootFile, b); err != nil {
			a.say("%v", err)
		}
	}
}

// first is the boot of an instance, from metadata to the completed hook. Its
// error is only for an instance that cannot know what it is.
func (a *Agent) first(ctx context.Context, b *boot) error {
	r := &recorder{now: a.Now, began: a.began, at: a.began}
	before := b.Phase
	if err := a.learn(ctx, b); err != nil {
		return err
	}
	r.phase("metadata")
	if b.Phase == failed { // user data that cannot be read
		a.over(ctx, b, r, errors.New(b.Reason))
		return nil
	}
	if !b.Launch.Fires() {
		b.Phase = armed
		a.say("no release in user data: the hand-off stays armed")
		return a.save(bootFile, b)
	}
	deadline := b.Config.Deadline
	if deadline <= 0 {
		deadline = 10 * time.Minute
	}
	dctx, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	group := a.ask(ctx, b.ID.Instance)
	err := a.handOff(dctx, b, r, before)
	if ctx.Err() != nil {
		return nil
	}
	if err == nil {
		g := <-group
		if err = g.err; err == nil {
			err = a.complete(ctx, b, g.name, proceed)
		}
		if err != nil {
			err = fmt.Errorf("the launch hook could not be completed: %w", err)
		}
		r.phase("hook")
	}
	a.over(ctx, b, r, err)
	return nil
}

type groupName struct {
	name string
	err  error
}

// ask finds out about the group while the deploy script runs.
func (a *Agent) ask(ctx context.Context, instance string) <-chan groupName {
	c := make(chan groupName, 1)
	go func() {
		_, _, _ = a.aws.credentials(ctx)
		g, err := a.group(ctx, instance)
		c <- groupName{g, err}
	}()
	return c
}

// learn fills in what the instance is and what it shall do.
func (a *Agent) learn(ctx context.Context, b *boot) error {
	pause := 20 * time.Millisecond
	var data string
	for until := a.Now().Add(2 * time.Minute); ; {
		id, err := a.metadata.identity(ctx)
		if err == nil {
			b.ID = id
			a.aws.use(id.Region)
			data, err = a.metadata.userData(ctx)
		}
		if err == nil {
			break
		}
		if ctx.Err() != nil || a.Now().After(until) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, time.Second)
	}
	var err error
	if b.Launch, err = handoff.ParseLaunch(data); err != nil {
		b.Phase, b.Reason = failed, "the user data cannot be used: "+err.Error()
		return nil
	}
	a.of(b.Launch.Operation)
	raw, err := os.ReadFile(a.path(handoff.ArmedFile))
	switch {
	case err == nil:
		if b.Config, err = handoff.ParseConfig(raw); err != nil && b.Launch.Fires() {
			b.Phase, b.Reason = failed, err.Error()
		}
	case b.Launch.Fires():
		b.Phase, b.Reason = failed, "this image has no armed hand-off: "+handoff.ArmedFile+" is not there"
	}
	return nil
}

// handOff gives the instance its details, fires the hand-off once, starts the
// service and waits until it is ready.
func (a *Agent) handOff(ctx context.Context, b *boot, r *recorder, before phase) error {
	if err := a.details(b); err != nil {
		return err
	}
	r.phase("details")
	var f fired
	known := a.load(firedFile(b), &f) && f.Instance == b.ID.Instance
	switch {
	case known && !f.Done:
		if before == deploying {
			a.end(b.Script, 5*time.Second)
		}
		r.phase("deploy")
		return errors.New("the deploy script was cut off; it is not fired a second time on the same instance")
	case !known:
		if b.Config.Puppet != nil {
			if before == configure {
				a.end(b.Script, 5*time.Second)
			}
			var err error
			r.puppet, err = a.puppet(ctx, b)
			r.phase("puppet")
			if err != nil {
				return err
			}
		}
		if err := a.save(firedFile(b), fired{Instance: b.ID.Instance}); err != nil {
			return err
		}
		err := a.deploy(ctx, b, r)
		r.phase("deploy")
		if err != nil {
			return err
		}
		if err := a.save(firedFile(b), fired{Instance: b.ID.Instance, Done: true}); err != nil {
			return err
		}
	}
	b.Phase, b.Script = starting, process{}
	if err := a.save(bootFile, b); err != nil {
		return err
	}
	var s *service
	sctx, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	if b.Config.Service != "" {
		s = &service{a: a, b: b, save: a.note(b)}
		go func() { defer close(done); s.run(sctx, b.Service) }()
	} else {
		close(done)
	}
	err := a.ready(ctx, b.Config.Ready, s)
	stop() // of the waiting, not of the service: supervise adopts it
	<-done
	if err != nil && s != nil {
		s.stop()
		r.output = a.tailOf(serviceLog, handoff.OutputLimit)
	}
	r.phase("ready")
	return err
}

// deploy runs the deploy script with the release at a loopback address.
func (a *Agent) deploy(ctx context.Context, b *boot, r *recorder) error {
	src := &source{launch: b.Launch, client: a.web, aws: a.aws, say: a.say, stall: defaultStall, answer: defaultAnswer}
	address, err := src.listen()
	if err != nil {
		return err
	}
	defer src.close()
	env := append(a.environment(b, "/root", "root"), "DAYFLY_RELEASE_URL="+address)
	_ = os.Remove(a.path(scriptLog))
	script := a.path(b.Config.Run)
	out, err := a.openLog(scriptLog)
	if err != nil {
		return err
	}
	p, err := a.startProcess([]string{script}, env, path.Dir(script), out, nil)
	out.Close()
	if err != nil {
		r.code = -1
		return fmt.Errorf("the deploy script cannot start: %w", err)
	}
	b.Phase, b.Script = deploying, p
	if err := a.save(bootFile, b); err != nil {
		a.end(p, time.Second)
		return err
	}
	r.code, err = a.wait(ctx, p)
	r.output = a.tailOf(scriptLog, handoff.OutputLimit)
	whole, from, broken := src.result()
	r.source = from
	if err != nil {
		a.end(p, 5*time.Second)
		r.code, r.output = -1, a.tailOf(scriptLog, handoff.OutputLimit)
		return fmt.Errorf("the deploy script was still running at the deadline (%s)", b.Config.Deadline)
	}
	why := ""
	if broken != nil {
		why = "; the release: " + broken.Error()
	}
	switch {
	case r.code != 0:
		a.end(p, time.Second)
		return fmt.Errorf("the deploy script ended with exit code %d%s", r.code, why)
	case !whole:
		a.end(p, time.Second)
		if why == "" {
			why = "; it must fetch $DAYFLY_RELEASE_URL"
		}
		return fmt.Errorf("the deploy script ended well without having fetched the whole release%s", why)
	}
	return nil
}

// recorder collects the report.
type recorder struct {
	now    func() time.Time
	began  time.Time
	at     time.Time
	phases []handoff.Phase
	code   int
	output string
	source string
	puppet *handoff.Puppeted
}

func (r *recorder) phase(name string) {
	now := r.now()
	r.phases = append(r.phases, handoff.Phase{Name: name, Seconds: now.Sub(r.at).Seconds()})
	r.at = now
}

// over writes the report and, where the hand-off failed, gives the instance up.
func (a *Agent) over(ctx context.Context, b *boot, r *recorder, why error) {
	b.Phase, b.Reason = serving, ""
	if why != nil {
		b.Phase, b.Reason = failed, why.Error()
		a.say("the hand-off failed: %s", b.Reason)
	}
	rep := handoff.Report{
		Instance: b.ID.Instance, ImageID: b.ID.Image, Image: b.Config.Image, Environment: b.Launch.Environment, Generation: b.Launch.Generation,
		Digest: b.Launch.Digest, Zone: b.ID.Zone, Operation: b.Launch.Operation, OK: why == nil, Reason: b.Reason, ExitCode: r.code, Output: r.output, Source: r.source, Puppet: r.puppet,
		Phases: r.phases, Started: r.began.UTC(), Ended: a.Now().UTC(),
	}
	if err := errors.Join(a.save(bootFile, b), a.save(reportFile, rep)); err != nil {
		a.say("%v", err)
	}
	if why == nil {
		a.say("serving after %.3f s", rep.Ended.Sub(rep.Started).Seconds())
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if b.Launch.Bucket != "" && b.Launch.Environment != "" && b.Launch.Generation != "" {
		body, err := json.Marshal(rep)
		if err == nil {
			err = a.aws.put(ctx, "s3://"+b.Launch.Bucket+"/"+handoff.ReportKey(b.Launch.Environment, b.Launch.Generation, b.ID.Instance), strings.NewReader(string(body)))
		}
		if err != nil {
			a.say("the report could not be sent: %v", err)
		}
	}
	if why == nil {
		return
	}
	a.send(ctx, b) // it will not live much longer
	g := <-a.ask(ctx, b.ID.Instance)
	err := g.err
	if err == nil {
		err = a.complete(ctx, b, g.name, abandon)
	}
	if err != nil {
		a.say("the launch hook could not be abandoned, it runs out by itself: %v", err)
	}
}
