package verify

import (
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/play"
)

// The simulated region answers verification as a good instance does; who
// changes one of the two sees the other.
func TestSimulatedInstancesPass(t *testing.T) {
	p := Plan{Nonce: "n0nce", Checks: []string{"verify/base.sh", "verify/it's.sh"}, Each: time.Minute}
	ids := map[string]bool{}
	for _, id := range []string{"i-1", "i-2"} {
		r := (&play.Actor{}).Script(t.Context(), hypervisor.Instance{ID: id}, hypervisor.Command{Script: []byte(p.Script())})
		checks, facts := p.Read(string(r.Stdout))
		if why := Failed(checks); why != "" || len(checks) != 6 {
			t.Errorf("%d checks: %s", len(checks), why)
		}
		for _, k := range []string{"machine-id", "hostname"} {
			if facts[k] == "" || ids[facts[k]] {
				t.Errorf("%s of %s is %q", k, id, facts[k])
			}
			ids[facts[k]] = true
		}
	}
}
