package token

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

type still struct{ now time.Time }

func (s *still) Now() time.Time                       { return s.now }
func (s *still) After(time.Duration) <-chan time.Time { return nil }

func TestTokens(t *testing.T) {
	ctx := t.Context()
	clk := &still{time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	st, err := sqlite.Open(ctx, ":memory:", clk)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	k := &Tokens{Store: st, Clock: clk}
	tok, secret, err := k.Create(ctx, "root", "ci", access.Deployer, time.Time{})
	if err != nil || tok.Expires != clk.now.Add(Default) {
		t.Fatalf("%+v, %v", tok, err)
	}
	rec, err := st.Get(ctx, access.TokenKind, tok.ID)
	if err != nil || strings.Contains(string(rec.Body), secret) || strings.Contains(string(rec.Body), secret[len(secret)-20:]) {
		t.Fatalf("the record holds the secret (%v): %s", err, rec.Body)
	}
	for name, c := range map[string]struct {
		name string
		role access.Role
		end  time.Time
		want fault.Kind
	}{
		"role": {"x", "root", time.Time{}, fault.Invalid}, "no name": {" ", access.Viewer, time.Time{}, fault.Invalid},
		"past": {"x", access.Viewer, clk.now, fault.Invalid}, "long": {"x", access.Viewer, clk.now.Add(2 * Longest), fault.Invalid},
		"twice": {"ci", access.Viewer, time.Time{}, fault.Conflict},
	} {
		if _, _, err := k.Create(ctx, "root", c.name, c.role, c.end); fault.KindOf(err) != c.want || err == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	got, err := k.Check(ctx, secret)
	if err != nil || got.ID != tok.ID || got.Role != access.Deployer || got.Used != clk.now {
		t.Fatalf("%+v, %v", got, err)
	}
	// It is used again at once: no write.
	before, _ := st.Revision(ctx)
	if _, err := k.Check(ctx, secret); err != nil {
		t.Fatal(err)
	}
	if after, _ := st.Revision(ctx); after != before {
		t.Error("each use is a write")
	}
	// Another secret with the same id.
	_, other, _ := access.Mint()
	forged := access.Prefix + tok.ID + other[len(access.Prefix)+12:]
	for _, bad := range []string{"", "x", other, forged} {
		if _, err := k.Check(ctx, bad); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	clk.now = tok.Expires
	if _, err := k.Check(ctx, secret); !errors.Is(err, ErrUnknown) {
		t.Errorf("a token after its end: %v", err)
	}
	clk.now = clk.now.Add(-time.Hour)
	if _, err := k.Revoke(ctx, tok.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Check(ctx, secret); !errors.Is(err, ErrUnknown) {
		t.Errorf("a revoked token: %v", err)
	}
	if _, err := k.Revoke(ctx, tok.ID); fault.KindOf(err) != fault.NotFound {
		t.Errorf("revoked twice: %v", err)
	}
}
