package oci

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/baseimage"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
)

// TestDebian boots the real base images. It is slow without a warm cache.
func TestDebian(t *testing.T) {
	each(t, func(t *testing.T, setup func(testing.TB) Config) {
		cache := os.Getenv("DAYFLY_TEST_BASEIMAGES")
		if cache == "" {
			t.Skip("set DAYFLY_TEST_BASEIMAGES to a cache directory of base images")
		}
		h := open(t, setup(t))
		for _, name := range baseimage.Names() {
			t.Run(name, func(t *testing.T) {
				path, boot, _, err := baseimage.Ensure(t.Context(), name, cache, nil)
				if err != nil {
					t.Fatal(err)
				}
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if _, err := h.ImportImage(contextFor(t), name, boot, f); err != nil {
					t.Fatal(err)
				}
				in := small("i-" + name)
				in.Image, in.MemoryMiB, in.Pids = name, 512, 512
				in.Env["QUOTED"] = `a "b" \c 100% é`
				in.UserData = []byte("#!/bin/sh\nprintf 'user data: %s\\n' \"$QUOTED\"\n")
				begun := time.Now()
				create(t, h, in)
				t.Log("ready after", time.Since(begun))
				for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
					out, _ := h.Console(contextFor(t), in.ID, 1<<20)
					if strings.Contains(string(out), "user data: "+in.Env["QUOTED"]) {
						break
					}
					if time.Now().After(end) {
						t.Fatalf("no user data in %s", out)
					}
				}
				if r := sh(t, h, in.ID, "printf %s \"$QUOTED\"; ps -e > /dev/null; curl --version > /dev/null; ip link show lo > /dev/null"); string(r.Stdout) != in.Env["QUOTED"] || r.ExitCode != 0 {
					t.Errorf("%+v", r)
				}
				if boot == hypervisor.BootSystemd {
					systemd(t, h, in.ID)
				}
				begun = time.Now()
				if err := h.Stop(contextFor(t), in.ID, 20*time.Second); err != nil {
					t.Fatal(err)
				}
				if d := time.Since(begun); d > 15*time.Second {
					t.Errorf("it was killed: the stop took %s", d)
				} else {
					t.Log("stopped after", d)
				}
			})
		}
	})
}

func systemd(t *testing.T, h *Hypervisor, id string) {
	r := sh(t, h, id, "systemctl is-system-running --wait; systemctl --failed --no-legend --plain; systemctl show-environment | grep WHERE")
	if string(r.Stdout) != "running\nWHERE=here\n" {
		t.Errorf("%s %s", r.Stdout, r.Stderr)
	}
	// The environment reaches units too.
	if r := sh(t, h, id, "systemd-run --wait --pipe -q sh -c 'printf %s \"$QUOTED\"'"); string(r.Stdout) != `a "b" \c 100% é` {
		t.Errorf("%+v", r)
	}
	// It cannot lift its limits.
	for _, file := range []string{"memory/memory.limit_in_bytes", "pids/pids.max"} {
		if r := sh(t, h, id, "echo -1 > /sys/fs/cgroup/"+file); r.ExitCode == 0 {
			t.Errorf("it writes %s", file)
		}
	}
	// A guest that dies comes back, and what it ran is known.
	sh(t, h, id, "true")
	if _, err := h.Run(contextFor(t), id, hypervisor.Command{ID: "known", Script: []byte("echo first")}); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Run(contextFor(t), id, hypervisor.Command{ID: "kill", Script: []byte("systemctl kill -s KILL --kill-whom=main dayfly-guest; sleep 5")}); err != nil {
		t.Error(err)
	}
	ready(t, h, id)
	if r, err := h.Run(contextFor(t), id, hypervisor.Command{ID: "known", Script: []byte("echo second")}); err != nil || string(r.Stdout) != "first\n" {
		t.Errorf("%+v %v", r, err)
	}
	if out, _ := h.Console(contextFor(t), id, 1<<20); !strings.Contains(string(out), "Reached target") {
		t.Errorf("systemd says nothing on the console: %s", out)
	}
}
