package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTutorial does what the tutorial says, on real instances.
func TestTutorial(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	if os.Geteuid() != 0 {
		t.Skip("real instances need root")
	}
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.ReadFile(filepath.Join(top, "docs/tutorial.md"))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("/var/lib", "dayfly-tutorial-") // sockets want short paths
	if err != nil {
		t.Fatal(err)
	}
	env := append(os.Environ(), "DAYFLY_STATE="+dir+"/server", "DAYFLY_REGION_DIR="+dir+"/region", "TMPDIR="+t.TempDir())
	t.Cleanup(func() {
		for _, args := range [][]string{{"server", "stop"}, {"region", "stop", "--force"}} {
			cmd := exec.Command(filepath.Join(top, "bin/dayfly"), args...)
			cmd.Env = env
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("dayfly %s: %v: %s", strings.Join(args, " "), err, out)
			}
		}
		_ = os.RemoveAll(dir)
	})
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	var out strings.Builder
	file := filepath.Join(t.TempDir(), "tutorial.sh")
	if err := os.WriteFile(file, []byte(script(string(page))), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, "sh", "-v", file)
	cmd.Dir, cmd.Env = top, env
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	if err := cmd.Run(); err != nil {
		text := out.String()
		t.Fatalf("the tutorial does not do what it says: %v; its end:\n%s", err, text[max(0, len(text)-6000):])
	}
}
