package cfn

import (
	"context"
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/cloudformationapi"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

// exported is a value that a stack exports.
type exported struct{ Name, Value, Stack, StackName string }

func (s *Service) exports() (out []exported) {
	s.c.DB.View(func(tx *state.Tx) {
		for _, st := range s.stacks.All(tx) {
			for _, o := range st.Outputs {
				if o.Export != "" && st.live() {
					out = append(out, exported{o.Export, o.Value, st.ID, st.Name})
				}
			}
		}
	})
	slices.SortFunc(out, func(a, b exported) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func (s *Service) export(name string) (exported, bool) {
	for _, e := range s.exports() {
		if e.Name == name {
			return e, true
		}
	}
	return exported{}, false
}

// importers are the names of the stacks that use an export, but one.
func (s *Service) importers(tx *state.Tx, export, except string) (out []string) {
	for _, st := range s.stacks.All(tx) {
		if st.ID != except && st.live() && slices.Contains(st.Imports, export) {
			out = append(out, st.Name)
		}
	}
	slices.Sort(out)
	return out
}

// ListExports lists the exports of all stacks.
func (s *Service) ListExports(_ context.Context, in *cloudformationapi.ListExportsInput) (*cloudformationapi.ListExportsOutput, error) {
	part, next, err := page(s.exports(), in.NextToken)
	if err != nil {
		return nil, err
	}
	out := &cloudformationapi.ListExportsOutput{NextToken: next}
	for _, e := range part {
		out.Exports = append(out.Exports, &cloudformationapi.Export{Name: e.Name, Value: e.Value, ExportingStackId: e.Stack})
	}
	return out, nil
}

// ListImports lists the stacks that use an export.
func (s *Service) ListImports(_ context.Context, in *cloudformationapi.ListImportsInput) (*cloudformationapi.ListImportsOutput, error) {
	var names []string
	s.c.DB.View(func(tx *state.Tx) { names = s.importers(tx, in.ExportName, "") })
	if len(names) == 0 {
		return nil, invalid("Export '%s' is not imported by any stack.", in.ExportName)
	}
	part, next, err := page(names, in.NextToken)
	return &cloudformationapi.ListImportsOutput{Imports: part, NextToken: next}, err
}
