package blueprint

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"github.com/dayfly-infra/dayfly/internal/template"
)

// reader takes a YAML document apart and notes every problem with its
// position, so that a person sees all of them at once and not the first only.
type reader struct {
	file     string
	problems []Problem
	at       map[string]ast.Node // where the value of each key that was read is
}

func (r *reader) problem(n ast.Node, hint, format string, args ...any) {
	p := Problem{File: r.file, Message: fmt.Sprintf(format, args...), Hint: hint}
	if n != nil && n.GetToken() != nil && n.GetToken().Position != nil {
		p.Line, p.Column = n.GetToken().Position.Line, n.GetToken().Position.Column
	}
	r.problems = append(r.problems, p)
}

// object is a mapping whose keys are asked for one by one; what nobody asked
// for is unknown.
type object struct {
	r     *reader
	at    ast.Node
	path  string
	pairs map[string]*ast.MappingValueNode
	order []string
	asked []string
}

// object reads n as a mapping; a missing n is an empty one.
func (r *reader) object(n ast.Node, path string) *object {
	o := &object{r: r, at: n, path: path, pairs: map[string]*ast.MappingValueNode{}}
	n = plain(n)
	var values []*ast.MappingValueNode
	switch m := n.(type) {
	case nil, *ast.NullNode:
	case *ast.MappingNode:
		values = m.Values
	case *ast.MappingValueNode:
		values = []*ast.MappingValueNode{m}
	default:
		r.problem(n, "", "%s must be a mapping, not %s", name(path), kindOf(n))
	}
	for _, v := range values {
		k := keyOf(v.Key)
		if _, twice := o.pairs[k]; twice {
			r.problem(v.Key, "", "the key %q is there twice", k)
			continue
		}
		o.pairs[k] = v
		o.order = append(o.order, k)
	}
	return o
}

func keyOf(k ast.MapKeyNode) string {
	if s, ok := k.(*ast.StringNode); ok {
		return s.Value
	}
	return k.String()
}

// plain strips anchors and tags and follows nothing else.
func plain(n ast.Node) ast.Node {
	for {
		switch t := n.(type) {
		case *ast.AnchorNode:
			n = t.Value
		case *ast.TagNode:
			n = t.Value
		default:
			return n
		}
	}
}

func name(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}

func kindOf(n ast.Node) string {
	switch plain(n).(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	case *ast.StringNode, *ast.LiteralNode:
		return "a string"
	case *ast.IntegerNode, *ast.FloatNode:
		return "a number"
	case *ast.BoolNode:
		return "true or false"
	case *ast.NullNode, nil:
		return "nothing"
	}
	return "this"
}

func (o *object) key(k string) string {
	if o.path == "" {
		return k
	}
	return o.path + "." + k
}

// node returns the value under k, nil where it is not there.
func (o *object) node(k string) ast.Node {
	o.asked = append(o.asked, k)
	v := o.pairs[k]
	if v == nil {
		return nil
	}
	o.r.at[o.key(k)] = v.Value
	return plain(v.Value)
}

// position returns the node that a message about k should point to.
func (o *object) position(k string) ast.Node {
	if v := o.pairs[k]; v != nil {
		return v.Value
	}
	return o.at
}

func (o *object) string(k, def string) string {
	switch v := o.node(k).(type) {
	case nil:
		return def
	case *ast.StringNode:
		return v.Value
	case *ast.LiteralNode:
		return v.Value.Value
	case *ast.IntegerNode, *ast.FloatNode:
		return strings.TrimSpace(v.String())
	default:
		o.r.problem(v, "", "%s must be a string, not %s", o.key(k), kindOf(v))
		return def
	}
}

func (o *object) int(k string, def, low, high int) int {
	n := o.node(k)
	if n == nil {
		return def
	}
	v, ok := n.(*ast.IntegerNode)
	if !ok {
		o.r.problem(n, "", "%s must be a number, not %s", o.key(k), kindOf(n))
		return def
	}
	i, err := strconv.Atoi(strings.ReplaceAll(v.GetToken().Value, "_", ""))
	if err != nil || i < low || i > high {
		o.r.problem(n, "", "%s must be from %d to %d, not %s", o.key(k), low, high, v.GetToken().Value)
		return def
	}
	return i
}

// bool reads true or false.
func (o *object) bool(k string, def bool) bool {
	n := o.node(k)
	if n == nil {
		return def
	}
	v, ok := n.(*ast.BoolNode)
	if !ok {
		o.r.problem(n, "", "%s must be true or false, not %s", o.key(k), kindOf(n))
		return def
	}
	return v.Value
}

// float reads a number; there is none without the key.
func (o *object) float(k string) *float64 {
	n := o.node(k)
	switch n.(type) {
	case nil:
		return nil
	case *ast.IntegerNode, *ast.FloatNode:
		f, err := strconv.ParseFloat(strings.ReplaceAll(strings.TrimSpace(n.String()), "_", ""), 64)
		if err == nil && !math.IsInf(f, 0) && !math.IsNaN(f) {
			return &f
		}
	}
	o.r.problem(n, "", "%s must be a number, not %s", o.key(k), kindOf(n))
	return nil
}

// duration reads 90s, 10m, 24h or 7d.
func (o *object) duration(k string, def, low, high time.Duration) time.Duration {
	n := o.node(k)
	if n == nil {
		return def
	}
	d, err := parseDuration(strings.Trim(strings.TrimSpace(n.String()), `"'`))
	if err != nil {
		o.r.problem(n, "write 30s, 10m, 24h or 7d", "%s must be a duration", o.key(k))
		return def
	}
	if d < low || d > high {
		o.r.problem(n, "", "%s must be from %s to %s", o.key(k), short(low), short(high))
		return def
	}
	return d
}

// numbers reads a list of whole numbers.
func (o *object) numbers(k string, low, high int) []int {
	var out []int
	for _, n := range o.list(k) {
		v, ok := plain(n).(*ast.IntegerNode)
		if !ok {
			o.r.problem(n, "", "%s must be a list of numbers, and this is %s", o.key(k), kindOf(n))
			continue
		}
		i, err := strconv.Atoi(v.GetToken().Value)
		if err != nil || i < low || i > high {
			o.r.problem(n, "", "%s must be numbers from %d to %d, not %s", o.key(k), low, high, v.GetToken().Value)
			continue
		}
		out = append(out, i)
	}
	return out
}

// percent reads 1, 0.5 or 1%; 0 where there is none.
func (o *object) percent(k string, low, high float64) float64 {
	n := o.node(k)
	if n == nil {
		return 0
	}
	f, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.Trim(strings.TrimSpace(n.String()), `"'`), "%")), 64)
	if err != nil || !(f >= low && f <= high) {
		o.r.problem(n, "write 1 or 0.5%", "%s must be a share of %g to %g per cent", o.key(k), low, high)
		return 0
	}
	return f
}

func parseDuration(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.Atoi(days)
		if err != nil || n < 0 || n > 36500 {
			return 0, fmt.Errorf("%q is not a number of days", s)
		}
		return time.Duration(n) * 24 * time.Hour, nil
	}
	return time.ParseDuration(s)
}

// short is a duration as people write it.
func short(d time.Duration) string {
	if d >= 48*time.Hour && d%(24*time.Hour) == 0 {
		return strconv.Itoa(int(d/(24*time.Hour))) + "d"
	}
	s := d.String()
	s = strings.TrimSuffix(s, "0s")
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	if s == "" {
		return "0s"
	}
	return s
}

func (o *object) strings(k string) []string {
	n := o.node(k)
	switch v := n.(type) {
	case nil:
		return nil
	case *ast.SequenceNode:
		var out []string
		for _, e := range v.Values {
			s, ok := plain(e).(*ast.StringNode)
			if !ok {
				o.r.problem(e, "", "%s must be a list of strings, and this is %s", o.key(k), kindOf(e))
				continue
			}
			out = append(out, s.Value)
		}
		return out
	case *ast.StringNode:
		return []string{v.Value}
	}
	o.r.problem(n, "", "%s must be a list, not %s", o.key(k), kindOf(n))
	return nil
}

// oneOf reads a word out of a set.
func (o *object) oneOf(k, def string, valid ...string) string {
	s := o.string(k, def)
	for _, v := range valid {
		if s == v {
			return s
		}
	}
	o.r.problem(o.position(k), nearest(s, valid), "%s cannot be %q; valid: %s", o.key(k), s, strings.Join(valid, ", "))
	return def
}

func (o *object) parameters(k string) map[string]string {
	n := o.node(k)
	if n == nil {
		return nil
	}
	in := o.r.object(n, o.key(k))
	out := map[string]string{}
	for _, key := range in.order {
		switch v := in.node(key).(type) {
		case *ast.BoolNode:
			out[key] = strconv.FormatBool(v.Value)
		default:
			out[key] = in.string(key, "")
		}
	}
	return out
}

func (o *object) list(k string) []ast.Node {
	n := o.node(k)
	if n == nil {
		return nil
	}
	s, ok := n.(*ast.SequenceNode)
	if !ok {
		o.r.problem(n, "", "%s must be a list, not %s", o.key(k), kindOf(n))
		return nil
	}
	return s.Values
}

// done reports the keys that nobody asked for.
func (o *object) done() {
	for _, k := range o.order {
		known := false
		for _, a := range o.asked {
			known = known || a == k
		}
		if !known {
			where := "here"
			if o.path != "" {
				where = "in " + o.path
			}
			o.r.problem(o.pairs[k].Key, nearest(k, o.asked), "there is no key %q %s; valid: %s", k, where, strings.Join(o.asked, ", "))
		}
	}
}

// nearest suggests the valid word that is most like the one that was read.
func nearest(got string, valid []string) string {
	if best := template.Nearest(got, valid); best != "" {
		return "did you mean " + strconv.Quote(best) + "?"
	}
	return ""
}
