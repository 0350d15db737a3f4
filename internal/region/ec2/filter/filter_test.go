package filter

import (
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/api/ec2api"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		p, s string
		want bool
	}{
		{"web", "web", true}, {"web", "webs", false}, {"w*", "web", true}, {"*", "", true}, {"", "", true}, {"", "a", false},
		{"w?b", "web", true}, {"w?b", "wb", false}, {"*b*", "abc", true}, {`\*`, "*", true}, {`\*`, "a", false}, {`a\?`, "a?", true}, {`a\?`, "ab", false},
		{"a*b*c", "aXbYbZc", true}, {"a*b*c", "aXbY", false}, {`\\`, `\`, true}, {"é?", "éa", true}, {"a**", "a", true},
	} {
		if got := Match(c.p, c.s); got != c.want {
			t.Errorf("Match(%q, %q) = %v", c.p, c.s, got)
		}
	}
	start := time.Now()
	Match(strings.Repeat("a*", 500)+"b", strings.Repeat("a", 10000))
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("a hostile pattern took %s", d)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a*b?c", "axxbyc")
	f.Fuzz(func(t *testing.T, p, s string) {
		if len(p) > 100 || len(s) > 1000 {
			return
		}
		Match(p, s)
		if !strings.ContainsAny(p, `*?\`) && strings.ToValidUTF8(p, "") == p && strings.ToValidUTF8(s, "") == s && Match(p, s) != (p == s) {
			t.Errorf("%q against %q", p, s)
		}
	})
}

type thing struct {
	name string
	tags []*ec2api.Tag
}

var fields = Fields[thing]{
	Tags: func(t thing) []*ec2api.Tag { return t.tags },
	By:   map[string]func(thing) []string{"name": func(t thing) []string { return One(t.name) }},
}

func TestCompile(t *testing.T) {
	a := thing{"a", []*ec2api.Tag{{Key: "env", Value: "dev"}}}
	b := thing{"b", []*ec2api.Tag{{Key: "env", Value: "prod"}, {Key: "x:y", Value: ""}}}
	for _, c := range []struct {
		name         string
		values       []string
		wantA, wantB bool
		err          string
	}{
		{"name", []string{"a", "z"}, true, false, ""},
		{"tag:env", []string{"p*"}, false, true, ""},
		{"tag-key", []string{"env"}, true, true, ""},
		{"tag:x:y", []string{""}, false, true, ""},
		{"tag-value", []string{"dev"}, true, false, ""},
		{"nonsense", []string{"a"}, false, false, "InvalidParameterValue"},
		{"name", nil, false, false, "InvalidParameterValue"},
		{"name", make([]string, MaxValues+1), false, false, "FilterLimitExceeded"},
	} {
		m, err := fields.Compile([]*ec2api.Filter{{Name: c.name, Values: c.values}})
		if c.err != "" {
			if err == nil || !strings.HasPrefix(err.Error(), c.err) {
				t.Errorf("%s: %v, want %s", c.name, err, c.err)
			}
			continue
		}
		if err != nil || m(a) != c.wantA || m(b) != c.wantB {
			t.Errorf("%s %v: %v %v %v", c.name, c.values, m(a), m(b), err)
		}
	}
}

func TestPage(t *testing.T) {
	items := []string{"a", "b", "c", "d", "e", "f", "g"}
	id := func(s string) string { return s }
	p, next, err := Page(items, id, new(int64(5)), 5, 1000, "")
	if err != nil || strings.Join(p, "") != "abcde" || next == "" {
		t.Fatalf("%v %q %v", p, next, err)
	}
	// e goes and bb comes between the calls: nothing is seen twice or missed.
	p, next, err = Page([]string{"a", "b", "bb", "c", "d", "f", "g"}, id, new(int64(5)), 5, 1000, next)
	if err != nil || strings.Join(p, "") != "fg" || next != "" {
		t.Fatalf("%v %q %v", p, next, err)
	}
	if _, _, err := Page(items, id, new(int64(4)), 5, 1000, ""); err == nil {
		t.Error("a page too small was accepted")
	}
	if _, _, err := Page(items, id, nil, 5, 1000, "garbage!"); err == nil {
		t.Error("a broken token was accepted")
	}
}
