package token

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
	"github.com/dayfly-infra/dayfly/internal/store/sqlite"
)

func TestLinks(t *testing.T) {
	ctx := t.Context()
	clk := &still{time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	st, err := sqlite.Open(ctx, ":memory:", clk)
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	here, there := &Tokens{Store: st, Clock: clk}, &Tokens{Store: st, Clock: clk} // two replicas
	root := access.Principal{ID: "os:0", Name: "root", Role: access.Admin}
	link := func(by access.Principal, role access.Role) string {
		t.Helper()
		l, code, err := here.Link(ctx, by, role)
		if err != nil {
			t.Fatal(err)
		}
		rec, err := st.Get(ctx, access.LinkKind, l.ID)
		if err != nil || strings.Contains(string(rec.Body), code[len(code)-20:]) {
			t.Fatalf("the record holds the code (%v): %s", err, rec.Body)
		}
		return code
	}
	code := link(root, access.Deployer)
	// Neither is the other, and a wrong code with a good id is wrong.
	if _, err := here.Check(ctx, code); !errors.Is(err, ErrUnknown) {
		t.Errorf("a code is a token: %v", err)
	}
	_, other, _ := access.MintCode()
	for _, bad := range []string{"", "x", other, code[:17] + other[17:], access.Prefix + code[4:]} {
		if _, _, err := there.SignIn(ctx, bad); !errors.Is(err, ErrCode) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	s, secret, err := there.SignIn(ctx, code)
	if err != nil || !s.Session || s.Role != access.Deployer || s.By != "root" || s.Expires != clk.now.Add(SessionFor) {
		t.Fatalf("%+v, %v", s, err)
	}
	if got, err := here.Check(ctx, secret); err != nil || got.ID != s.ID {
		t.Errorf("%+v, %v", got, err)
	}
	if _, _, err := here.SignIn(ctx, code); !errors.Is(err, ErrCode) {
		t.Errorf("used twice: %v", err)
	}
	if _, err := here.CheckCode(ctx, code); !errors.Is(err, ErrCode) {
		t.Errorf("a used code is good: %v", err)
	}
	if _, _, err := here.Link(ctx, access.Principal{ID: "token:" + s.ID, Name: s.Name, Role: s.Role}, access.Viewer); fault.KindOf(err) != fault.Denied {
		t.Errorf("a session makes a link: %v", err)
	}
	if err := here.SignOut(ctx, s.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := there.Check(ctx, secret); !errors.Is(err, ErrUnknown) {
		t.Errorf("after its end: %v", err)
	}

	code = link(root, access.Viewer)
	clk.now = clk.now.Add(LinkFor)
	if _, _, err := here.SignIn(ctx, code); !errors.Is(err, ErrCode) {
		t.Errorf("an ended link: %v", err)
	}

	// Asked at once by many, one gets in.
	code = link(root, access.Viewer)
	var in atomic.Int32
	var g sync.WaitGroup
	for i := range 8 {
		g.Go(func() {
			_, _, err := []*Tokens{here, there}[i%2].SignIn(ctx, code)
			if err == nil {
				in.Add(1)
			} else if !errors.Is(err, ErrCode) {
				t.Error(err)
			}
		})
	}
	g.Wait()
	if in.Load() != 1 {
		t.Errorf("%d got in by one link", in.Load())
	}

	// A token's: in its name, never more or longer than it.
	tok, _, err := here.Create(ctx, "root", "ann", access.Deployer, clk.now.Add(2*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	ann := access.Principal{ID: "token:" + tok.ID, Name: "ann", Role: access.Deployer}
	if _, _, err := here.Link(ctx, ann, access.Operator); fault.KindOf(err) != fault.Denied {
		t.Errorf("a deployer lets an operator in: %v", err)
	}
	s, secret, err = there.SignIn(ctx, link(ann, access.Viewer))
	if err != nil || s.Name != "ann" || s.Role != access.Viewer || s.Expires != tok.Expires {
		t.Fatalf("%+v, %v", s, err)
	}
	code = link(ann, access.Deployer)
	if _, err := here.Revoke(ctx, tok.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := there.Check(ctx, secret); !errors.Is(err, ErrUnknown) {
		t.Errorf("a session of a revoked token: %v", err)
	}
	if _, _, err := there.SignIn(ctx, code); !errors.Is(err, ErrCode) {
		t.Errorf("a link of a revoked token: %v", err)
	}

	// Neither links nor sessions grow without end.
	for range mostSessions + 5 {
		if _, _, err := here.SignIn(ctx, link(root, access.Viewer)); err != nil {
			t.Fatal(err)
		}
	}
	ss, err := here.List(ctx)
	if err != nil || len(ss) != mostSessions+1 { // and that of ann
		t.Errorf("%d tokens, %v", len(ss), err)
	}
	for range mostLinks {
		link(root, access.Viewer)
	}
	if _, _, err := here.Link(ctx, root, access.Viewer); fault.KindOf(err) != fault.Unavailable {
		t.Errorf("links without end: %v", err)
	}
	clk.now = clk.now.Add(SessionFor)
	if err := here.Tidy(ctx); err != nil {
		t.Fatal(err)
	}
	ss, _ = here.List(ctx)
	ls, _ := store.List[access.Link](ctx, st, access.LinkKind, "")
	if len(ss)+len(ls) != 0 {
		t.Errorf("%v and %v are left", ss, ls)
	}
}
