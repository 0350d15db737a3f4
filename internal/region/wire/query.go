package wire

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// node is one dot-separated part of the query parameters' names.
type node struct {
	value    string
	set      bool
	children map[string]*node
}

// queryDecoder fills an input from query parameters.
type queryDecoder struct{ ec2 bool }

// decodeQuery reads the form's parameters into in (a pointer to a struct).
func decodeQuery(form url.Values, in any, ec2 bool) error {
	d := queryDecoder{ec2: ec2}
	if len(form) > maxParams {
		return d.malformed("the request has more than %d parameters", maxParams)
	}
	root := &node{}
	for name, vals := range form {
		if ignored(name) {
			continue
		}
		if len(vals) > 1 {
			return d.invalid(name, "is given more than once")
		}
		if !utf8.ValidString(name) || !utf8.ValidString(vals[0]) {
			return d.malformed("the parameter %q is not valid UTF-8", name)
		}
		n := root
		parts := strings.Split(name, ".")
		if len(parts) > 2*maxDepth {
			return d.malformed("the parameter %.60q is nested too deeply", name)
		}
		for _, p := range parts {
			if n.children == nil {
				n.children = map[string]*node{}
			}
			c := n.children[p]
			if c == nil {
				c = &node{}
				n.children[p] = c
			}
			n = c
		}
		n.value, n.set = vals[0], true
	}
	return d.structure(root, reflect.ValueOf(in).Elem(), "", 0)
}

// ignored names the parameters that belong to the protocol or to SigV4.
func ignored(name string) bool {
	switch name {
	case "Action", "Version", "AWSAccessKeyId", "Signature", "SignatureMethod", "SignatureVersion", "SecurityToken", "Timestamp", "Expires":
		return true
	}
	return strings.HasPrefix(name, "X-Amz-")
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func (d queryDecoder) structure(n *node, v reflect.Value, path string, depth int) error {
	if depth > maxDepth {
		return d.malformed("%s is nested too deeply", path)
	}
	s := shapeOf(v.Type())
	// In order, so that the same wrong request always gets the same answer.
	for _, name := range slices.Sorted(maps.Keys(n.children)) {
		i, ok := s.query[name]
		if !ok {
			return d.unknown(leaf(n.children[name], join(path, name)))
		}
		f := s.fields[i]
		if err := d.value(n.children[name], v.Field(f.index), f, join(path, name), depth+1); err != nil {
			return err
		}
	}
	for _, f := range s.fields {
		if f.req && n.children[f.query] == nil {
			return missing(d.ec2, join(path, f.query))
		}
	}
	return nil
}

// leaf is the full name of some parameter below n.
func leaf(n *node, path string) string {
	for !n.set && len(n.children) > 0 {
		k := slices.Min(slices.Collect(maps.Keys(n.children)))
		n, path = n.children[k], path+"."+k
	}
	return path
}

func (d queryDecoder) value(n *node, v reflect.Value, f field, path string, depth int) error {
	t := v.Type()
	switch {
	case t == timeType || isBlob(t):
		return d.scalar(n, v, f, path)
	case t.Kind() == reflect.Pointer:
		if t.Elem().Kind() == reflect.Struct && t.Elem() != timeType {
			if n.set && n.value != "" {
				return d.invalid(path, "must be a structure")
			}
		} else if n.set && n.value == "" && len(n.children) == 0 {
			return nil // an empty number is an absent one
		}
		p := reflect.New(t.Elem())
		v.Set(p)
		return d.value(n, p.Elem(), f, path, depth)
	case t.Kind() == reflect.Struct:
		return d.structure(n, v, path, depth)
	case t.Kind() == reflect.Slice:
		return d.list(n, v, f, path, depth)
	case t.Kind() == reflect.Map:
		return d.mapping(n, v, path, depth)
	}
	return d.scalar(n, v, f, path)
}

func (d queryDecoder) list(n *node, v reflect.Value, f field, path string, depth int) error {
	if depth > maxDepth {
		return d.malformed("%s is nested too deeply", path)
	}
	v.Set(reflect.MakeSlice(v.Type(), 0, len(n.children)))
	if n.set {
		if n.value != "" || len(n.children) > 0 {
			return d.invalid(path, "must be a list")
		}
		return nil // "Name=" is how query clients send an empty list
	}
	item := cmp.Or(f.item, "member")
	if !f.flat {
		for name := range n.children {
			if name != item && name != "member" || len(n.children) > 1 {
				return d.unknown(leaf(n, path))
			}
			n, path = n.children[name], join(path, name)
			break
		}
	}
	keys, err := d.indexes(n, path)
	if err != nil {
		return err
	}
	elem := field{item: "member", flat: d.ec2}
	for _, k := range keys {
		e := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(n.children[strconv.Itoa(k)], e, elem, join(path, strconv.Itoa(k)), depth+1); err != nil {
			return err
		}
		if e.Kind() == reflect.Pointer && e.IsNil() {
			continue
		}
		v.Set(reflect.Append(v, e))
	}
	return nil
}

// indexes returns a list's indexes in ascending order; gaps are allowed.
func (d queryDecoder) indexes(n *node, path string) ([]int, error) {
	if n.set {
		return nil, d.unknown(path)
	}
	if len(n.children) > maxList {
		return nil, d.invalid(path, fmt.Sprintf("has more than %d items", maxList))
	}
	keys := make([]int, 0, len(n.children))
	for name, c := range n.children {
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || strconv.Itoa(i) != name {
			return nil, d.unknown(leaf(c, join(path, name)))
		}
		keys = append(keys, i)
	}
	slices.Sort(keys)
	return keys, nil
}

func (d queryDecoder) mapping(n *node, v reflect.Value, path string, depth int) error {
	if depth > maxDepth {
		return d.malformed("%s is nested too deeply", path)
	}
	v.Set(reflect.MakeMap(v.Type()))
	if n.set && n.value == "" && len(n.children) == 0 {
		return nil
	}
	if e := n.children["entry"]; e != nil && len(n.children) == 1 {
		n, path = e, join(path, "entry")
	}
	keys, err := d.indexes(n, path)
	if err != nil {
		return err
	}
	for _, k := range keys {
		at := join(path, strconv.Itoa(k))
		e := n.children[strconv.Itoa(k)]
		name, val := e.children["key"], e.children["value"]
		if name == nil || !name.set || val == nil || len(e.children) != 2 {
			return d.invalid(at, "must have a key and a value")
		}
		x := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(val, x, field{item: "member", flat: d.ec2}, join(at, "value"), depth+1); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(name.value), x)
	}
	return nil
}

func (d queryDecoder) scalar(n *node, v reflect.Value, f field, path string) error {
	if len(n.children) > 0 {
		return d.unknown(leaf(&node{children: n.children}, path))
	}
	s := n.value
	switch {
	case v.Type() == timeType:
		t, err := parseTime(s)
		if err != nil {
			return d.invalid(path, "is not a timestamp: "+clip(s))
		}
		v.Set(reflect.ValueOf(t))
	case isBlob(v.Type()):
		b, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return d.invalid(path, "is not base64")
		}
		v.SetBytes(b)
	case v.Kind() == reflect.String:
		if s != "" && len(f.enum) > 0 && !slices.Contains(f.enum, s) {
			return badEnum(d.ec2, path, s, f.enum)
		}
		v.SetString(s)
	case v.Kind() == reflect.Int64:
		i, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return d.invalid(path, "is not an integer: "+clip(s))
		}
		v.SetInt(i)
	case v.Kind() == reflect.Float64:
		x, err := strconv.ParseFloat(s, 64)
		if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
			return d.invalid(path, "is not a number: "+clip(s))
		}
		v.SetFloat(x)
	case v.Kind() == reflect.Bool:
		switch s {
		case "true", "True", "TRUE", "1":
			v.SetBool(true)
		case "false", "False", "FALSE", "0":
			v.SetBool(false)
		default:
			return d.invalid(path, "is not a boolean: "+clip(s))
		}
	default:
		return fmt.Errorf("parameter %s has the Go type %s, which no protocol carries", path, v.Type())
	}
	return nil
}

func parseTime(s string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04Z", "2006-01-02"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t.UTC(), nil
		}
	}
	if x, err := strconv.ParseFloat(s, 64); err == nil {
		return epoch(x)
	}
	return time.Time{}, fmt.Errorf("no timestamp: %s", clip(s))
}

// epoch is the time of seconds since 1970, to the millisecond as AWS has it.
func epoch(x float64) (time.Time, error) {
	if math.IsNaN(x) || math.Abs(x) > 253402300799 { // the year 9999
		return time.Time{}, fmt.Errorf("no timestamp: %g", x)
	}
	return time.UnixMilli(int64(math.Round(x * 1000))).UTC(), nil
}

func clip(s string) string {
	if len(s) > 64 {
		return strconv.Quote(s[:64]) + "…"
	}
	return strconv.Quote(s)
}

func (d queryDecoder) unknown(path string) error {
	return Errorf("UnknownParameter", "The parameter %s is not recognized", path)
}

func (d queryDecoder) malformed(format string, args ...any) error {
	if d.ec2 {
		return Errorf("InvalidQueryParameter", format, args...)
	}
	return Errorf("MalformedQueryString", format, args...)
}

func (d queryDecoder) invalid(path, why string) error {
	if d.ec2 {
		return Errorf("InvalidParameterValue", "The parameter %s %s", path, why)
	}
	return Errorf("ValidationError", "The parameter %s %s", path, why)
}

func missing(ec2 bool, path string) error {
	if ec2 {
		return Errorf("MissingParameter", "The request must contain the parameter %s", path)
	}
	return &Error{Code: "ValidationError", Status: http.StatusBadRequest, Message: "1 validation error detected: Value null at '" + lowerFirst(path) + "' failed to satisfy constraint: Member must not be null"}
}

func badEnum(ec2 bool, path, got string, enum []string) error {
	if ec2 {
		return Errorf("InvalidParameterValue", "Value (%s) for parameter %s is invalid. Valid values: %s", strings.Trim(clip(got), `"`), path, strings.Join(enum, ", "))
	}
	return Errorf("ValidationError", "1 validation error detected: Value '%s' at '%s' failed to satisfy constraint: Member must satisfy enum value set: [%s]", strings.Trim(clip(got), `"`), lowerFirst(path), strings.Join(enum, ", "))
}

func lowerFirst(s string) string {
	if s == "" {
		return s
	}
	return strings.ToLower(s[:1]) + s[1:]
}
