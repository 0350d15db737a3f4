package storetest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/store"
)

const crashEnv = "STORETEST_CRASH"

// Crash kills a process in the midst of its writes, several times over, and
// checks after each that what it was told to be written is there, that no batch
// is there by half, and that the next process owns the work. The child is this
// test binary: t's own function runs in it again, so Crash is its only call.
// Open opens the same data, which lies in dir, in either process.
func Crash(t *testing.T, open func(ctx context.Context, dir string) (store.Store, error)) {
	if dir := os.Getenv(crashEnv); dir != "" {
		crashChild(t, dir, open)
		return
	}
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for round, acks := range []int{1, 7, 40, 3} {
		cmd := exec.CommandContext(t.Context(), exe, "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), crashEnv+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		acknowledged := -1
		lines := bufio.NewScanner(out)
		for seen := 0; seen < acks && lines.Scan(); {
			n, ok := strings.CutPrefix(lines.Text(), "wrote ")
			if !ok {
				continue
			}
			acknowledged, _ = strconv.Atoi(n)
			seen++
		}
		if acknowledged < 0 {
			t.Fatalf("round %d: the child wrote nothing", round)
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // written before the kill, read after it
			if n, ok := strings.CutPrefix(lines.Text(), "wrote "); ok {
				acknowledged, _ = strconv.Atoi(n)
			}
		}
		cmd.Wait() // killed: its error says so

		s, err := open(t.Context(), dir)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		left, _ := value(t, s, "crash", "left")
		right, _ := value(t, s, "crash", "right")
		if left != right {
			t.Errorf("round %d: half a batch is there: %d and %d", round, left, right)
		}
		if left < acknowledged {
			t.Errorf("round %d: %d was acknowledged, %d is there", round, acknowledged, left)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func crashChild(t *testing.T, dir string, open func(ctx context.Context, dir string) (store.Store, error)) {
	s, err := open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	epoch, ok, err := s.Acquire(t.Context(), "child", 1<<40)
	if err != nil || !ok {
		t.Fatalf("the child does not own: %v, %v", ok, err)
	}
	n := 0
	if v, _, err := store.Get[number](t.Context(), s, "crash", "left"); err == nil {
		n = v.N
	}
	for range 1_000_000 { // the parent ends it long before
		n++
		pad := strings.Repeat("x", n%5000)
		if err := s.Apply(t.Context(), epoch,
			store.Put("crash", "left", store.Any, number{n}), store.Put("crash", "pad", store.Any, pad), store.Put("crash", "right", store.Any, number{n})); err != nil {
			t.Fatal(err)
		}
		fmt.Printf("wrote %d\n", n)
	}
}
