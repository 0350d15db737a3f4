package template

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/lexer"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// longForm is what a short tag stands for.
func longForm(tag string) (string, bool) {
	switch tag {
	case "!Ref", "!Condition":
		return tag[1:], true
	}
	name := "Fn::" + strings.TrimPrefix(tag, "!")
	_, ok := functions[name]
	return name, ok
}

// parseYAML reads a YAML template with the position of every value.
func parseYAML(src []byte) (n *Node, p *Problem) {
	defer func() { // a defect of the reader is no reason to fall over
		if r := recover(); r != nil {
			n, p = nil, &Problem{Message: "Template format error: YAML not well-formed: the reader gave up", Hint: fmt.Sprint(r)}
		}
	}()
	if i := strings.Index(string(src), colon); i >= 0 {
		at := newLines(src).at(i)
		return nil, &Problem{Line: at.Line, Column: at.Column, Message: "Template format error: the private character U+E000 is not allowed in templates"}
	}
	tokens := lexer.Tokenize(hideColons(string(src)))
	if p := tooDeep(tokens); p != nil {
		return nil, p
	}
	file, err := parser.Parse(fillEmptyTags(tokens), 0)
	if err != nil {
		p := &Problem{Message: "Template format error: YAML not well-formed"}
		if se, ok := errors.AsType[*yaml.SyntaxError](err); ok {
			p.Message += ": " + showColons(se.Message)
			if se.Token != nil && se.Token.Position != nil {
				p.Line, p.Column = se.Token.Position.Line, se.Token.Position.Column
			}
		} else {
			p.Message += ": " + showColons(err.Error())
		}
		return nil, p
	}
	var body ast.Node
	for _, d := range file.Docs {
		if d.Body == nil {
			continue
		}
		if body != nil {
			at := position(d.Body)
			return nil, &Problem{Line: at.Line, Column: at.Column, Message: "Template format error: there is more than one YAML document"}
		}
		body = d.Body
	}
	if body == nil {
		return nil, &Problem{Line: 1, Column: 1, Message: "Template format error: the template is empty"}
	}
	r := yamlReader{}
	n = r.node(body, 0)
	return n, r.problem
}

// colon stands for a colon within a word while the parser works: it takes the
// colons of {Value: !Ref AWS::Region} and {Fn::Sub: x} for the ends of keys.
// By YAML's rules a colon ends a key only before a space or a bracket, or
// behind a quote.
const colon = "\ue000"

func hideColons(src string) string {
	var b strings.Builder
	for i := range len(src) {
		if src[i] == ':' && i > 0 && i+1 < len(src) && !strings.ContainsRune(" \t\r\n\"'[]{},", rune(src[i-1])) && !strings.ContainsRune(" \t\r\n\"'[]{},", rune(src[i+1])) {
			b.WriteString(colon)
		} else {
			b.WriteByte(src[i])
		}
	}
	return b.String()
}

func showColons(s string) string { return strings.ReplaceAll(s, colon, ":") }

// tooDeep finds nesting that the parser, which recurses, must not see.
func tooDeep(tokens token.Tokens) *Problem {
	flow, row, line := 0, 0, 0
	for _, t := range tokens {
		switch t.Type {
		case token.SequenceStartType, token.MappingStartType:
			flow++
		case token.SequenceEndType, token.MappingEndType:
			flow--
		}
		if t.Position == nil {
			continue
		}
		if t.Position.Line != line {
			line, row = t.Position.Line, 0
		}
		switch t.Type {
		case token.SequenceEntryType, token.MappingKeyType, token.TagType, token.AnchorType:
			row++
		}
		if flow > MaxDepth || row > MaxDepth && flow == 0 || t.Position.Column > 4*MaxDepth && t.Type == token.SequenceEntryType {
			return &Problem{Line: line, Column: t.Position.Column, Message: fmt.Sprintf("Template format error: it is nested more than %d deep", MaxDepth)}
		}
	}
	return nil
}

// fillEmptyTags puts an empty string behind tags that have no value, as in
// "AvailabilityZones: !GetAZs": the parser takes what follows for the value,
// though it stands further left.
func fillEmptyTags(tokens token.Tokens) token.Tokens {
	out := make(token.Tokens, 0, len(tokens))
	for i, t := range tokens {
		out.Add(t)
		if t.Type != token.TagType || strings.HasPrefix(t.Value, "!!") {
			continue
		}
		next := i + 1
		for next < len(tokens) && tokens[next].Type == token.CommentType {
			next++
		}
		if next < len(tokens) && !endsEmpty(tokens, i, tokens[next]) {
			continue
		}
		pos := *t.Position
		pos.Column += len(t.Value)
		pos.Offset += len(t.Value)
		out.Add(&token.Token{Type: token.SingleQuoteType, CharacterType: token.CharacterTypeIndicator, Indicator: token.QuotedScalarIndicator, Origin: "''", Position: &pos})
	}
	return out
}

// endsEmpty tells whether the tag at i has no value, given the token after it.
func endsEmpty(tokens token.Tokens, i int, next *token.Token) bool {
	switch next.Type {
	case token.CollectEntryType, token.SequenceEndType, token.MappingEndType, token.DocumentEndType, token.DocumentHeaderType:
		return true
	}
	if next.Position.Line == tokens[i].Position.Line || i == 0 {
		return false
	}
	switch prev := tokens[i-1]; prev.Type {
	case token.SequenceEntryType: // - !Tag
		return next.Position.Column <= prev.Position.Column
	case token.MappingValueType: // key: !Tag
		if i < 2 {
			return false
		}
		key := tokens[i-2].Position.Column
		if next.Type == token.SequenceEntryType { // a list may stand as far left as its key
			return next.Position.Column < key
		}
		return next.Position.Column <= key
	}
	return false
}

func position(n ast.Node) Pos {
	switch m := n.(type) {
	case *ast.MappingNode: // its own token is the first colon
		if len(m.Values) > 0 && !m.IsFlowStyle {
			return position(m.Values[0].Key)
		}
	case *ast.MappingValueNode:
		return position(m.Key)
	}
	if n != nil {
		if t := n.GetToken(); t != nil && t.Position != nil {
			return Pos{t.Position.Line, t.Position.Column}
		}
	}
	return Pos{1, 1}
}

// yamlReader turns the parser's tree into ours and keeps the first problem.
type yamlReader struct{ problem *Problem }

func (r *yamlReader) fail(at Pos, format string, args ...any) *Node {
	if r.problem == nil {
		r.problem = &Problem{Line: at.Line, Column: at.Column, Message: "Template format error: " + fmt.Sprintf(format, args...)}
	}
	return &Node{Pos: at}
}

func (r *yamlReader) node(n ast.Node, depth int) *Node {
	at := position(n)
	if depth > MaxDepth {
		return r.fail(at, "it is nested more than %d deep", MaxDepth)
	}
	switch n := n.(type) {
	case nil, *ast.NullNode:
		return &Node{Pos: at}
	case *ast.StringNode:
		return text(at, showColons(n.Value))
	case *ast.LiteralNode:
		return text(at, showColons(n.Value.Value))
	case *ast.BoolNode:
		return &Node{Pos: at, Kind: Bool, Text: strconv.FormatBool(n.Value)}
	case *ast.IntegerNode:
		return &Node{Pos: at, Kind: Number, Text: integer(n)}
	case *ast.FloatNode:
		return &Node{Pos: at, Kind: Number, Text: n.GetToken().Value}
	case *ast.InfinityNode, *ast.NanNode:
		return text(at, n.GetToken().Value)
	case *ast.SequenceNode:
		out := &Node{Pos: at, Kind: List}
		for _, v := range n.Values {
			out.Items = append(out.Items, r.node(v, depth+1))
		}
		return out
	case *ast.MappingNode:
		return r.mapping(at, n.Values, depth)
	case *ast.MappingValueNode:
		return r.mapping(at, []*ast.MappingValueNode{n}, depth)
	case *ast.TagNode:
		return r.tag(n, at, depth)
	case *ast.AnchorNode, *ast.AliasNode:
		return r.fail(at, "YAML aliases are not allowed in CloudFormation templates")
	}
	return r.fail(at, "this kind of YAML is not allowed in CloudFormation templates")
}

func (r *yamlReader) mapping(at Pos, values []*ast.MappingValueNode, depth int) *Node {
	out := &Node{Pos: at, Kind: Map}
	for _, v := range values {
		var key string
		kn := ast.Node(v.Key)
		if m, ok := kn.(*ast.MappingKeyNode); ok {
			kn = m.Value
		}
		switch k := kn.(type) {
		case *ast.StringNode:
			key = showColons(k.Value)
		case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.NullNode:
			key = showColons(k.GetToken().Value) // the number 123456789012 is a key like any other
		case *ast.MergeKeyNode:
			return r.fail(position(kn), "YAML merge keys are not allowed in CloudFormation templates")
		default:
			return r.fail(position(v), "a key must be a string")
		}
		if out.Pair(key) != nil {
			return r.fail(position(kn), "the key %q is there twice", key)
		}
		out.Pairs = append(out.Pairs, Pair{Key: key, At: position(kn), Value: r.node(v.Value, depth+1)})
	}
	return out
}

func (r *yamlReader) tag(n *ast.TagNode, at Pos, depth int) *Node {
	tag := showColons(n.Start.Value)
	if strings.HasPrefix(tag, "!!") {
		v := r.node(n.Value, depth+1)
		switch {
		case tag == "!!str" && (v.Scalar() || v.Kind == Null):
			return text(v.Pos, v.Text)
		case tag == "!!int" || tag == "!!float" || tag == "!!bool" || tag == "!!map" || tag == "!!seq" || tag == "!!null":
			return v
		}
		return r.fail(at, "the YAML tag %s is not allowed in CloudFormation templates", tag)
	}
	name, ok := longForm(tag)
	if !ok {
		r.fail(at, "unknown tag %s", tag)
		if r.problem.Line == at.Line && r.problem.Column == at.Column {
			var words []string
			for f := range functions {
				words = append(words, "!"+strings.TrimPrefix(f, "Fn::"))
			}
			r.problem.Hint = didYouMean(tag, words)
		}
		return &Node{Pos: at}
	}
	return &Node{Pos: at, Kind: Map, Pairs: []Pair{{Key: name, At: at, Value: r.node(n.Value, depth+1)}}}
}

// integer keeps decimal numbers as they are written and turns others into
// decimal ones.
func integer(n *ast.IntegerNode) string {
	s := n.GetToken().Value
	if _, err := strconv.ParseInt(s, 10, 64); err == nil {
		return s
	}
	switch v := n.Value.(type) {
	case int64:
		return strconv.FormatInt(v, 10)
	case uint64:
		if v <= math.MaxInt64 {
			return strconv.FormatUint(v, 10)
		}
	}
	return s
}
