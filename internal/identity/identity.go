// Package identity is what makes a machine this one and no other: its
// machine-id, host name, host keys, certificates and seeds. It has the shell
// function that reads them on a machine, and compares what was read. It must
// not know images, bakes or how scripts reach a machine.
package identity

import (
	_ "embed"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Function is the POSIX shell function facts, which prints a line
// "fact NAME VALUE" each. Keys are printed as digests.
//
//go:embed facts.sh
var Function string

// Limit is how many bytes of facts are printed at most.
const Limit = 4000

// Machine is one that was read.
type Machine struct {
	Name  string            `json:"name"`  // for people: builder, canary 1
	Facts map[string]string `json:"facts"` // value by name
}

// Read takes the facts out of what a script printed.
func Read(output string) map[string]string {
	out := map[string]string{}
	for line := range strings.Lines(output) {
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "fact ")
		name, value, two := strings.Cut(rest, " ")
		if ok && two && name != "" && value != "" {
			out[name] = value
		}
	}
	return out
}

// must are the facts that every machine has.
var must = []string{"machine-id", "hostname"}

// Compare says what is wrong between machines, nothing when each is its own.
// The first of them may lack facts, as a builder does that is read before the
// end of its making.
func Compare(first Machine, others ...Machine) []string {
	var wrong []string
	for _, m := range others {
		for _, name := range must {
			if m.Facts[name] == "" {
				wrong = append(wrong, fmt.Sprintf("%s has no %s", m.Name, name))
			}
		}
	}
	all := append([]Machine{first}, others...)
	owners := map[[2]string][]string{}
	for _, m := range all {
		for name, value := range m.Facts {
			k := [2]string{name, value}
			owners[k] = append(owners[k], m.Name)
		}
	}
	keys := slices.SortedFunc(maps.Keys(owners), func(a, b [2]string) int { return strings.Compare(a[0]+" "+a[1], b[0]+" "+b[1]) })
	for _, k := range keys {
		if ms := owners[k]; len(ms) > 1 {
			wrong = append(wrong, fmt.Sprintf("%s %s is the same on %s", k[0], k[1], strings.Join(ms, " and ")))
		}
	}
	return wrong
}
