// Package template reads CloudFormation templates: YAML and JSON with every
// short form, parameters, mappings, conditions and intrinsic functions, the
// graph of resources, and what is wrong with them, each with file, line and
// column. It decides what a template means; it does no I/O and must not know
// who asks: a check of a blueprint, or an engine that makes stacks.
package template

import (
	"fmt"
	"strconv"
	"strings"
)

// Limits on templates.
const (
	MaxBytes     = 1 << 20
	MaxDepth     = 64
	MaxResources = 500
	maxNames     = 200 // parameters, outputs, mappings
)

// Pos is a position in the file, from 1.
type Pos struct {
	Line   int `json:"line"`
	Column int `json:"column"`
}

func (p Pos) String() string { return fmt.Sprintf("%d:%d", p.Line, p.Column) }

// Problem is one thing that is wrong with a template.
type Problem struct {
	File         string
	Line, Column int
	Message      string
	Hint         string
	// Local: AWS takes it, the local region alone does not.
	Local bool
}

// Error gives the message with the position, in front of it.
func (p Problem) Error() string {
	s := p.Message
	if p.Line > 0 {
		s = fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message)
	}
	if p.Hint != "" {
		s += " (" + p.Hint + ")"
	}
	return s
}

// Kind is the kind of a node.
type Kind byte

// The kinds of nodes. Unknown is a value that is not there yet, such as the id
// of a resource that has not been made.
const (
	Null Kind = iota
	String
	Number
	Bool
	List
	Map
	Unknown
	absent // AWS::NoValue
)

func (k Kind) String() string {
	return [...]string{"nothing", "a string", "a number", "true or false", "a list", "a map", "a value that is not known yet", "nothing"}[k]
}

// Node is a piece of a template. Short tags are written out: !Ref X is a map
// with the one key Ref. Nodes are never changed once they are made.
type Node struct {
	Pos   Pos
	Kind  Kind
	Text  string  // of a scalar
	Items []*Node // of a list
	Pairs []Pair  // of a map, in the order of the file
}

// Pair is a key of a map with its value.
type Pair struct {
	Key   string
	At    Pos // of the key
	Value *Node
}

// Get returns the value of a map's key, nil where there is none.
func (n *Node) Get(key string) *Node {
	if p := n.Pair(key); p != nil {
		return p.Value
	}
	return nil
}

// Pair returns a map's pair of that key, nil where there is none.
func (n *Node) Pair(key string) *Pair {
	if n == nil {
		return nil
	}
	for i := range n.Pairs {
		if n.Pairs[i].Key == key {
			return &n.Pairs[i]
		}
	}
	return nil
}

// Scalar tells whether the node is a string, a number or a boolean.
func (n *Node) Scalar() bool { return n.Kind == String || n.Kind == Number || n.Kind == Bool }

// Function returns the intrinsic function that the node is, as "Ref" or
// "Fn::Sub", with its argument.
func (n *Node) Function() (name string, arg *Node, ok bool) {
	if n == nil || n.Kind != Map || len(n.Pairs) != 1 {
		return "", nil, false
	}
	k := n.Pairs[0].Key
	if k == "Ref" || strings.HasPrefix(k, "Fn::") {
		return k, n.Pairs[0].Value, true
	}
	return "", nil, false
}

// Value turns a node into plain Go: string, int64, float64, bool, []any,
// map[string]any or nil.
func (n *Node) Value() any {
	switch n.Kind {
	case String:
		return n.Text
	case Bool:
		return n.Text == "true"
	case Number:
		if i, err := strconv.ParseInt(n.Text, 10, 64); err == nil {
			return i
		}
		if f, err := strconv.ParseFloat(n.Text, 64); err == nil {
			return f
		}
		return n.Text
	case List:
		out := make([]any, len(n.Items))
		for i, x := range n.Items {
			out[i] = x.Value()
		}
		return out
	case Map:
		out := make(map[string]any, len(n.Pairs))
		for _, p := range n.Pairs {
			out[p.Key] = p.Value.Value()
		}
		return out
	}
	return nil
}

// FromValue is the inverse of Value; everything is at pos.
func FromValue(pos Pos, v any) *Node {
	n := &Node{Pos: pos}
	switch v := v.(type) {
	case nil:
	case string:
		n.Kind, n.Text = String, v
	case bool:
		n.Kind, n.Text = Bool, strconv.FormatBool(v)
	case int:
		n.Kind, n.Text = Number, strconv.Itoa(v)
	case int64:
		n.Kind, n.Text = Number, strconv.FormatInt(v, 10)
	case float64:
		n.Kind, n.Text = Number, strconv.FormatFloat(v, 'f', -1, 64)
	case []string:
		n.Kind = List
		for _, x := range v {
			n.Items = append(n.Items, FromValue(pos, x))
		}
	case []any:
		n.Kind = List
		for _, x := range v {
			n.Items = append(n.Items, FromValue(pos, x))
		}
	case map[string]any:
		n.Kind = Map
		for _, k := range sortedKeys(v) {
			n.Pairs = append(n.Pairs, Pair{Key: k, At: pos, Value: FromValue(pos, v[k])})
		}
	default:
		n.Kind, n.Text = String, fmt.Sprint(v)
	}
	return n
}

func text(pos Pos, s string) *Node   { return &Node{Pos: pos, Kind: String, Text: s} }
func unknown(pos Pos) *Node          { return &Node{Pos: pos, Kind: Unknown} }
func (n *Node) isText(s string) bool { return n != nil && n.Kind == String && n.Text == s }
