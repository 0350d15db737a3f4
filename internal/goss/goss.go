// Package goss runs goss files (github.com/goss-org/goss, version 0.4.9) on the
// machine that it is on, and says of each resource whether it is as it should
// be. It must not know images or how it came to the machine.
package goss

import (
	"encoding/json"
	"fmt"
	"io"
	"log"
	"slices"
	"strings"

	"github.com/goss-org/goss"
	"github.com/goss-org/goss/resource"
	"github.com/goss-org/goss/util"
)

// Result is that of one resource.
type Result struct {
	Name    string // such as Package: jq
	Passed  bool
	Skipped bool
	Message string // of what failed
}

// Run checks one goss file and writes the resources that failed and the count to
// w. It tells whether all passed; an error says that the file could not be run.
func Run(file string, w io.Writer) (passed bool, err error) {
	results, err := Results(file)
	if err != nil {
		return false, err
	}
	failed, skipped := 0, 0
	for _, r := range results {
		if r.Skipped {
			skipped++
		}
		if !r.Passed {
			failed++
			fmt.Fprintf(w, "%s: %s\n", clip(r.Name, 120), clip(r.Message, 500))
		}
	}
	fmt.Fprintf(w, "%d resources, %d failed, %d skipped (goss 0.4.9)\n", len(results), failed, skipped)
	return failed == 0, nil
}

// Results checks a file's resources, in the order of their names.
func Results(file string) (out []Result, err error) {
	defer func() {
		if p := recover(); p != nil { // the library panics on some files
			out, err = nil, fmt.Errorf("%s: %v", file, p)
		}
	}()
	log.SetOutput(io.Discard) // goss's debug lines
	c, err := util.NewConfig(util.WithSpecFile(file), util.WithMaxConcurrency(4))
	if err != nil {
		return nil, err
	}
	found, err := goss.ValidateResults(c)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	for properties := range found {
		if len(properties) > 0 {
			out = append(out, judge(properties))
		}
	}
	slices.SortFunc(out, func(a, b Result) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// judge makes one result of a resource's properties. What is skipped behind a
// property that failed is no failure of its own.
func judge(properties []resource.TestResult) Result {
	p := properties[0]
	r := Result{Name: p.ResourceType + ": " + p.ResourceId, Passed: true, Skipped: true}
	if p.Title != "" {
		r.Name += " (" + p.Title + ")"
	}
	var said []string
	for _, p := range properties {
		switch {
		case p.Result == resource.SUCCESS:
			r.Skipped = false
		case p.Result == resource.FAIL && p.Err != nil:
			said = append(said, fmt.Sprintf("%s: %v", p.Property, p.Err))
		case p.Result == resource.FAIL:
			m := p.MatcherResult
			said = append(said, fmt.Sprintf("%s: expected %s %s %s", p.Property, value(m.Actual), m.Message, value(m.Expected)))
		}
	}
	if len(said) > 0 {
		r.Passed, r.Skipped, r.Message = false, false, strings.Join(said, "; ")
	}
	return r
}

func value(v any) string {
	raw, err := json.Marshal(v)
	if err != nil {
		return clip(fmt.Sprint(v), 300)
	}
	return clip(string(raw), 300)
}

// clip makes one line of a text.
func clip(s string, n int) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > n {
		s = strings.ToValidUTF8(s[:n], "") + "…"
	}
	return s
}
