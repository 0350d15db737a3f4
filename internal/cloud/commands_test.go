package cloud

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// shell runs a wrapped script with the commands' folder below root.
func shell(t *testing.T, root, script string) (out, errs string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", strings.ReplaceAll(script, "/run/dayfly", root))
	var o, e bytes.Buffer
	cmd.Stdout, cmd.Stderr = &o, &e
	cmd.Run()
	return o.String(), e.String(), cmd.ProcessState.ExitCode()
}

func TestOnceOnly(t *testing.T) {
	for name, c := range map[string]struct {
		script, out, err string
		code             int
	}{
		"plain":       {"echo hello\necho bad >&2\nexit 3", "hello\n", "bad\n", 3},
		"quotes":      {"cat <<'X'\n$HOME `id` \\ \"'\nX\n", "$HOME `id` \\ \"'\n", "", 0},
		"interpreter": {"#!/bin/bash -e\na=(1 2)\necho ${a[1]}\nfalse\necho no", "2\n", "", 1},
		"env":         {"#!/usr/bin/env bash\necho ${BASH_VERSION:+bash}", "bash\n", "", 0},
		"empty":       {"", "", "", 0},
		"no input":    {"cat; echo done", "done\n", "", 0},
		"umask":       {"umask", "0022\n", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			ran := filepath.Join(t.TempDir(), "ran")
			body := strings.TrimPrefix(c.script, "\n")
			if !strings.HasPrefix(body, "#!") && name != "empty" {
				body = "echo x >>" + ran + "\n" + body
			}
			wrapped := onceOnly("bake/1/"+name, "", body)
			for delivery := range 3 {
				out, errs, code := shell(t, root, wrapped)
				if out != c.out || errs != c.err || code != c.code {
					t.Errorf("delivery %d: %q, %q, exit code %d", delivery, out, errs, code)
				}
			}
			if b, _ := os.ReadFile(ran); len(b) > 2 {
				t.Errorf("ran %d times", len(b)/2)
			}
		})
	}
}

// A second delivery beside the first waits for it; one after a first that was
// cut off says so and runs nothing.
func TestOnceOnlyTwoDeliveries(t *testing.T) {
	root, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
	wrapped := onceOnly("bake/1/slow", "", "echo x >>"+ran+"\nsleep 1\necho end")
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if out, errs, code := shell(t, root, wrapped); out != "end\n" || code != 0 {
				t.Errorf("%q, %q, %d", out, errs, code)
			}
		})
	}
	wg.Wait()
	if b, _ := os.ReadFile(ran); string(b) != "x\n" {
		t.Errorf("ran: %q", b)
	}

	cut := onceOnly("bake/1/cut", "", "echo x >>"+ran+"\necho begun\nsleep 30")
	cmd := exec.Command("/bin/sh", "-c", strings.ReplaceAll(cut, "/run/dayfly", root))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 200 {
		if b, _ := os.ReadFile(ran); strings.Count(string(b), "x") == 2 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	cmd.Process.Kill()
	cmd.Wait()
	out, errs, code := shell(t, root, cut)
	if code != 124 || out != "begun\n" || !strings.Contains(errs, "cut off") {
		t.Errorf("%q, %q, %d", out, errs, code)
	}
	if b, _ := os.ReadFile(ran); strings.Count(string(b), "x") != 2 {
		t.Error("it was run again")
	}
}
