package instancetype

import "testing"

func TestTable(t *testing.T) {
	for name, want := range map[string][2]int64{
		"t3.nano": {2, 512}, "t3a.2xlarge": {8, 32768}, "m5.large": {2, 8192}, "c5.9xlarge": {36, 73728}, "r5.24xlarge": {96, 786432}, "m7i.xlarge": {4, 16384},
	} {
		got, ok := Get(name)
		if !ok || int64(got.VCPUs) != want[0] || got.MemoryMiB != want[1] {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if _, ok := Get("t4g.micro"); ok {
		t.Error("t4g is ARM, which the region does not run")
	}
	last := ""
	for x := range All() {
		if x.Name <= last || x.VCPUs == 0 || x.MemoryMiB == 0 || x.Cards == 0 || x.Pids() < 1024 {
			t.Errorf("%+v after %s", x, last)
		}
		last = x.Name
	}
}
