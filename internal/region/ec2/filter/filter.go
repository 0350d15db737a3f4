// Package filter answers the Filters, NextToken and MaxResults of EC2's
// Describe operations: which names a kind of object can be filtered by,
// wildcards, tag filters, and opaque page tokens that stay right while objects
// come and go. It must not know what the objects are.
package filter

import (
	"slices"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Limits of one request, AWS's own.
const (
	MaxFilters = 50
	MaxValues  = 200
	maxPattern = 1024
)

// Fields says by what objects of one kind can be filtered.
type Fields[T any] struct {
	// Tags gives the object's tags; nil for kinds that have none.
	Tags func(T) []*ec2api.Tag
	// By gives the values of a filter's name; a filter matches when any of
	// them matches any of the filter's values.
	By map[string]func(T) []string
}

// Compile checks the filters and returns what they ask of an object.
func (f Fields[T]) Compile(fs []*ec2api.Filter) (func(T) bool, error) {
	if len(fs) > MaxFilters {
		return nil, wire.Errorf("FilterLimitExceeded", "The maximum number of filters is %d", MaxFilters)
	}
	var tests []func(T) bool
	for _, x := range fs {
		if x == nil {
			continue
		}
		if len(x.Values) > MaxValues {
			return nil, wire.Errorf("FilterLimitExceeded", "The maximum number of filter values specified on a single call is %d", MaxValues)
		}
		for _, v := range x.Values {
			if len(v) > maxPattern {
				return nil, wire.Errorf("InvalidParameterValue", "A value of the filter '%s' is too long", x.Name)
			}
		}
		get, err := f.field(x.Name)
		if err != nil {
			return nil, err
		}
		if len(x.Values) == 0 {
			return nil, wire.Errorf("InvalidParameterValue", "The filter '%s' needs at least one value", x.Name)
		}
		want, wild := map[string]bool{}, []string(nil)
		for _, v := range x.Values {
			if Literal(v) {
				want[v] = true
			} else {
				wild = append(wild, v)
			}
		}
		tests = append(tests, func(o T) bool {
			return slices.ContainsFunc(get(o), func(have string) bool {
				return want[have] || slices.ContainsFunc(wild, func(p string) bool { return Match(p, have) })
			})
		})
	}
	return func(o T) bool {
		for _, t := range tests {
			if !t(o) {
				return false
			}
		}
		return true
	}, nil
}

func (f Fields[T]) field(name string) (func(T) []string, error) {
	if f.Tags != nil {
		if key, ok := strings.CutPrefix(name, "tag:"); ok && key != "" {
			return func(o T) []string {
				for _, t := range f.Tags(o) {
					if t.Key == key {
						return []string{t.Value}
					}
				}
				return nil
			}, nil
		}
		if name == "tag-key" || name == "tag-value" {
			return func(o T) []string {
				var out []string
				for _, t := range f.Tags(o) {
					if name == "tag-key" {
						out = append(out, t.Key)
					} else {
						out = append(out, t.Value)
					}
				}
				return out
			}, nil
		}
	}
	if get, ok := f.By[name]; ok {
		return get, nil
	}
	return nil, wire.Errorf("InvalidParameterValue", "The filter '%s' is invalid", name)
}

// Literal tells whether a pattern matches itself alone.
func Literal(pattern string) bool { return !strings.ContainsAny(pattern, `*?\`) }

// Match compares a value with a pattern in which * is any text, ? any one
// character and \ takes the next character as it is. It needs no more than
// len(pattern)*len(value) steps, whatever the pattern.
func Match(pattern, s string) bool {
	p, v := []rune(pattern), []rune(s)
	pi, vi, star, mark := 0, 0, -1, 0
	for vi < len(v) {
		if pi < len(p) {
			c, lit := p[pi], false
			width := 1
			if c == '\\' && pi+1 < len(p) {
				c, lit, width = p[pi+1], true, 2
			}
			if c == '*' && !lit {
				star, mark = pi, vi
				pi++
				continue
			}
			if c == v[vi] || c == '?' && !lit {
				pi += width
				vi++
				continue
			}
		}
		if star < 0 {
			return false
		}
		mark++
		pi, vi = star+1, mark
	}
	for pi < len(p) && p[pi] == '*' {
		pi++
	}
	return pi == len(p)
}

// One is the usual field: a single value, none where it is empty.
func One(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// Bool is a field that is true or false.
func Bool(b *bool) []string {
	if b != nil && *b {
		return []string{"true"}
	}
	return []string{"false"}
}
