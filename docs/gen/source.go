package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// parse reads the files of a package, without its tests.
func parse(root, pkg string) ([]*ast.File, error) {
	names, err := filepath.Glob(filepath.Join(root, pkg, "*.go"))
	if err != nil {
		return nil, err
	}
	var out []*ast.File
	fset := token.NewFileSet()
	for _, n := range names {
		if strings.HasSuffix(n, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, n, nil, 0)
		if err != nil {
			return nil, err
		}
		out = append(out, f)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s has no source here", pkg)
	}
	return out, nil
}

// text is the value of a string literal.
func text(e ast.Expr) (string, bool) {
	l, ok := e.(*ast.BasicLit)
	if !ok || l.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(l.Value)
	return s, err == nil
}

// agree compares what the code has with what the tables say.
func agree(what string, code []string, rows []string) error {
	var errs []error
	for _, c := range code {
		if !slices.Contains(rows, c) {
			errs = append(errs, fmt.Errorf("%s %s is in the code and has no row in docs/gen", what, c))
		}
	}
	for _, r := range rows {
		if !slices.Contains(code, r) {
			errs = append(errs, fmt.Errorf("%s %s has a row in docs/gen and is not in the code", what, r))
		}
	}
	return errors.Join(errs...)
}

func keys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
