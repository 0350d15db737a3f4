package server

import (
	"context"
	"time"
)

// InstanceLogs is what is known of how an instance began, and why it went.
type InstanceLogs struct {
	Instance string        `json:"instance" doc:"environment/generation/instance"`
	State    string        `json:"state"`
	Why      string        `json:"why,omitempty" doc:"it went"`
	HandOff  *HandOffSaid  `json:"hand_off,omitempty" doc:"what it reported of its hand-off, as long as its generation lives"`
	Logs     []InstanceLog `json:"logs"`
}

// HandOffSaid is an instance's report of its hand-off, in short.
type HandOffSaid struct {
	OK       bool           `json:"ok"`
	Reason   string         `json:"reason,omitempty"`
	ExitCode int            `json:"exit_code" doc:"of the deploy script; -1: it did not end by itself"`
	Source   string         `json:"source,omitempty" doc:"box or mirror: where the release came from"`
	Phases   []HandOffPhase `json:"phases"`
}

// HandOffPhase is a part of the hand-off.
type HandOffPhase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

// InstanceLog is the end of one log. Without text the note says why.
type InstanceLog struct {
	Name string    `json:"name" enum:"boot,console,puppet,deploy,service"`
	Text string    `json:"text,omitempty" doc:"at most 64 KiB, the end of it"`
	At   time.Time `json:"at,omitzero" doc:"when it was written down"`
	Note string    `json:"note,omitempty"`
}

func (s *Server) logs() {
	get(s, "get-instance-logs", "/v1/instances/{name}/logs", "The ends of an instance's logs: boot, console, Puppet, deploy script, service", func(ctx context.Context, in *struct {
		Name string `path:"name" maxLength:"40" pattern:"^[!-~]+$" doc:"the instance's id"`
	}) (*out[InstanceLogs], error) {
		return answer(s.cfg.Backend.InstanceLogs(ctx, in.Name))
	})
}
