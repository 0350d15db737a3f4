package figures

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/store/pgtest"
)

// The figures, by hand: DAYFLY_FIGURES=1 go test ./bench/figures -v -run Figures
const wanted = "DAYFLY_FIGURES"

const childEnv = "DAYFLY_FIGURES_CHILD"

func byHand(t *testing.T) {
	t.Helper()
	if os.Getenv(wanted) == "" {
		t.Skip("measured by hand: " + wanted + "=1")
	}
}

func TestFiguresAtRest(t *testing.T) {
	if where := os.Getenv(childEnv); where != "" {
		r, err := AtRest(t.Context(), where, 20_000, 15*time.Second, 60*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("%+v\n", r)
		figure("reconcile-20k-cpu", "%", 100*r.CPU)
		figure("reconcile-20k-rss", "MiB", float64(r.RSS)/(1<<20))
		return
	}
	byHand(t)
	c := exec.Command(os.Args[0], "-test.run=^TestFiguresAtRest$", "-test.v")
	c.Env = append(os.Environ(), childEnv+"="+filepath.Join(t.TempDir(), "x.db"))
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	fmt.Printf("%s", out)
}

// figure prints a line that a program can read.
func figure(name, unit string, value float64) { fmt.Printf("figure %s %s %.4g\n", name, unit, value) }

func TestFiguresEvent(t *testing.T) {
	n := 20
	if os.Getenv(wanted) != "" {
		n = 300
	}
	for name, where := range map[string]string{"sqlite": filepath.Join(t.TempDir(), "x.db"), "postgres": pgtest.New(t).Database(t)} {
		l, err := Event(t.Context(), where, n)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %+v", name, l)
		figure("event-"+name, "ms", l.Median.Seconds()*1000)
	}
}

func TestFiguresServers(t *testing.T) {
	byHand(t)
	dir, err := os.MkdirTemp("/tmp", "dayfly-figures-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-buildvcs=false", "-o", dir+"/bin/", "../../cmd/dayfly", "../../cmd/dayfly-agent", "../../cmd/dayfly-probe")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	s, err := Setup(t.Context(), dir+"/bin/dayfly", dir, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer s.End(t.Context(), "single", "one", "two")
	for range 3 {
		d, err := s.Restart(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		figure("restart", "s", d.Seconds())
	}
	pg := pgtest.New(t)
	for range 3 {
		d, err := s.Takeover(t.Context(), pg.Database(t))
		if err != nil {
			t.Fatal(err)
		}
		figure("takeover", "s", d.Seconds())
	}
}
