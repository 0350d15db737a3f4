package wire

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
)

// decodeJSON reads a JSON 1.1 body into in (a pointer to a struct). Members
// that the model does not know are ignored, as AWS does in this protocol.
func decodeJSON(body []byte, in any) error {
	if len(bytes.TrimSpace(body)) == 0 {
		body = []byte("{}")
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return serialization("the body is not JSON")
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return serialization("the body has more than one JSON value")
	}
	return jsonValue(v, reflect.ValueOf(in).Elem(), field{}, "", 0)
}

func serialization(format string, args ...any) error {
	return Errorf("SerializationException", format, args...)
}

func jsonValue(src any, v reflect.Value, f field, path string, depth int) error {
	if depth > maxDepth {
		return serialization("%s is nested too deeply", path)
	}
	if src == nil {
		return nil
	}
	t := v.Type()
	if t.Kind() == reflect.Pointer {
		p := reflect.New(t.Elem())
		v.Set(p)
		return jsonValue(src, p.Elem(), f, path, depth)
	}
	wrong := func(want string) error {
		return serialization("%s must be %s", cmp.Or(path, "the body"), want)
	}
	switch {
	case t == timeType:
		var when time.Time
		var err error
		switch x := src.(type) {
		case json.Number:
			var s float64
			if s, err = x.Float64(); err == nil {
				when, err = epoch(s)
			}
		case string:
			when, err = parseTime(x)
		default:
			return wrong("a timestamp")
		}
		if err != nil {
			return wrong("a timestamp")
		}
		v.Set(reflect.ValueOf(when))
	case isBlob(t):
		s, ok := src.(string)
		b, err := base64.StdEncoding.DecodeString(s)
		if !ok || err != nil {
			return wrong("base64")
		}
		v.SetBytes(b)
	case t.Kind() == reflect.String:
		s, ok := src.(string)
		if !ok {
			return wrong("a string")
		}
		if s != "" && len(f.enum) > 0 && !slices.Contains(f.enum, s) {
			return jsonError(badEnum(false, path, s, f.enum))
		}
		v.SetString(s)
	case t.Kind() == reflect.Int64:
		n, ok := src.(json.Number)
		i, err := strconv.ParseInt(n.String(), 10, 64)
		if !ok || err != nil {
			return wrong("an integer")
		}
		v.SetInt(i)
	case t.Kind() == reflect.Float64:
		n, ok := src.(json.Number)
		x, err := strconv.ParseFloat(n.String(), 64)
		if !ok || err != nil {
			return wrong("a number")
		}
		v.SetFloat(x)
	case t.Kind() == reflect.Bool:
		b, ok := src.(bool)
		if !ok {
			return wrong("a boolean")
		}
		v.SetBool(b)
	case t.Kind() == reflect.Slice:
		l, ok := src.([]any)
		if !ok {
			return wrong("a list")
		}
		if len(l) > maxList {
			return jsonError(Errorf("ValidationError", "%s has more than %d items", path, maxList))
		}
		out := reflect.MakeSlice(t, 0, len(l))
		for i, x := range l {
			e := reflect.New(t.Elem()).Elem()
			if err := jsonValue(x, e, field{}, fmt.Sprintf("%s.%d.member", path, i+1), depth+1); err != nil {
				return err
			}
			if x != nil {
				out = reflect.Append(out, e)
			}
		}
		v.Set(out)
	case t.Kind() == reflect.Map:
		m, ok := src.(map[string]any)
		if !ok {
			return wrong("an object")
		}
		v.Set(reflect.MakeMapWithSize(t, len(m)))
		for k, x := range m {
			e := reflect.New(t.Elem()).Elem()
			if err := jsonValue(x, e, field{}, join(path, k), depth+1); err != nil {
				return err
			}
			v.SetMapIndex(reflect.ValueOf(k), e)
		}
	case t.Kind() == reflect.Struct:
		m, ok := src.(map[string]any)
		if !ok {
			return wrong("an object")
		}
		for _, f := range shapeOf(t).fields {
			x, there := m[f.json]
			if f.req && (!there || x == nil) {
				return jsonError(missing(false, join(path, f.json)))
			}
			if err := jsonValue(x, v.Field(f.index), f, join(path, lowerFirst(f.json)), depth+1); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("%s has the Go type %s, which no protocol carries", path, t)
	}
	return nil
}

// jsonError gives a validation error the name that JSON services use.
func jsonError(err error) error {
	if e, ok := errors.AsType[*Error](err); ok && e.Code == "ValidationError" {
		return &Error{Code: "ValidationException", Message: e.Message, Status: http.StatusBadRequest}
	}
	return err
}

// encodeJSON renders an output; nil is the empty object.
func encodeJSON(spec Operation, out any) ([]byte, error) {
	v := reflect.ValueOf(out)
	if !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		if spec.Output == nil {
			return []byte("{}"), nil
		}
		v = reflect.ValueOf(spec.Output())
	}
	x, err := jsonTree(v.Elem(), true, 0)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(x); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(b.Bytes()), nil
}

func jsonTree(v reflect.Value, top bool, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("%s is nested too deeply", v.Type())
	}
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return nil, nil
		}
		v = v.Elem()
	}
	switch {
	case v.Type() == timeType:
		ms := v.Interface().(time.Time).UnixMilli()
		return json.Number(strings.TrimSuffix(strconv.FormatFloat(float64(ms)/1000, 'f', 3, 64), ".000")), nil
	case isBlob(v.Type()):
		return base64.StdEncoding.EncodeToString(v.Bytes()), nil
	case v.Kind() == reflect.Slice:
		l := make([]any, v.Len())
		for i := range l {
			x, err := jsonTree(v.Index(i), false, depth+1)
			if err != nil {
				return nil, err
			}
			l[i] = x
		}
		return l, nil
	case v.Kind() == reflect.Map:
		m := map[string]any{}
		for it := v.MapRange(); it.Next(); {
			x, err := jsonTree(it.Value(), false, depth+1)
			if err != nil {
				return nil, err
			}
			m[it.Key().String()] = x
		}
		return m, nil
	case v.Kind() == reflect.Struct:
		m := map[string]any{}
		for _, f := range shapeOf(v.Type()).fields {
			x := v.Field(f.index)
			switch x.Kind() {
			case reflect.String:
				if x.Len() == 0 && !f.keep {
					continue
				}
			case reflect.Slice, reflect.Map:
				if x.IsNil() && !(f.req || top && !isBlob(x.Type())) {
					continue
				}
			case reflect.Pointer:
				if x.IsNil() {
					continue
				}
			}
			y, err := jsonTree(x, false, depth+1)
			if err != nil {
				return nil, err
			}
			m[f.json] = y
		}
		return m, nil
	case v.Kind() == reflect.Float64 && (math.IsNaN(v.Float()) || math.IsInf(v.Float(), 0)):
		return nil, fmt.Errorf("not a number")
	}
	return v.Interface(), nil
}
