package access

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestRoles(t *testing.T) {
	for i, have := range Roles {
		for j, need := range Roles {
			if got := have.Allows(need); got != (i >= j) {
				t.Errorf("%s may do what needs %s: %v", have, need, got)
			}
		}
	}
	for _, r := range []Role{"", "root", "Admin"} {
		if r.Allows(Viewer) || Admin.Allows(r) {
			t.Errorf("%q is a role", r)
		}
	}
	for op, need := range Needs {
		if !Admin.Allows(need) {
			t.Errorf("nobody may %s", op)
		}
	}
}

func TestTokens(t *testing.T) {
	id, secret, hash := Mint()
	_, other, _ := Mint()
	if TokenID(secret) != id || !strings.HasPrefix(secret, Prefix) || bytes.Contains(hash, []byte(secret)) {
		t.Fatalf("%s of %s", id, secret)
	}
	tok := Token{ID: id, Hash: hash}
	if !tok.Matches(secret) || tok.Matches(other) || tok.Matches("") || tok.Matches(secret[:len(secret)-1]) {
		t.Error("the wrong secrets match")
	}
	for _, bad := range []string{"", "dfl_", secret + "x", " " + secret, strings.ToUpper(secret), strings.Replace(secret, "dfl_", "gho_", 1)} {
		if TokenID(bad) != "" {
			t.Errorf("%q has an id", bad)
		}
	}
}

func TestBuckets(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	b := &Buckets{Rate: 2, Burst: 3}
	for range 3 {
		if w := b.Take("a", now); w != 0 {
			t.Fatalf("waits %s within the burst", w)
		}
	}
	if w := b.Take("a", now); w != 500*time.Millisecond {
		t.Errorf("an empty bucket waits %s", w)
	}
	if w := b.Take("b", now); w != 0 {
		t.Errorf("another waits %s", w)
	}
	if b.Empty("a", now) == 0 || b.Empty("nobody", now) != 0 {
		t.Error("who is empty is wrong")
	}
	if w := b.Take("a", now.Add(500*time.Millisecond)); w != 0 {
		t.Errorf("it does not fill: %s", w)
	}
	// Memory is bounded, and full buckets are forgotten.
	for i := range maxBuckets + 100 {
		b.Take(fmt.Sprint(i), now)
	}
	if len(b.byID) > maxBuckets+1 {
		t.Errorf("%d buckets", len(b.byID))
	}
	if b.Take("new", now.Add(time.Hour)); len(b.byID) > 2 {
		t.Errorf("%d buckets after an hour", len(b.byID))
	}
}
