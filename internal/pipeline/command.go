package pipeline

import (
	"fmt"
	"strings"
	"time"
)

// Asked is what is seen of a gate's command, and of where it may run.
type Asked struct {
	Ended    bool
	TimedOut bool
	Exit     int
	Output   string

	Lost     bool   // its instance serves no more, and it has not ended
	Instance string // one that serves what the run has tested
	Refused  string // why there will be none
	Waits    string // why there is none yet
}

const (
	// MaxOutput is how much of a command's output is kept: the end of it.
	MaxOutput = 8 << 10
	// patience is how much later than it may a command is known to have ended.
	patience = time.Minute
	// pause is between two tries, longer after each.
	pause = 2 * time.Second
)

// Deployed is the stage whose environment a gate's command runs in: the last
// deploy before it.
func (r Run) Deployed(gate string) *Stage {
	var last *Stage
	for i := range r.Stages {
		switch s := &r.Stages[i]; {
		case s.Name == gate:
			return last
		case s.Deploy != nil:
			last = s
		}
	}
	return nil
}

// command decides a gate by the team's own command: it runs once, on one
// instance; where that goes before the command has ended, on another one.
func (p *step) command(s *Stage, g *Gate) {
	c := *g.Command
	g.Command = &c
	o := Asked{}
	if p.o.Command != nil {
		o = *p.o.Command
	}
	late := func(by time.Duration) bool { return !g.Until.IsZero() && !p.o.Now.Before(g.Until.Add(by)) }
	sent := c.CommandID != "" && !o.Lost
	switch {
	case o.Ended:
		c.Exit, c.Output, c.Waits = &o.Exit, o.Output, ""
		tail := ""
		if lines := strings.Split(strings.TrimSpace(o.Output), "\n"); lines[0] != "" {
			tail = ": " + strings.Join(lines[max(0, len(lines)-5):], "\n")
			tail = strings.ToValidUTF8(tail[:min(len(tail), 1000)], "?")
		}
		switch {
		case o.TimedOut:
			s.Result, s.Why = Failed, fmt.Sprintf("its command %s did not end within %s%s", c.Run, g.Timeout, tail)
		case o.Exit != 0:
			s.Result, s.Why = Failed, fmt.Sprintf("its command %s ended with exit code %d%s", c.Run, o.Exit, tail)
		default:
			s.Result, s.Why = Passed, fmt.Sprintf("its command %s ended with exit code 0 on %s", c.Run, c.Instance)
		}
	case sent && late(patience):
		s.Result, s.Why = Failed, fmt.Sprintf("its command %s did not end within %s", c.Run, g.Timeout)
	case sent:
		c.Waits = ""
	case o.Lost && p.o.Now.Before(c.Sent.Add(min(time.Duration(c.Try)*pause, patience))):
		c.Waits = "its instance went before it had ended; another one is asked soon"
	case o.Refused != "":
		s.Result, s.Why = Failed, fmt.Sprintf("its command %s has nothing to run on: %s", c.Run, o.Refused)
	case late(0):
		s.Result, s.Why = Failed, fmt.Sprintf("its command %s could not be run within %s", c.Run, g.Timeout)
		if c.Waits != "" {
			s.Why += ": " + c.Waits
		}
	case (o.Lost || c.Instance == "") && o.Instance == "":
		c.Waits = o.Waits
	case o.Lost || c.Instance == "":
		// The choice is durable before the command is sent.
		c.Instance, c.CommandID, c.Sent, c.Try, c.Waits = o.Instance, "", time.Time{}, c.Try+1, ""
		if d := p.r.Deployed(s.Name); d != nil {
			c.Environment = d.Deploy.Environment
		}
		p.act(Ask, "", s.Name)
	default:
		p.act(Ask, "", s.Name)
	}
}
