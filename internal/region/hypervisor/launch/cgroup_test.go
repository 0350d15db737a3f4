package launch

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The first instances of a region are launched side by side: one of them finds
// the directory above its own made and not filled by another, and its processes
// could never join an empty cpuset.
func TestCpusetAboveIsNotFilledYet(t *testing.T) {
	mount := "/sys/fs/cgroup/cpuset"
	if _, err := os.Stat(mount + "/cpuset.cpus"); err != nil || os.Geteuid() != 0 {
		t.Skip("needs root and the first version of cgroups")
	}
	above := filepath.Join(mount, "dayfly-launch-test")
	dir := filepath.Join(above, "i-1")
	t.Cleanup(func() { _, _ = os.Remove(dir), os.Remove(above) })
	if err := os.Mkdir(above, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := makeGroup(Hierarchy{Mount: mount, Data: "cpuset"}, dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		for _, d := range []string{above, dir} {
			raw, err := os.ReadFile(filepath.Join(d, name))
			if err != nil || strings.TrimSpace(string(raw)) == "" {
				t.Errorf("%s of %s is %q: %v", name, d, raw, err)
			}
		}
	}
}
