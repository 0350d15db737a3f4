package sqlite

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// A full disk refuses writes with a fault that says so, loses no record that was
// acknowledged, and is all right again when there is space.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("a small file system needs root")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skip("no tmpfs can be mounted: ", err)
	}
	defer syscall.Unmount(dir, syscall.MNT_DETACH)
	path := filepath.Join(dir, "state.db")
	s := open(t, path, clock.Real{})
	defer s.Close()
	epoch, ok, err := s.Acquire(t.Context(), "me", time.Minute)
	if err != nil || !ok {
		t.Fatal(err)
	}
	written := 0
	for {
		err := s.Apply(t.Context(), epoch, store.Put("a", fmt.Sprint(written), 0, strings.Repeat("x", 20_000)), store.Put("a", "last", store.Any, written))
		if err != nil {
			if fault.CodeOf(err) != store.CodeFull || fault.HintOf(err) == "" {
				t.Fatalf("a full disk gives %v", err)
			}
			break
		}
		if written++; written > 1000 {
			t.Fatal("the disk never was full")
		}
	}
	check := func(s *Store) {
		t.Helper()
		rs, err := s.List(t.Context(), "a", "")
		if err != nil || len(rs) != written+1 {
			t.Fatalf("%d records, %d were acknowledged: %v", len(rs)-1, written, err)
		}
		if last, _, err := store.Get[int](t.Context(), s, "a", "last"); err != nil || last != written-1 {
			t.Fatalf("half a batch is there: %d, %v", last, err)
		}
	}
	if written < 20 {
		t.Errorf("only %d were written", written)
	}
	check(s)
	if err := s.Close(); err != nil {
		t.Log("close on a full disk:", err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=16m"); err != nil {
		t.Fatal(err)
	}
	again := open(t, path, clock.Real{})
	check(again)
	if err := again.Apply(t.Context(), epoch, store.Put("a", "more", 0, strings.Repeat("x", 100_000))); err != nil {
		t.Errorf("with space again: %v", err)
	}
}
