package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/server"
)

// apiPage is what may be asked and by whom, from the OpenAPI document.
func apiPage(string) (string, error) {
	var all []*huma.Operation
	for _, item := range server.Document("").Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Patch, item.Delete} {
			if op != nil {
				all = append(all, op)
			}
		}
	}
	slices.SortFunc(all, func(a, b *huma.Operation) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Method, b.Method))
	})
	var b strings.Builder
	b.WriteString("# The API\n\n`dayfly server openapi` prints the whole document with parameters, bodies and answers; a server gives it at `/openapi.json`. [How to use it](../howto/api.md).\n\n" +
		"Each role may do what those before it may: viewer, deployer, operator, admin.\n\n| operation | request | least role | what it does |\n| --- | --- | --- | --- |\n")
	for _, op := range all {
		if op.Summary == "" {
			return "", fmt.Errorf("%s has no summary", op.OperationID)
		}
		fmt.Fprintf(&b, "| %s | `%s %s` | %s | %s |\n", op.OperationID, op.Method, op.Path, access.Needs[op.OperationID], escape(op.Summary))
	}
	return b.String(), nil
}
