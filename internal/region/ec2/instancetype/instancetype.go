// Package instancetype is the table of instance types that the region offers:
// how many vCPUs and how much memory each has. From it follow the limits of
// instances and what DescribeInstanceTypes says. It knows nothing else.
package instancetype

import (
	"iter"
	"maps"
	"slices"
	"strings"
)

// Type is an instance type.
type Type struct {
	Name      string
	VCPUs     int
	MemoryMiB int64
	Burstable bool
	Clock     float64 // GHz, as AWS publishes it
	Maker     string  // of the processor
	Cards     int     // network interfaces
	Addresses int     // IPv4 addresses per interface
}

// Family is the part before the dot.
func (t Type) Family() string { f, _, _ := strings.Cut(t.Name, "."); return f }

// Pids is how many processes an instance of the type may have at once. AWS has
// no such limit, but instances here share one kernel.
func (t Type) Pids() int64 { return max(1024, t.MemoryMiB) }

var table = build()

type family struct {
	name      string
	gibPerCPU int64
	clock     float64
	maker     string
	sizes     []string
}

var sizes = map[string]int{"large": 2, "xlarge": 4, "2xlarge": 8, "4xlarge": 16, "8xlarge": 32, "12xlarge": 48, "16xlarge": 64, "24xlarge": 96, "9xlarge": 36, "18xlarge": 72}

func build() map[string]Type {
	m := map[string]Type{}
	for _, f := range []family{
		{"m5", 4, 3.1, "Intel", []string{"large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge"}},
		{"m6i", 4, 3.5, "Intel", []string{"large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge"}},
		{"m7i", 4, 3.2, "Intel", []string{"large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge"}},
		{"c5", 2, 3.4, "Intel", []string{"large", "xlarge", "2xlarge", "4xlarge", "9xlarge", "12xlarge", "18xlarge", "24xlarge"}},
		{"c6i", 2, 3.5, "Intel", []string{"large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge"}},
		{"r5", 8, 3.1, "Intel", []string{"large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge"}},
	} {
		for _, s := range f.sizes {
			n := sizes[s]
			cards, addrs := cardsOf(n)
			t := Type{Name: f.name + "." + s, VCPUs: n, MemoryMiB: int64(n) * f.gibPerCPU * 1024, Clock: f.clock, Maker: f.maker, Cards: cards, Addresses: addrs}
			m[t.Name] = t
		}
	}
	for _, f := range []family{{name: "t3", clock: 2.5, maker: "Intel"}, {name: "t3a", clock: 2.2, maker: "AMD"}} {
		for _, s := range []struct {
			name         string
			cpus         int
			mib          int64
			cards, addrs int
		}{{"nano", 2, 512, 2, 2}, {"micro", 2, 1024, 2, 2}, {"small", 2, 2048, 3, 4}, {"medium", 2, 4096, 3, 6}, {"large", 2, 8192, 3, 12}, {"xlarge", 4, 16384, 4, 15}, {"2xlarge", 8, 32768, 4, 15}} {
			t := Type{Name: f.name + "." + s.name, VCPUs: s.cpus, MemoryMiB: s.mib, Burstable: true, Clock: f.clock, Maker: f.maker, Cards: s.cards, Addresses: s.addrs}
			m[t.Name] = t
		}
	}
	return m
}

func cardsOf(vcpus int) (cards, addresses int) {
	switch {
	case vcpus <= 2:
		return 3, 10
	case vcpus <= 8:
		return 4, 15
	case vcpus <= 48:
		return 8, 30
	}
	return 15, 50
}

// Get finds a type by its name, such as t3.micro.
func Get(name string) (Type, bool) { t, ok := table[name]; return t, ok }

// All yields every type, sorted by name.
func All() iter.Seq[Type] {
	return func(yield func(Type) bool) {
		for _, n := range slices.Sorted(maps.Keys(table)) {
			if !yield(table[n]) {
				return
			}
		}
	}
}
