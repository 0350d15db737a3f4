package wire

import (
	"reflect"
	"strings"
	"sync"
	"time"
)

// shape is what the codecs know of a struct type, read from its tags once.
type shape struct {
	fields []field
	query  map[string]int // query name -> position in fields
	json   map[string]int
}

type field struct {
	index int
	query string
	xml   string
	json  string
	item  string // list item's element name
	flat  bool   // the list has no wrapper in query input
	req   bool
	keep  bool // an empty string is written and not left out
	enum  []string
	typ   reflect.Type
}

var (
	shapes   sync.Map // reflect.Type -> *shape
	timeType = reflect.TypeFor[time.Time]()
)

func shapeOf(t reflect.Type) *shape {
	if s, ok := shapes.Load(t); ok {
		return s.(*shape)
	}
	s := &shape{query: map[string]int{}, json: map[string]int{}}
	_, hasKey := t.FieldByName("Key")
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		x := field{
			index: i, query: f.Tag.Get("q"), xml: f.Tag.Get("x"), json: f.Tag.Get("j"), item: f.Tag.Get("i"),
			flat: f.Tag.Get("flat") != "", req: f.Tag.Get("req") != "", typ: f.Type,
		}
		if e := f.Tag.Get("enum"); e != "" {
			x.enum = strings.Split(e, "|")
		}
		// A tag's empty value is a value: clients index it without asking.
		x.keep = x.req || hasKey && f.Name == "Value"
		s.query[x.query] = len(s.fields)
		s.json[x.json] = len(s.fields)
		s.fields = append(s.fields, x)
	}
	got, _ := shapes.LoadOrStore(t, s)
	return got.(*shape)
}

// isBlob tells whether t carries bytes.
func isBlob(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Uint8
}

// Limits on what a client may send.
const (
	maxBody   = 1 << 20 // of a query or JSON request
	maxParams = 20_000  // query parameters in a request
	maxList   = 5_000   // items in one list
	maxDepth  = 24      // nesting
)
