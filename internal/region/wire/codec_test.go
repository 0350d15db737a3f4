package wire

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
)

type inner struct {
	Name  string   `q:"Name" x:"name" j:"Name" req:"1"`
	Items []string `q:"Item" x:"itemSet" j:"Items" i:"item" flat:"1"`
}

type outer struct {
	Text   string            `q:"Text" x:"text" j:"Text"`
	Kind   string            `q:"Kind" x:"kind" j:"Kind" enum:"one|two"`
	Count  *int64            `q:"Count" x:"count" j:"Count"`
	Ratio  *float64          `q:"Ratio" x:"ratio" j:"Ratio"`
	On     *bool             `q:"On" x:"on" j:"On"`
	When   *time.Time        `q:"When" x:"when" j:"When"`
	Data   []byte            `q:"Data" x:"data" j:"Data"`
	In     *inner            `q:"In" x:"in" j:"In"`
	List   []*inner          `q:"List" x:"list" j:"List" i:"member"`
	Ports  []int64           `q:"Port" x:"ports" j:"Ports" i:"item" flat:"1"`
	Attrs  map[string]string `q:"Attrs" x:"attrs" j:"Attrs"`
	Nested *outer            `q:"Nested" x:"nested" j:"Nested"`
}

func TestDecodeQuery(t *testing.T) {
	when := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		query string
		want  outer
		code  string
	}{
		{query: "", want: outer{}},
		{query: "Text=a%20b&Count=-3&Ratio=1.5&On=true&When=2026-01-02T03:04:05Z&Data=aGk%3D", want: outer{Text: "a b", Count: new(int64(-3)), Ratio: new(1.5), On: new(true), When: &when, Data: []byte("hi")}},
		{query: "In.Name=&In.Item.2=b&In.Item.1=a", want: outer{In: &inner{Items: []string{"a", "b"}}}},
		{query: "List.member.1.Name=a&List.member.10.Name=c&List.member.2.Name=b", want: outer{List: []*inner{{Name: "a"}, {Name: "b"}, {Name: "c"}}}},
		{query: "List=&Port=", want: outer{List: []*inner{}, Ports: []int64{}}},
		{query: "Port.1=80&Port.7=443", want: outer{Ports: []int64{80, 443}}},
		{query: "Attrs.entry.1.key=k&Attrs.entry.1.value=v", want: outer{Attrs: map[string]string{"k": "v"}}},
		{query: "Nested.Nested.Text=x", want: outer{Nested: &outer{Nested: &outer{Text: "x"}}}},
		{query: "Count=", want: outer{}},
		{query: "Kind=two&Action=X&X-Amz-Date=y", want: outer{Kind: "two"}},
		{query: "Nope=1", code: "UnknownParameter"},
		{query: "In.Name=a&In.Nope.1.X=1", code: "UnknownParameter"},
		{query: "Text.1=a", code: "UnknownParameter"},
		{query: "List.1.Name=a", code: "UnknownParameter"},
		{query: "Port.x=1", code: "UnknownParameter"},
		{query: "Port.01=1", code: "UnknownParameter"},
		{query: "Port=80", code: "ValidationError"},
		{query: "In=x", code: "ValidationError"},
		{query: "In.Item.1=a", code: "ValidationError"},
		{query: "Kind=three", code: "ValidationError"},
		{query: "Count=1.5", code: "ValidationError"},
		{query: "Count=99999999999999999999", code: "ValidationError"},
		{query: "Ratio=NaN", code: "ValidationError"},
		{query: "On=yes", code: "ValidationError"},
		{query: "When=yesterday", code: "ValidationError"},
		{query: "Data=%25", code: "ValidationError"},
		{query: "Text=a&Text=b", code: "ValidationError"},
		{query: "Attrs.entry.1.key=k", code: "ValidationError"},
		{query: "Text=%ff", code: "MalformedQueryString"},
		{query: strings.Repeat("Nested.", 30) + "Text=x", code: "MalformedQueryString"},
		{query: strings.Repeat("Nested.", 3000) + "Text=x", code: "MalformedQueryString"},
	}
	for _, tt := range tests {
		form, err := url.ParseQuery(tt.query)
		if err != nil {
			t.Fatal(err)
		}
		var got outer
		err = decodeQuery(form, &got, false)
		if tt.code != "" {
			if e, ok := errors.AsType[*Error](err); !ok || e.Code != tt.code {
				t.Errorf("%.80s: got %v, want %s", tt.query, err, tt.code)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %+v, %v", tt.query, got, err)
		}
	}
}

func TestEC2CodesOfDecodeErrors(t *testing.T) {
	for query, want := range map[string]string{
		"In.Item.1=a": "MissingParameter: The request must contain the parameter In.Name",
		"Count=x":     `InvalidParameterValue: The parameter Count is not an integer: "x"`,
		"Kind=x":      "InvalidParameterValue: Value (x) for parameter Kind is invalid. Valid values: one, two",
	} {
		form, _ := url.ParseQuery(query)
		if err := decodeQuery(form, &outer{}, true); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", query, err, want)
		}
	}
}

func TestDecodeJSONErrors(t *testing.T) {
	for body, want := range map[string]string{
		`{"Count":"1"}`:                "SerializationException",
		`{"Count":1.5}`:                "SerializationException",
		`{"Text":1}`:                   "SerializationException",
		`{"List":{}}`:                  "SerializationException",
		`{"In":[]}`:                    "SerializationException",
		`{"When":true}`:                "SerializationException",
		`{"When":1e300}`:               "SerializationException",
		`{"Data":"%"}`:                 "SerializationException",
		`{`:                            "SerializationException",
		`{} {}`:                        "SerializationException",
		`[]`:                           "SerializationException",
		`{"In":{}}`:                    "ValidationException",
		`{"In":{"Name":null}}`:         "ValidationException",
		`{"Kind":"three"}`:             "ValidationException",
		``:                             "",
		`{"Unknown":1,"Text":null}`:    "",
		`{"In":{"Name":""},"List":[]}`: "",
		strings.Repeat(`{"Nested":`, 40) + "{}" + strings.Repeat("}", 40): "SerializationException",
	} {
		err := decodeJSON([]byte(body), &outer{})
		e, ok := errors.AsType[*Error](err)
		if want == "" && err != nil || want != "" && (!ok || e.Code != want) {
			t.Errorf("%.60s: got %v, want %q", body, err, want)
		}
	}
}

func FuzzDecodeQuery(f *testing.F) {
	for _, s := range []string{"Text=a", "List.member.1.Name=a&Port.1=2", "Attrs.entry.1.key=k&Attrs.entry.1.value=v", "Nested.Nested.In.Name=x", "List=&In.Item.1=", "Text..=a", ".=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		form, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		var v outer
		if err := decodeQuery(form, &v, len(query)%2 == 0); err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("%q: %v is no answer to a client", query, err)
			}
			return
		}
		// What was decoded can be encoded, and is well-formed.
		m := &Model{Protocol: "query", Namespace: "ns"}
		b, err := encodeXML(m, "Op", Operation{Output: func() any { return new(outer) }}, &v, "id")
		if err != nil {
			t.Fatal(err)
		}
		for d := xml.NewDecoder(bytes.NewReader(b)); ; {
			if _, err := d.Token(); err == io.EOF {
				break
			} else if err != nil {
				t.Fatalf("%s: %v", b, err)
			}
		}
		j, err := encodeJSON(Operation{}, &v)
		if err != nil {
			t.Fatal(err)
		}
		var again outer
		if err := decodeJSON(j, &again); err != nil && !strings.Contains(err.Error(), "must not be null") {
			t.Fatalf("%s: %v", j, err)
		}
	})
}

func FuzzDecodeJSON(f *testing.F) {
	f.Add([]byte(`{"Text":"a","List":[{"Name":"x","Items":["a"]}],"When":1.5,"Attrs":{"a":"b"}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var v outer
		if err := decodeJSON(body, &v); err != nil {
			if _, ok := errors.AsType[*Error](err); !ok {
				t.Fatalf("%q: %v is no answer to a client", body, err)
			}
			return
		}
		if _, err := encodeJSON(Operation{}, &v); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzCanonicalQuery(f *testing.F) {
	f.Add("b=2&a=1&a=%20&c")
	f.Fuzz(func(t *testing.T, raw string) {
		once, err := canonicalQuery(raw)
		if err != nil {
			return
		}
		if twice, err := canonicalQuery(once); err != nil || twice != once {
			t.Fatalf("%q became %q and then %q, %v", raw, once, twice, err)
		}
	})
}
