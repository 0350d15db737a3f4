package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

func started(t *testing.T, args ...string) (*exec.Cmd, chan error) {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	return cmd, done
}

func note(t *testing.T, dir, name string, pid int) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name, pidName), fmt.Appendln(nil, pid), 0o600); err != nil {
		t.Fatal(err)
	}
}

// What a killed run left is ended; a stranger that has its number by now is not.
func TestEndStale(t *testing.T) {
	dir := t.TempDir()
	mine, mineDone := started(t, "sh", "-c", "sleep 60; :", dir+"/box")
	other, otherDone := started(t, "sh", "-c", "sleep 60; :", "elsewhere")
	note(t, dir, "box", mine.Process.Pid)
	note(t, dir, "docker", other.Process.Pid)
	note(t, dir, "gone", 1<<22-1)
	if err := endStale(dir); err != nil {
		t.Fatal(err)
	}
	select {
	case <-mineDone:
	case <-time.After(5 * time.Second):
		t.Error("a process of the former run is still there")
	}
	select {
	case <-otherDone:
		t.Error("a stranger was ended")
	default:
	}
}

// The last that was started ends first, and all end though one fails.
func TestCleanup(t *testing.T) {
	lock, err := os.Create(filepath.Join(t.TempDir(), "lock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &session{dir: filepath.Join(t.TempDir(), "run"), lock: lock}
	if err := s.daemon("sleeper", []string{"sleep", "60"}, nil); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(s.dir, "sleeper", pidName))
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(string(raw), &pid); err != nil {
		t.Fatal(err)
	}
	var order []int
	for i := range 3 {
		s.cleanup(func() error {
			order = append(order, i)
			if i == 1 {
				return os.ErrInvalid
			}
			return nil
		})
	}
	if err := s.close(); err == nil {
		t.Error("an error on the way was forgotten")
	}
	if fmt.Sprint(order) != "[2 1 0]" {
		t.Errorf("the order was %v", order)
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/%d", pid)); err == nil {
		t.Error("a daemon outlived the session")
	}
	if _, err := os.Stat(s.dir); err == nil {
		t.Error("the run's folder is still there")
	}
}
