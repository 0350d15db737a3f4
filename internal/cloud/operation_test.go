package cloud

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/operation"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// The id of an operation is in its intents, in the log and in the environment
// of its commands; a try that is part of another operation is the same call.
func TestOperation(t *testing.T) {
	s, f := openStore(t), newFake()
	var log bytes.Buffer
	d := driver(t, s, f)
	d.cfg.Log = slog.New(operation.Handler(slog.NewTextHandler(&log, nil)))
	ctx := operation.With(t.Context(), "request-1")
	id, err := d.SendCommand(ctx, thing, Command{Instance: "i-1", Script: "echo hello"})
	if err != nil {
		t.Fatal(err)
	}
	if script := f.commands[0].state; !strings.Contains(script, "\nexport DAYFLY_OPERATION=request-1\n") {
		t.Errorf("the command does not know its operation:\n%s", script)
	}
	r, _, err := store.Get[IntentRecord](ctx, s, IntentKind, thing.ID)
	if err != nil || r.Of != "request-1" {
		t.Errorf("%+v, %v", r, err)
	}
	if !strings.Contains(log.String(), "call=ssm:SendCommand intent="+thing.ID) || !strings.Contains(log.String(), "op=request-1") {
		t.Errorf("logged: %s", log.String())
	}
	again, err := d.SendCommand(operation.With(t.Context(), "request-2"), thing, Command{Instance: "i-1", Script: "echo hello"})
	if err != nil || again != id {
		t.Errorf("%q, %v", again, err)
	}
}
