package provider

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
)

// fill copies properties into a request's struct by the names that AWS's JSON
// gives the fields. A property without a field is an error: nothing is
// dropped in silence. except are the properties that the caller treats itself.
func fill(dst any, properties map[string]any, except ...string) error {
	v := reflect.ValueOf(dst).Elem()
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		if slices.Contains(except, name) || properties[name] == nil {
			continue
		}
		f, ok := fieldOf(v, name)
		if !ok {
			return fmt.Errorf("the local region does not realise the property %s", name)
		}
		if err := set(f, properties[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func fieldOf(v reflect.Value, name string) (reflect.Value, bool) {
	t := v.Type()
	for i := range t.NumField() {
		if t.Field(i).Tag.Get("j") == name {
			return v.Field(i), true
		}
	}
	return reflect.Value{}, false
}

func set(f reflect.Value, x any) error {
	switch f.Kind() {
	case reflect.Pointer:
		p := reflect.New(f.Type().Elem())
		if err := set(p.Elem(), x); err != nil {
			return err
		}
		f.Set(p)
		return nil
	case reflect.String:
		f.SetString(asText(x))
		return nil
	case reflect.Int64:
		i, ok := asInt(x)
		if !ok {
			return fmt.Errorf("%v is not a whole number", x)
		}
		f.SetInt(i)
		return nil
	case reflect.Float64:
		n, err := strconv.ParseFloat(asText(x), 64)
		if err != nil {
			return fmt.Errorf("%v is not a number", x)
		}
		f.SetFloat(n)
		return nil
	case reflect.Bool:
		b, err := strconv.ParseBool(asText(x))
		if err != nil {
			return fmt.Errorf("%v is neither true nor false", x)
		}
		f.SetBool(b)
		return nil
	case reflect.Slice:
		l, ok := x.([]any)
		if !ok {
			return fmt.Errorf("%v is not a list", x)
		}
		out := reflect.MakeSlice(f.Type(), len(l), len(l))
		for i := range l {
			if err := set(out.Index(i), l[i]); err != nil {
				return fmt.Errorf("%d: %w", i, err)
			}
		}
		f.Set(out)
		return nil
	case reflect.Struct:
		m, ok := x.(map[string]any)
		if !ok {
			return fmt.Errorf("%v is not an object", x)
		}
		return fill(f.Addr().Interface(), m)
	}
	return fmt.Errorf("a %s cannot be filled", f.Type())
}

func asText(x any) string {
	switch v := x.(type) {
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64)
	case map[string]any, []any:
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Sprint(v)
		}
		return string(b)
	case nil:
		return ""
	}
	return fmt.Sprint(x)
}

func asInt(x any) (int64, bool) {
	switch v := x.(type) {
	case int64:
		return v, true
	case int:
		return int64(v), true
	case float64:
		return int64(v), v == math.Trunc(v)
	case string:
		i, err := strconv.ParseInt(v, 10, 64)
		return i, err == nil
	}
	return 0, false
}

// text is a property as a string, "" where it is not there.
func text(m map[string]any, key string) string { return asText(m[key]) }

// number is a property as a whole number, nil where it is not there.
func number(m map[string]any, key string) *int64 {
	if i, ok := asInt(m[key]); ok {
		return &i
	}
	return nil
}

// flag is a property as a boolean, nil where it is not there.
func flag(m map[string]any, key string) *bool {
	if b, err := strconv.ParseBool(asText(m[key])); err == nil {
		return &b
	}
	return nil
}

func list(m map[string]any, key string) []any {
	l, _ := m[key].([]any)
	return l
}

func texts(m map[string]any, key string) []string {
	var out []string
	for _, x := range list(m, key) {
		out = append(out, asText(x))
	}
	return out
}

func object(m map[string]any, key string) map[string]any {
	o, _ := m[key].(map[string]any)
	return o
}

// same tells whether a property has the same value in both.
func same(a, b map[string]any, key string) bool {
	x, errX := json.Marshal(a[key])
	y, errY := json.Marshal(b[key])
	return errX == nil && errY == nil && string(x) == string(y)
}

// changed tells whether one of the properties differs from what there was.
func (r *Request) changed(keys ...string) bool {
	return slices.ContainsFunc(keys, func(k string) bool { return !same(r.Properties, r.Old, k) })
}
