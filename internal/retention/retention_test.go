package retention

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2030, 5, 1, 0, 0, 0, 0, time.UTC)

func ago(days int) time.Time { return now.Add(-time.Duration(days) * 24 * time.Hour) }

var policy = Policy{Keep: 90 * 24 * time.Hour, Reports: 400 * 24 * time.Hour, Last: 2}

func TestJudge(t *testing.T) {
	for name, c := range map[string]struct {
		records []Record
		want    string // what stays; ~ is figures only
	}{
		"nothing":                       {nil, ""},
		"what lives stays, however old": {[]Record{{Key: "a"}}, "a"},
		"what ended lately stays, what ended long ago goes": {[]Record{{Key: "a", Ended: ago(89)}, {Key: "b", Ended: ago(90)}}, "a"},
		"what reports count stays for them":                 {[]Record{{Key: "a", Ended: ago(399), Counted: true}, {Key: "b", Ended: ago(400), Counted: true}}, "~a"},
		"what may have an effect stays":                     {[]Record{{Key: "a", Ended: ago(4000), Held: "a call"}}, "a"},
		"what is named by what lives stays": {[]Record{
			{Key: "g", Names: []string{"r"}}, {Key: "r", Ended: ago(900)}, {Key: "r2", Ended: ago(900)}}, "g r"},
		"and what that names":                {[]Record{{Key: "a", Names: []string{"b"}}, {Key: "b", Ended: ago(900), Names: []string{"c"}}, {Key: "c", Ended: ago(900)}}, "a b c"},
		"figures need no release":            {[]Record{{Key: "g", Ended: ago(100), Counted: true, Names: []string{"r"}}, {Key: "r", Ended: ago(900)}}, "~g"},
		"a name that is not there is none":   {[]Record{{Key: "g", Names: []string{"r", ""}, Of: "e"}}, "g"},
		"what only names each other goes":    {[]Record{{Key: "a", Ended: ago(900), Names: []string{"b"}}, {Key: "b", Ended: ago(900), Names: []string{"a"}}}, ""},
		"an environment stays for its parts": {[]Record{{Key: "e", Ended: ago(900)}, {Key: "e/1", Ended: ago(100), Counted: true, Of: "e"}}, "~e ~e/1"},
		"the last of an environment that lives stay, with their releases": {[]Record{{Key: "e"},
			{Key: "e/9", Number: 9, Family: "e", Head: "e", Of: "e", Ended: ago(900), Names: []string{"r9"}},
			{Key: "e/10", Number: 10, Family: "e", Head: "e", Of: "e", Ended: ago(900)},
			{Key: "e/8", Number: 8, Family: "e", Head: "e", Of: "e", Ended: ago(900), Names: []string{"r8"}},
			{Key: "r8", Ended: ago(900)}, {Key: "r9", Ended: ago(900)}}, "e e/10 e/9 r9"},
		"all of one that is gone go": {[]Record{{Key: "e", Ended: ago(900)},
			{Key: "e/1", Number: 1, Family: "e", Head: "e", Of: "e", Ended: ago(900)}, {Key: "e/2", Number: 2, Family: "e", Head: "e", Of: "e", Ended: ago(900)}}, ""},
		"of one that reports count the last need nothing": {[]Record{{Key: "e", Ended: ago(100), Counted: true},
			{Key: "e/1", Number: 1, Family: "e", Head: "e", Of: "e", Ended: ago(100), Counted: true, Names: []string{"r"}}, {Key: "r", Ended: ago(100)}}, "~e ~e/1"},
		"the highest number stays as long as the record that counts on from it": {[]Record{{Key: "e", Ended: ago(350), Counted: true},
			{Key: "e/4", Number: 4, Family: "e", Head: "e", Of: "e", Ended: ago(900)}, {Key: "e/5", Number: 5, Family: "e", Head: "e", Of: "e", Ended: ago(900), Names: []string{"r"}},
			{Key: "e/3", Number: 3, Family: "e", Head: "e", Of: "e", Ended: ago(900)}, {Key: "r", Ended: ago(900)}}, "~e ~e/4 ~e/5"},
		"a family without a head has no end": {[]Record{{Key: "r1", Family: "shop", Number: 1, Ended: ago(900)}, {Key: "r2", Family: "shop", Number: 2, Ended: ago(900)}, {Key: "r3", Family: "shop", Number: 3, Ended: ago(900)}}, "r2 r3"},
	} {
		for range 5 {
			rand.Shuffle(len(c.records), func(i, j int) { c.records[i], c.records[j] = c.records[j], c.records[i] })
			var got []string
			for k, f := range Judge(c.records, policy, now) {
				if f == Figures {
					k = "~" + k
				}
				got = append(got, k)
			}
			slices.SortFunc(got, func(a, b string) int {
				return strings.Compare(strings.TrimPrefix(a, "~"), strings.TrimPrefix(b, "~"))
			})
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("%s: %q stays, not %q", name, s, c.want)
			}
		}
	}
}

// Of any records: what lives, may have an effect or is needed by what stays is
// there afterwards; a second look forgets nothing more; as time goes by nothing
// comes to be kept again.
func TestJudgeAnything(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 7))
		n := 1 + r.IntN(25)
		key := func() string { return fmt.Sprint("k", r.IntN(n)) }
		var rs []Record
		for i := range n {
			v := Record{Key: fmt.Sprint("k", i), Ended: ago(r.IntN(600)), Counted: r.IntN(3) == 0, Number: int64(r.IntN(9))}
			if r.IntN(8) == 0 {
				v.Ended = time.Time{}
			}
			if r.IntN(8) == 0 {
				v.Held = "a call"
			}
			if r.IntN(3) == 0 {
				v.Of = key()
			}
			for range r.IntN(3) {
				v.Names = append(v.Names, key())
			}
			if r.IntN(2) == 0 { // a family has one head, or none
				f := r.IntN(4)
				if v.Family = fmt.Sprint("f", f); f > 0 && f < n {
					v.Head = fmt.Sprint("k", f)
				}
			}
			rs = append(rs, v)
		}
		check(t, seed, rs)
	}
}

func check(t *testing.T, seed uint64, rs []Record) {
	t.Helper()
	fate := Judge(rs, policy, now)
	bad := func(format string, args ...any) {
		t.Helper()
		t.Errorf("seed %d: "+format, append([]any{seed}, args...)...)
	}
	var left []Record
	there := map[string]bool{}
	for _, r := range rs {
		there[r.Key] = true
	}
	ranks := map[string][]Record{}
	for _, r := range rs {
		f := fate[r.Key]
		if f != Forgotten {
			left = append(left, r)
		}
		if f != Whole && (r.Ended.IsZero() || r.Held != "" || now.Sub(r.Ended) < policy.Keep) {
			bad("%s must stay", r.Key)
		}
		if f == Forgotten && r.Counted && now.Sub(r.Ended) < policy.Reports {
			bad("%s is counted", r.Key)
		}
		if f != Forgotten && there[r.Of] && fate[r.Of] == Forgotten {
			bad("%s is of %s, which goes", r.Key, r.Of)
		}
		for _, x := range r.Names {
			if f == Whole && there[x] && fate[x] != Whole {
				bad("%s names %s, which does not stay", r.Key, x)
			}
		}
		if r.Family != "" && (r.Head == "" || fate[r.Head] != Forgotten) {
			ranks[r.Family] = append(ranks[r.Family], r)
		}
	}
	for f, list := range ranks {
		kept := 0
		for _, r := range list {
			if as := fate[r.Head]; fate[r.Key] == Whole || r.Head != "" && fate[r.Key] >= as {
				kept++
			}
		}
		if kept < min(policy.Last, len(list)) {
			bad("%d of the family %s stay", kept, f)
		}
	}
	again := Judge(left, policy, now)
	for _, r := range left {
		if again[r.Key] != fate[r.Key] {
			bad("a second look says %d of %s, and the first said %d", again[r.Key], r.Key, fate[r.Key])
		}
	}
	later := Judge(rs, policy, now.Add(50*24*time.Hour))
	for _, r := range rs {
		if later[r.Key] > fate[r.Key] {
			bad("%s is kept again", r.Key)
		}
	}
}
