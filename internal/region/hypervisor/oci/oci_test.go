package oci

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// contextFor ends with a deadline, also in clean-ups.
func contextFor(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func small(id string) hypervisor.Instance {
	return hypervisor.Instance{ID: id, Image: "ami-small", CPUs: 1, MemoryMiB: 128, Pids: 64, Hostname: "ip-10-0-0-7", Resolver: "169.254.169.253", Env: map[string]string{"WHERE": "here"}}
}

func create(t testing.TB, h *Hypervisor, in hypervisor.Instance) {
	t.Helper()
	if err := h.Create(contextFor(t), in); err != nil {
		t.Fatal(err)
	}
	ready(t, h, in.ID)
}

func ready(t testing.TB, h *Hypervisor, id string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		err := h.Ready(contextFor(t), id)
		if err == nil {
			return
		}
		if !errors.Is(err, hypervisor.ErrNotReady) || time.Now().After(end) {
			out, _ := h.Console(contextFor(t), id, 4096)
			t.Fatalf("%v; console: %s", err, out)
		}
	}
}

var commandNumber struct {
	sync.Mutex
	n int
}

// sh runs a script and returns its result.
func sh(t testing.TB, h *Hypervisor, id, script string) hypervisor.Result {
	t.Helper()
	commandNumber.Lock()
	commandNumber.n++
	n := commandNumber.n
	commandNumber.Unlock()
	r, err := h.Run(contextFor(t), id, hypervisor.Command{ID: fmt.Sprint("c-", n), Script: []byte(script), Timeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestInstance(t *testing.T) {
	each(t, func(t *testing.T, setup func(testing.TB) Config) {
		h := open(t, setup(t))
		importSmall(t, h)
		create(t, h, small("i-1"))
		r := sh(t, h, "i-1", "hostname; cat /etc/hosts /etc/hostname /etc/resolv.conf; echo $WHERE $HOME $PATH; ls /run /run/dayfly; exit 3")
		if r.ExitCode != 3 {
			t.Errorf("%d %s", r.ExitCode, r.Stderr)
		}
		for _, want := range []string{"ip-10-0-0-7\n", "127.0.1.1\tip-10-0-0-7\n", "nameserver 169.254.169.253\n", "here /root /usr/local/sbin"} {
			if !strings.Contains(string(r.Stdout), want) {
				t.Errorf("%q is not in %s", want, r.Stdout)
			}
		}
		begun := time.Now()
		if err := h.Stop(contextFor(t), "i-1", 20*time.Second); err != nil {
			t.Fatal(err)
		}
		t.Log("stopped in", time.Since(begun))
		s := <-h.Events()
		if s.Reason != "stopped" || s.State != hypervisor.Stopped || s.ID != "i-1" {
			t.Error(s)
		}
		// An instance in which nothing was changed gives an empty layer.
		m, err := h.Snapshot(contextFor(t), "i-1", "ami-2")
		if err != nil {
			t.Fatal(err)
		}
		t.Log(m)
	})
}
