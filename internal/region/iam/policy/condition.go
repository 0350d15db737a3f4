package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// condition is one operator applied to one key.
type condition struct {
	op       string // without its prefix and suffix
	negated  bool
	ifExists bool
	forAll   bool // ForAllValues: holds where the key is absent
	unknown  bool
	key      string // lower case
	values   []string
}

// comparison tells whether the request's value fits one of the policy's.
type comparison func(want, got string) bool

var comparisons = map[string]comparison{
	"StringEquals":             func(w, g string) bool { return w == g },
	"StringEqualsIgnoreCase":   strings.EqualFold,
	"StringLike":               match,
	"ArnEquals":                matchARN,
	"ArnLike":                  matchARN,
	"Bool":                     func(w, g string) bool { return strings.EqualFold(w, g) },
	"BinaryEquals":             func(w, g string) bool { return w == g },
	"NumericEquals":            numeric(func(c int) bool { return c == 0 }),
	"NumericLessThan":          numeric(func(c int) bool { return c < 0 }),
	"NumericLessThanEquals":    numeric(func(c int) bool { return c <= 0 }),
	"NumericGreaterThan":       numeric(func(c int) bool { return c > 0 }),
	"NumericGreaterThanEquals": numeric(func(c int) bool { return c >= 0 }),
	"DateEquals":               date(func(c int) bool { return c == 0 }),
	"DateLessThan":             date(func(c int) bool { return c < 0 }),
	"DateLessThanEquals":       date(func(c int) bool { return c <= 0 }),
	"DateGreaterThan":          date(func(c int) bool { return c > 0 }),
	"DateGreaterThanEquals":    date(func(c int) bool { return c >= 0 }),
	"IpAddress":                matchIP,
}

// negations are the operators that hold where their positive one does not.
var negations = map[string]string{
	"StringNotEquals": "StringEquals", "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase", "StringNotLike": "StringLike",
	"ArnNotEquals": "ArnEquals", "ArnNotLike": "ArnLike", "NumericNotEquals": "NumericEquals", "DateNotEquals": "DateEquals",
	"NotIpAddress": "IpAddress",
}

func newCondition(op, key string, values []string) condition {
	c := condition{op: op, key: strings.ToLower(key), values: values}
	if rest, ok := strings.CutPrefix(c.op, "ForAllValues:"); ok {
		c.op, c.forAll = rest, true
	} else {
		c.op = strings.TrimPrefix(c.op, "ForAnyValue:")
	}
	if rest, ok := strings.CutSuffix(c.op, "IfExists"); ok {
		c.op, c.ifExists = rest, true
	}
	if pos, ok := negations[c.op]; ok {
		c.op, c.negated = pos, true
	}
	c.unknown = comparisons[c.op] == nil && c.op != "Null" || c.op == "Null" && c.ifExists
	return c
}

// holds evaluates the condition in a statement that denies or allows. What is
// not understood never opens anything: it makes a denial hold and a
// permission not.
func (c condition) holds(ctx map[string]string, deny bool) bool {
	if c.unknown {
		return deny
	}
	got, there := ctx[c.key]
	if c.op == "Null" {
		return slices.ContainsFunc(c.values, func(v string) bool { return strings.EqualFold(v, strconv.FormatBool(!there)) })
	}
	if !there {
		return c.ifExists || c.forAll || c.negated
	}
	for _, want := range c.values {
		want, ok := expand(want, ctx)
		if !ok {
			if deny != c.negated {
				return deny
			}
			continue
		}
		if c.op != "StringLike" && c.op != "ArnLike" && c.op != "ArnEquals" {
			want = strings.NewReplacer(string(literalStar), "*", string(literalQuestion), "?").Replace(want)
		}
		if comparisons[c.op](want, got) {
			return !c.negated
		}
	}
	return c.negated
}

// matchARN compares ARNs part by part: a * does not reach over a colon of the
// first five.
func matchARN(want, got string) bool {
	w, g := strings.SplitN(want, ":", 6), strings.SplitN(got, ":", 6)
	if len(w) != 6 || len(g) != 6 {
		return want == "*" && len(g) == 6
	}
	for i := range w {
		if !match(w[i], g[i]) {
			return false
		}
	}
	return true
}

func numeric(ok func(int) bool) comparison {
	return func(want, got string) bool {
		w, err1 := strconv.ParseFloat(want, 64)
		g, err2 := strconv.ParseFloat(got, 64)
		if err1 != nil || err2 != nil {
			return false
		}
		switch {
		case g < w:
			return ok(-1)
		case g > w:
			return ok(1)
		}
		return g == w && ok(0)
	}
}

func date(ok func(int) bool) comparison {
	parse := func(s string) (time.Time, bool) {
		for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z", "2006-01-02"} {
			if t, err := time.Parse(layout, s); err == nil {
				return t, true
			}
		}
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return time.Unix(n, 0), true
		}
		return time.Time{}, false
	}
	return func(want, got string) bool {
		w, ok1 := parse(want)
		g, ok2 := parse(got)
		return ok1 && ok2 && ok(g.Compare(w))
	}
}

func matchIP(want, got string) bool {
	addr, err := netip.ParseAddr(got)
	if err != nil {
		return false
	}
	if p, err := netip.ParsePrefix(want); err == nil {
		return p.Contains(addr.Unmap())
	}
	w, err := netip.ParseAddr(want)
	return err == nil && w == addr.Unmap()
}
