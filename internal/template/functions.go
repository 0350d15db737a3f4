package template

import (
	"math/big"
	"net/netip"
	"strconv"
	"strings"
)

// function is an intrinsic function. run gets evaluated arguments; it is nil
// for functions that Scope.call treats itself or that are not there.
type function struct {
	run func(s *Scope, at Pos, arg *Node) (*Node, error)
	// gives is what kind of value comes out: String, List, or Unknown where
	// that depends on the arguments.
	gives Kind
	here  bool // the engine runs it; the others only AWS does
}

// functions are all intrinsic functions but Ref and Condition.
var functions = map[string]function{
	"Fn::GetAtt":       {nil, Unknown, true},
	"Fn::Sub":          {nil, String, true},
	"Fn::If":           {nil, Unknown, true},
	"Fn::And":          {nil, Unknown, true},
	"Fn::Or":           {nil, Unknown, true},
	"Fn::Not":          {nil, Unknown, true},
	"Fn::Equals":       {nil, Unknown, true},
	"Fn::Base64":       {base64Text, String, true},
	"Fn::Cidr":         {cidr, List, true},
	"Fn::FindInMap":    {findInMap, Unknown, true},
	"Fn::GetAZs":       {zones, List, true},
	"Fn::ImportValue":  {importValue, Unknown, true},
	"Fn::Join":         {join, String, true},
	"Fn::Length":       {length, String, true},
	"Fn::Select":       {selectOne, Unknown, true},
	"Fn::Split":        {split, List, true},
	"Fn::ToJsonString": {toJSON, String, true},
	"Fn::Transform":    {nil, Unknown, false},
	"Fn::ForEach":      {nil, Unknown, false},
}

const (
	joinUsage   = "Template error: every Fn::Join object requires two parameters, (1) a string delimiter and (2) a list of strings to be joined or a function that returns a list of strings (such as Fn::GetAZs) to be joined."
	splitUsage  = "Template error: every Fn::Split object requires two parameters, (1) a string delimiter and (2) a string to be split or a function that returns a string to be split."
	selectUsage = "Template error: Fn::Select requires a list argument with two elements: an integer index and a list"
	mapUsage    = "Template error: every Fn::FindInMap object requires three parameters, the map name, map key and the attribute for return value"
	cidrUsage   = "Template error: every Fn::Cidr object requires two or three parameters, the IP address block, the count and optionally the number of subnet bits"
)

func join(s *Scope, at Pos, arg *Node) (*Node, error) {
	if arg.Kind != List || len(arg.Items) != 2 || arg.Items[0].Kind != String || arg.Items[1].Kind != List && arg.Items[1].Kind != Unknown {
		return nil, s.fail(at, joinUsage)
	}
	if anyUnknown(arg) {
		return unknown(at), nil
	}
	var b strings.Builder
	for i, x := range arg.Items[1].Items {
		if !x.Scalar() {
			return nil, s.fail(at, joinUsage)
		}
		if i > 0 {
			b.WriteString(arg.Items[0].Text)
		}
		if b.WriteString(x.Text); b.Len() > maxText {
			return nil, s.fail(at, "Template error: Fn::Join makes more than %d bytes", maxText)
		}
	}
	return text(at, b.String()), nil
}

func split(s *Scope, at Pos, arg *Node) (*Node, error) {
	if arg.Kind != List || len(arg.Items) != 2 || arg.Items[0].Kind != String || arg.Items[0].Text == "" {
		return nil, s.fail(at, splitUsage)
	}
	if arg.Items[1].Kind == Unknown {
		return unknown(at), nil
	}
	if !arg.Items[1].Scalar() {
		return nil, s.fail(at, splitUsage)
	}
	return FromValue(at, strings.Split(arg.Items[1].Text, arg.Items[0].Text)), nil
}

func selectOne(s *Scope, at Pos, arg *Node) (*Node, error) {
	if arg.Kind != List || len(arg.Items) != 2 {
		return nil, s.fail(at, selectUsage)
	}
	index, list := arg.Items[0], arg.Items[1]
	if index.Kind == Unknown || list.Kind == Unknown {
		return unknown(at), nil
	}
	i, err := strconv.Atoi(index.Text)
	if err != nil || list.Kind != List {
		return nil, s.fail(at, selectUsage)
	}
	if i < 0 || i >= len(list.Items) {
		return nil, s.fail(at, "Template error: Fn::Select cannot select nonexistent value at index %d", i)
	}
	if list.Items[i].Kind == Null {
		return nil, s.fail(at, "Template error: Fn::Select cannot select a null value at index %d", i)
	}
	out := *list.Items[i]
	out.Pos = at
	return &out, nil
}

func findInMap(s *Scope, at Pos, arg *Node) (*Node, error) {
	if arg.Kind != List || len(arg.Items) != 3 && len(arg.Items) != 4 {
		return nil, s.fail(at, mapUsage)
	}
	var def *Node
	if len(arg.Items) == 4 {
		if def = arg.Items[3].Get("DefaultValue"); def == nil {
			return nil, s.fail(at, mapUsage)
		}
	}
	var key [3]string
	for i := range key {
		switch x := arg.Items[i]; {
		case x.Kind == Unknown:
			return unknown(at), nil
		case !x.Scalar():
			return nil, s.fail(at, mapUsage)
		default:
			key[i] = x.Text
		}
	}
	if m := pairOf(s.Template.Mappings, key[0]); m != nil {
		if v := m.Value.Get(key[1]).Get(key[2]); v != nil {
			out := *v
			out.Pos = at
			return &out, nil
		}
	} else if def == nil {
		p := s.Template.problem(at, didYouMean(key[0], keysOf(s.Template.Mappings)), "Template error: Mapping named '%s' is not present in the 'Mappings' section of template.", key[0])
		return nil, p
	}
	if def != nil {
		return def, nil
	}
	return nil, s.fail(at, "Template error: Unable to get mapping for %s::%s::%s", key[0], key[1], key[2])
}

func cidr(s *Scope, at Pos, arg *Node) (*Node, error) {
	if arg.Kind != List || len(arg.Items) != 2 && len(arg.Items) != 3 {
		return nil, s.fail(at, cidrUsage)
	}
	for _, x := range arg.Items {
		if x.Kind == Unknown {
			return unknown(at), nil
		}
	}
	block, err := netip.ParsePrefix(arg.Items[0].Text)
	if err != nil {
		return nil, s.fail(at, "Template error: Fn::Cidr: %q is not an address block", arg.Items[0].Text)
	}
	count, err := strconv.Atoi(arg.Items[1].Text)
	if err != nil || count < 1 || count > 256 {
		return nil, s.fail(at, "Template error: Fn::Cidr: the count must be between 1 and 256, not %q", arg.Items[1].Text)
	}
	width := block.Addr().BitLen()
	free := width - block.Bits()
	host := -1
	if len(arg.Items) == 3 {
		if host, err = strconv.Atoi(arg.Items[2].Text); err != nil {
			return nil, s.fail(at, "Template error: Fn::Cidr: %q is not a number of bits", arg.Items[2].Text)
		}
	} else { // as many bits as the count leaves
		need := 0
		for 1<<need < count {
			need++
		}
		host = free - need
	}
	if host < 1 || host > free {
		return nil, s.fail(at, "Template error: Fn::Cidr: blocks of %d bits are not in %s", host, block)
	}
	if n := free - host; n < 9 && count > 1<<n {
		return nil, s.fail(at, "Template error: Fn::Cidr: %s has no room for %d blocks of %d bits", block, count, host)
	}
	base := new(big.Int).SetBytes(block.Masked().Addr().AsSlice())
	step := new(big.Int).Lsh(big.NewInt(1), uint(host))
	out := make([]string, count)
	for i := range out {
		raw := make([]byte, width/8)
		a, _ := netip.AddrFromSlice(base.FillBytes(raw))
		out[i] = netip.PrefixFrom(a, width-host).String()
		base.Add(base, step)
	}
	return FromValue(at, out), nil
}

// subPart is a piece of Fn::Sub's string.
type subPart struct {
	text     string
	variable bool
}

// splitSub takes "a ${B.C} ${!D}" apart. What is no valid variable stays text.
func splitSub(s string) []subPart {
	var out []subPart
	for {
		i := strings.Index(s, "${")
		if i < 0 {
			break
		}
		end := strings.IndexByte(s[i:], '}')
		if end < 0 {
			break
		}
		name := s[i+2 : i+end]
		if i > 0 {
			out = append(out, subPart{text: s[:i]})
		}
		if literal, ok := strings.CutPrefix(name, "!"); ok {
			out = append(out, subPart{text: "${" + literal + "}"})
		} else {
			out = append(out, subPart{text: strings.TrimSpace(name), variable: true})
		}
		s = s[i+end+1:]
	}
	if s != "" || out == nil {
		out = append(out, subPart{text: s})
	}
	return out
}

// subParts takes the argument of Fn::Sub apart; vars may be nil.
func subParts(arg *Node) (form, vars *Node, ok bool) {
	if arg.Kind == List && len(arg.Items) == 2 {
		form, vars = arg.Items[0], arg.Items[1]
		return form, vars, form.Kind == String && vars.Kind == Map
	}
	if arg.Kind == List && len(arg.Items) == 1 {
		arg = arg.Items[0]
	}
	return arg, nil, arg.Kind == String
}
