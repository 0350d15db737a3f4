package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// members are the instances of the environment's newest generation that are in
// service and healthy.
type members struct {
	group string
	ids   []string
}

func (w *world) fleet(ctx context.Context) (members, error) {
	is, err := w.cloud.Instances(ctx, map[string]string{"tag:dayfly:environment": fleet, "instance-state-name": "running"})
	if err != nil {
		return members{}, err
	}
	if len(is) == 0 {
		return members{}, errors.New("no instance of " + fleet + " runs")
	}
	var m members
	newest := 0
	for _, i := range is {
		if n, err := strconv.Atoi(i.Tags["dayfly:generation"]); err == nil && n >= newest {
			newest, m.group = n, i.Tags["aws:autoscaling:groupName"]
		}
	}
	g, err := w.cloud.Group(ctx, m.group)
	if err != nil {
		return m, err
	}
	for _, i := range g.Members {
		if i.Lifecycle == "InService" && i.Healthy {
			m.ids = append(m.ids, i.Instance)
		}
	}
	return m, nil
}

// alone waits until the generation before is gone.
func (w *world) alone(ctx context.Context) error {
	return until(ctx, time.Minute, 50*time.Millisecond, func() error {
		is, err := w.cloud.Instances(ctx, map[string]string{"tag:dayfly:environment": fleet, "instance-state-name": "running,pending,shutting-down"})
		if err != nil {
			return err
		}
		if len(is) != instances {
			return fmt.Errorf("%d instances instead of %d", len(is), instances)
		}
		return nil
	})
}

func (w *world) address(ctx context.Context) (string, error) {
	var shown struct{ Environment struct{ Address string } }
	err := w.cli(ctx, &shown, "env", "show", fleet)
	if err == nil && shown.Environment.Address == "" {
		err = errors.New("the environment has no address")
	}
	return shown.Environment.Address, err
}

// process is an instance as the region's hypervisor has it.
type process struct {
	PID   int
	NetNS string
}

func (w *world) instanceDir(id string) string {
	return filepath.Join(home, "region/hypervisor/instances", id)
}

func (w *world) process(id string) (process, error) {
	var rec struct {
		Spec struct{ NetNS string }
		Run  *struct{ PID int }
	}
	raw, err := os.ReadFile(filepath.Join(w.instanceDir(id), "instance.json"))
	if err == nil {
		err = json.Unmarshal(raw, &rec)
	}
	if err == nil && (rec.Run == nil || rec.Run.PID <= 1) {
		err = errors.New("it does not run")
	}
	if err != nil {
		return process{}, fmt.Errorf("instance %s: %w", id, err)
	}
	return process{rec.Run.PID, rec.Spec.NetNS}, nil
}

// traces are the paths that are there as long as anything of the instances is:
// PID 1, the disk with its mount, the network namespace, the cgroups.
func (w *world) traces(ids []string) ([]string, error) {
	var out []string
	for _, id := range ids {
		p, err := w.process(id)
		if err != nil {
			return nil, err
		}
		out = append(out, fmt.Sprintf("/proc/%d", p.PID), w.instanceDir(id))
		if p.NetNS != "" {
			out = append(out, p.NetNS)
		}
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", p.PID))
		if err != nil {
			return nil, err
		}
		found := 0
		for line := range strings.Lines(string(raw)) {
			f := strings.SplitN(strings.TrimSpace(line), ":", 3)
			if len(f) < 3 || !strings.Contains(f[2], id) {
				continue
			}
			for _, d := range append([]string{"", "unified"}, append(strings.Split(f[1], ","), strings.TrimPrefix(f[1], "name="))...) {
				dir := filepath.Join("/sys/fs/cgroup", d, strings.TrimSuffix(f[2], "/init.scope"))
				if _, err := os.Stat(dir); err == nil {
					out = append(out, dir)
					found++
				}
			}
		}
		if found == 0 {
			return nil, fmt.Errorf("instance %s is in no cgroup of its own", id)
		}
	}
	return out, nil
}

// absent is nil when none of the paths is there, nor a mount below the
// instances' folder.
func absent(traces []string) error {
	for _, t := range traces {
		if _, err := os.Lstat(t); err == nil {
			return fmt.Errorf("%s is still there", t)
		}
	}
	for _, pattern := range []string{"*", ".gone-*"} {
		left, _ := filepath.Glob(filepath.Join(home, "region/hypervisor/instances", pattern))
		if len(left) > 0 {
			return fmt.Errorf("%s is still there", left[0])
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	if strings.Contains(string(mounts), home+"/region/hypervisor/instances/") {
		return errors.New("an instance's disk is still mounted")
	}
	return nil
}

// memory is, in MiB for each instance, what agent and guest have for themselves
// alone.
func (w *world) memory(ctx context.Context) ([]float64, error) {
	fl, err := w.fleet(ctx)
	if err != nil {
		return nil, err
	}
	ours := map[string]int64{} // KiB by pid namespace
	procs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	for _, p := range procs {
		exe, err := os.Readlink(filepath.Join(p, "exe"))
		if err != nil {
			continue
		}
		switch filepath.Base(strings.TrimSuffix(exe, " (deleted)")) {
		case "dayfly-agent", "dayfly-guest":
		default:
			continue
		}
		ns, err := os.Readlink(filepath.Join(p, "ns/pid"))
		if err != nil {
			continue
		}
		kib, err := privateMemory(filepath.Join(p, "smaps_rollup"))
		if err != nil {
			return nil, err
		}
		ours[ns] += kib
	}
	var out []float64
	for _, id := range fl.ids {
		p, err := w.process(id)
		if err != nil {
			return nil, err
		}
		ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", p.PID))
		if err != nil {
			return nil, err
		}
		if ours[ns] == 0 {
			return nil, fmt.Errorf("instance %s has neither agent nor guest", id)
		}
		out = append(out, float64(ours[ns])/1024)
	}
	return out, nil
}

// privateMemory is the sum of a smaps_rollup's Private_ lines, in KiB.
func privateMemory(file string) (int64, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	var sum int64
	for line := range strings.Lines(string(raw)) {
		f := strings.Fields(line)
		if len(f) == 3 && strings.HasPrefix(f[0], "Private_") && f[0] != "Private_Hugetlb:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", file, err)
			}
			sum += n
		}
	}
	return sum, nil
}
