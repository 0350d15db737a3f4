package control

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

// spent is the processor time of this process.
func spent() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// The server's work for a suite does not grow with the number of suites: looks
// at the cloud always, processor time where DAYFLY_FIGURES asks for it, since
// that needs a machine that does nothing else.
func TestSuiteOverhead(t *testing.T) {
	type cost struct {
		looks int
		cpu   time.Duration
	}
	of := func(n int) (c cost) {
		inWorld(t, func(t *testing.T, w *world) {
			defer w.start(w.store)()
			w.ended(w.run("api")) // bakes
			var b strings.Builder
			b.WriteString("\n  - stage: x\n    suites:\n")
			for i := range n {
				fmt.Fprintf(&b, "      - { name: s%02d, run: suites/api.sh, size: 2 }\n", i)
			}
			looks, cpu := w.cloud.Looks(), spent()
			name := w.pipeline(piped("", b.String()))
			for {
				time.Sleep(5 * time.Second) // who looks on costs little
				if r := w.runOf(name); r.Phase == pipeline.Done {
					if !r.Passed {
						t.Fatalf("%+v", r)
					}
					break
				}
			}
			c = cost{w.cloud.Looks() - looks, spent() - cpu}
		})
		return c
	}
	best := func(n int) cost {
		c := of(n)
		if os.Getenv("DAYFLY_FIGURES") != "" {
			for range 4 {
				d := of(n)
				c.cpu, c.looks = min(c.cpu, d.cpu), min(c.looks, d.looks)
			}
		}
		return c
	}
	one, some, many := best(1), best(8), best(48)
	each := func(a, b cost, n int) (looks, cpu float64) {
		return float64(b.looks-a.looks) / float64(n), float64(b.cpu-a.cpu) / float64(n)
	}
	looks8, cpu8 := each(one, some, 7)
	looks48, cpu48 := each(some, many, 40)
	t.Logf("a suite more costs %.0f calls and %.1f ms from 1 to 8 suites, %.0f calls and %.1f ms from 8 to 48; one alone %d calls and %s", looks8, cpu8/1e6, looks48, cpu48/1e6, one.looks, one.cpu)
	if looks48 > 1.3*looks8 {
		t.Errorf("a suite more costs %.0f calls beside 8 and %.0f beside 48", looks8, looks48)
	}
	if os.Getenv("DAYFLY_FIGURES") != "" {
		fmt.Printf("figure suite-overhead-calls calls %.4g\n", looks48)
		fmt.Printf("figure suite-overhead-cpu ms %.4g\n", cpu48/1e6)
		fmt.Printf("figure suite-overhead x %.4g\n", max(looks48/looks8, cpu48/cpu8))
	}
}
