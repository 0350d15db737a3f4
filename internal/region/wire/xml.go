package wire

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"time"
)

// xmlEncoder writes answers of the query protocols.
type xmlEncoder struct {
	b   bytes.Buffer
	ec2 bool
}

// encodeXML renders the answer of an operation; out may be nil.
func encodeXML(m *Model, op string, spec Operation, out any, requestID string) ([]byte, error) {
	e := &xmlEncoder{ec2: m.Protocol == "ec2"}
	e.b.WriteString(xml.Header)
	e.b.WriteString("<" + op + `Response xmlns="`)
	e.text(m.Namespace)
	e.b.WriteString(`">`)
	if e.ec2 {
		e.element("requestId", requestID)
	}
	if spec.Output != nil {
		if v := reflect.ValueOf(out); !v.IsValid() || v.IsNil() {
			out = spec.Output()
		}
		if spec.Wrapper != "" {
			e.b.WriteString("<" + spec.Wrapper + ">")
		}
		if err := e.structure(reflect.ValueOf(out).Elem(), true, 0); err != nil {
			return nil, fmt.Errorf("encode %s: %w", op, err)
		}
		if spec.Wrapper != "" {
			e.b.WriteString("</" + spec.Wrapper + ">")
		}
	} else if e.ec2 {
		e.element("return", "true")
	}
	if !e.ec2 {
		e.b.WriteString("<ResponseMetadata>")
		e.element("RequestId", requestID)
		e.b.WriteString("</ResponseMetadata>")
	}
	e.b.WriteString("</" + op + "Response>\n")
	return e.b.Bytes(), nil
}

func (e *xmlEncoder) text(s string) { xml.EscapeText(&e.b, []byte(s)) }

func (e *xmlEncoder) element(name, text string) {
	e.b.WriteString("<" + name + ">")
	e.text(text)
	e.b.WriteString("</" + name + ">")
}

// structure writes the fields. At the top, absent lists are written empty:
// clients take the list of a describe call without asking whether it is there.
func (e *xmlEncoder) structure(v reflect.Value, top bool, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%s is nested too deeply", v.Type())
	}
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
		if err := e.value(f.xml, x, f, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (e *xmlEncoder) value(name string, v reflect.Value, f field, depth int) error {
	for v.Kind() == reflect.Pointer {
		if v.IsNil() {
			e.b.WriteString("<" + name + "/>")
			return nil
		}
		v = v.Elem()
	}
	switch {
	case v.Type() == timeType:
		e.element(name, e.time(v.Interface().(time.Time)))
	case isBlob(v.Type()):
		e.element(name, base64.StdEncoding.EncodeToString(v.Bytes()))
	case v.Kind() == reflect.String:
		e.element(name, v.String())
	case v.Kind() == reflect.Int64:
		e.element(name, strconv.FormatInt(v.Int(), 10))
	case v.Kind() == reflect.Float64:
		if math.IsNaN(v.Float()) || math.IsInf(v.Float(), 0) {
			return fmt.Errorf("%s is not a number", name)
		}
		e.element(name, strconv.FormatFloat(v.Float(), 'g', -1, 64))
	case v.Kind() == reflect.Bool:
		e.element(name, strconv.FormatBool(v.Bool()))
	case v.Kind() == reflect.Struct:
		e.b.WriteString("<" + name + ">")
		if err := e.structure(v, false, depth); err != nil {
			return err
		}
		e.b.WriteString("</" + name + ">")
	case v.Kind() == reflect.Slice:
		if v.Len() == 0 {
			e.b.WriteString("<" + name + "/>")
			return nil
		}
		e.b.WriteString("<" + name + ">")
		item := f.item
		if item == "" {
			item = "member"
		}
		for i := range v.Len() {
			if err := e.value(item, v.Index(i), field{}, depth+1); err != nil {
				return err
			}
		}
		e.b.WriteString("</" + name + ">")
	case v.Kind() == reflect.Map:
		e.b.WriteString("<" + name + ">")
		m := map[string]reflect.Value{}
		for it := v.MapRange(); it.Next(); {
			m[it.Key().String()] = it.Value()
		}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			e.b.WriteString("<entry>")
			e.element("key", k)
			if err := e.value("value", m[k], field{}, depth+1); err != nil {
				return err
			}
			e.b.WriteString("</entry>")
		}
		e.b.WriteString("</" + name + ">")
	default:
		return fmt.Errorf("%s has the Go type %s, which no protocol carries", name, v.Type())
	}
	return nil
}

func (e *xmlEncoder) time(t time.Time) string {
	if e.ec2 || t.Nanosecond() >= int(time.Millisecond) {
		return t.UTC().Format("2006-01-02T15:04:05.000Z")
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}
