package template

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// parseJSON reads a JSON template with the position of every value.
func parseJSON(src []byte) (*Node, *Problem) {
	d := json.NewDecoder(bytes.NewReader(src))
	d.UseNumber()
	r := &jsonReader{d: d, lines: newLines(src)}
	n, err := r.value(0)
	if err == nil {
		if _, e := d.Token(); !errors.Is(e, io.EOF) {
			err = errors.New("there is more after the end of the document")
		}
	}
	if err != nil {
		at := r.lines.at(int(d.InputOffset()))
		var s *json.SyntaxError
		if errors.As(err, &s) {
			off := max(int(s.Offset)-1, 0)
			for off < len(src)-1 && (src[off] == ' ' || src[off] == '\n' || src[off] == '\t' || src[off] == '\r') {
				off++ // the decoder counts from before it
			}
			at = r.lines.at(off)
		}
		msg := err.Error()
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			msg = "the document ends too early"
		}
		return nil, &Problem{Line: at.Line, Column: at.Column, Message: "Template format error: JSON not well-formed: " + msg}
	}
	return n, nil
}

type jsonReader struct {
	d     *json.Decoder
	lines lines
}

// next returns the next token and where it begins.
func (r *jsonReader) next() (json.Token, Pos, error) {
	from := int(r.d.InputOffset())
	t, err := r.d.Token()
	return t, r.lines.at(r.lines.skip(from)), err
}

func (r *jsonReader) value(depth int) (*Node, error) {
	t, at, err := r.next()
	if err != nil {
		return nil, err
	}
	if depth > MaxDepth {
		return nil, fmt.Errorf("it is nested more than %d deep", MaxDepth)
	}
	n := &Node{Pos: at}
	switch t := t.(type) {
	case string:
		n.Kind, n.Text = String, t
	case json.Number:
		n.Kind, n.Text = Number, t.String()
	case bool:
		n.Kind, n.Text = Bool, "false"
		if t {
			n.Text = "true"
		}
	case nil:
	case json.Delim:
		switch t {
		case '[':
			n.Kind = List
			for r.d.More() {
				x, err := r.value(depth + 1)
				if err != nil {
					return nil, err
				}
				n.Items = append(n.Items, x)
			}
		case '{':
			n.Kind = Map
			seen := map[string]bool{}
			for r.d.More() {
				k, at, err := r.next()
				if err != nil {
					return nil, err
				}
				key, _ := k.(string)
				if seen[key] {
					return nil, fmt.Errorf("the key %q is there twice", key)
				}
				seen[key] = true
				x, err := r.value(depth + 1)
				if err != nil {
					return nil, err
				}
				n.Pairs = append(n.Pairs, Pair{Key: key, At: at, Value: x})
			}
		}
		if _, err := r.d.Token(); err != nil { // the closing bracket
			return nil, err
		}
	}
	return n, nil
}

// lines turns offsets into positions.
type lines struct {
	src   []byte
	start []int // of each line
}

func newLines(src []byte) lines {
	l := lines{src: src, start: []int{0}}
	for i, b := range src {
		if b == '\n' {
			l.start = append(l.start, i+1)
		}
	}
	return l
}

// skip passes over what may stand between two tokens.
func (l lines) skip(off int) int {
	for off < len(l.src) && bytes.IndexByte([]byte(" \t\r\n,:"), l.src[off]) >= 0 {
		off++
	}
	return off
}

func (l lines) at(off int) Pos {
	lo, hi := 0, len(l.start)
	for hi-lo > 1 {
		if m := (lo + hi) / 2; l.start[m] <= off {
			lo = m
		} else {
			hi = m
		}
	}
	return Pos{Line: lo + 1, Column: max(off, 0) - l.start[lo] + 1}
}
