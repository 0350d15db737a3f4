package control

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/instance"
	"github.com/dayfly-infra/dayfly/internal/server"
)

func textOf(l server.InstanceLogs, name string) server.InstanceLog {
	for _, x := range l.Logs {
		if x.Name == name {
			return x
		}
	}
	return server.InstanceLog{}
}

// While an instance lives its logs are what it sent; of one that failed its last
// words stay with its record, and why it went.
func TestInstanceLogs(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		w.mustDeploy()
		w.serves(1)
		i := w.instances(1)[0]
		logs := func() server.InstanceLogs {
			t.Helper()
			l, err := w.api.InstanceLogs(t.Context(), i.ID)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		if l := logs(); textOf(l, "console").Text == "" || !strings.Contains(textOf(l, "deploy").Note, "some seconds") || l.HandOff != nil {
			t.Errorf("before it sent any: %+v", l)
		}
		put := func(key string, v any) {
			raw, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			w.cloud.Put(key, raw)
		}
		gen := strconv.Itoa(i.Generation)
		put(handoff.ReportKey(i.Environment, gen, i.ID), handoff.Report{Instance: i.ID, OK: true, Source: "mirror", Phases: []handoff.Phase{{Name: "deploy", Seconds: 2}}})
		put(handoff.LogsKey(i.Environment, gen, i.ID), handoff.Logs{Instance: i.ID, Agent: "serving", Deploy: "deployed 1.0.0"})
		l := logs()
		if textOf(l, "boot").Text != "serving" || textOf(l, "deploy").Text != "deployed 1.0.0" || l.HandOff == nil || l.HandOff.Phases[0].Seconds != 2 || textOf(l, "service").Note != "the service printed nothing" {
			t.Errorf("%+v", l)
		}
		if p := textOf(l, "puppet"); !strings.Contains(p.Note, i.Image) {
			t.Errorf("where Puppet's report is: %+v", p)
		}
		if _, err := w.api.InstanceLogs(t.Context(), "i-none"); fault.KindOf(err) != fault.NotFound {
			t.Errorf("an instance that is not there: %v", err)
		}

		// The next generation's hand-off fails.
		report, err := json.Marshal(handoff.Report{Reason: "the deploy script ended with exit code 3", Output: strings.Repeat("noise\n", 1000) + "no such database"})
		if err != nil {
			t.Fatal(err)
		}
		w.cloud.Plan = fleets(func(string) cloudtest.Plan { return cloudtest.Plan{Broken: -1, Report: report} })
		w.mustDeploy()
		w.wait("generation 2 is gone", func() bool { return w.gen(2).Phase == environment.Gone })
		failed := 0
		for _, i := range w.instances(2) {
			if i.Said == "" {
				continue // launched when all was given up already
			}
			failed++
			if len(i.Said) > instance.SaidLimit || !strings.HasSuffix(i.Said, "no such database") || !strings.Contains(i.Why, "exit code 3") {
				t.Errorf("%d bytes, why %q", len(i.Said), i.Why)
			}
			l, err := w.api.InstanceLogs(t.Context(), i.ID)
			if err != nil || !strings.HasSuffix(textOf(l, "deploy").Text, "no such database") || !strings.Contains(l.Why, "exit code 3") || !strings.Contains(textOf(l, "boot").Note, "went with its generation") {
				t.Errorf("%v %+v", err, l)
			}
			if last := i.Steps[len(i.Steps)-1].What; !strings.Contains(last, "exit code 3") {
				t.Errorf("its life ends with %q", last)
			}
		}
		if failed == 0 {
			t.Error("no instance says what went wrong")
		}
	})
}
