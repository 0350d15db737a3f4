package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// group is rows that are measured together. To add one: a file with a group,
// and a line in groups.
type group struct {
	rows  []row
	runs  int  // unless RUNS says otherwise
	world bool // it needs the region, the server, the box and the image
	// run measures the wanted rows and returns them. What it starts it ends,
	// by s.cleanup at the latest.
	run func(ctx context.Context, s *session, want func(row string) bool) ([]result, error)
}

// row is a name that ROWS may have.
type row struct{ name, about string }

// groups is every row, in the order of the table.
func groups() []group {
	return []group{fleetGroup(), systemdGroup(), bakeGroup(), controlGroup(), consoleGroup(), estateGroup()}
}

func names(gs []group) []string {
	var out []string
	for _, g := range gs {
		for _, r := range g.rows {
			out = append(out, r.name)
		}
	}
	return out
}

// choose reads ROWS: names with commas or spaces between them, nothing for all.
// What is no name stands for all rows that begin with it and a dash.
func choose(gs []group, rows string) (func(string) bool, error) {
	all := names(gs)
	chosen := strings.FieldsFunc(rows, func(c rune) bool { return c == ',' || c == ' ' })
	for _, c := range chosen {
		if slices.Contains(all, c) {
			continue
		}
		n := len(chosen)
		for _, name := range all {
			if strings.HasPrefix(name, c+"-") {
				chosen = append(chosen, name)
			}
		}
		if len(chosen) == n {
			return nil, fmt.Errorf("there is no row %q; the rows are %s", c, strings.Join(all, ", "))
		}
	}
	if len(chosen) == 0 {
		chosen = all
	}
	return func(name string) bool { return slices.Contains(chosen, name) }, nil
}

// wanted tells whether any row of the group is.
func (g group) wanted(want func(string) bool) bool {
	return slices.ContainsFunc(g.rows, func(r row) bool { return want(r.name) })
}
