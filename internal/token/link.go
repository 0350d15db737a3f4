package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

const (
	// LinkFor is how long a link's code can be exchanged, SessionFor how long the
	// session then lasts: a day's work.
	LinkFor    = time.Minute
	SessionFor = 12 * time.Hour
	// mostLinks and mostSessions are how many one maker has at the same time.
	mostLinks    = 5
	mostSessions = 20
)

// ErrCode is the one answer for every code that is not good.
var ErrCode = &fault.Error{Kind: fault.Denied, Op: "sign in", Message: "the link is not known, was used or has ended", Hint: fmt.Sprintf("a link works once, within %.0f s: dayfly console makes a new one", LinkFor.Seconds())}

// Link makes a link for a session with a role that its maker has, and returns
// its code, which is not kept. The session acts in the name of its maker's token.
func (k *Tokens) Link(ctx context.Context, by access.Principal, role access.Role) (access.Link, string, error) {
	now := k.Clock.Now()
	bad := func(kind fault.Kind, hint, format string, a ...any) (access.Link, string, error) {
		return access.Link{}, "", &fault.Error{Kind: kind, Op: "make a link to sign in", Message: fmt.Sprintf(format, a...), Hint: hint}
	}
	if !slices.Contains(access.Roles, role) {
		return bad(fault.Invalid, "", "there is no role %q, only viewer, deployer, operator and admin", role)
	}
	if !by.Role.Allows(role) {
		return bad(fault.Denied, "dayfly console --role "+string(by.Role), "%s is %s and cannot let somebody in as %s", by.Name, by.Role, role)
	}
	id, code, hash := access.MintCode()
	l := access.Link{ID: id, Name: "console-" + id[:8], Role: role, Hash: hash, By: by.Name, Expires: now.Add(LinkFor)}
	if of, ok := strings.CutPrefix(by.ID, "token:"); ok {
		t, _, err := store.Get[access.Token](ctx, k.Store, access.TokenKind, of)
		if err != nil {
			return access.Link{}, "", err
		}
		if t.Session {
			return bad(fault.Denied, "dayfly console with the token itself", "a session lets nobody else in")
		}
		l.Name, l.Of, l.Until = t.Name, of, t.Expires
	}
	all, err := store.List[access.Link](ctx, k.Store, access.LinkKind, "")
	if err != nil {
		return access.Link{}, "", err
	}
	ws := []store.Write{store.Put(access.LinkKind, id, 0, l)}
	live := 0
	for _, o := range all {
		switch {
		case !o.Expires.After(now):
			ws = append(ws, store.Delete(access.LinkKind, o.ID, store.Any))
		case o.By == l.By && o.Of == l.Of:
			live++
		}
	}
	if live >= mostLinks {
		return bad(fault.Unavailable, fmt.Sprintf("use one, or wait %.0f s", LinkFor.Seconds()), "%s has %d links that nobody used yet", by.Name, live)
	}
	return l, code, k.Store.Apply(ctx, store.NoEpoch, ws...)
}

// CheckCode returns the link that a code is of, or ErrCode. The code stays good.
func (k *Tokens) CheckCode(ctx context.Context, code string) (access.Link, error) {
	l, _, err := k.link(ctx, code)
	return l, err
}

func (k *Tokens) link(ctx context.Context, code string) (access.Link, int64, error) {
	id := access.CodeID(code)
	if id == "" {
		id = "none" // looked up all the same
	}
	l, version, err := store.Get[access.Link](ctx, k.Store, access.LinkKind, id)
	if errors.Is(err, store.ErrNotFound) {
		nobody.Matches(code)
		return access.Link{}, 0, ErrCode
	}
	if err != nil {
		return access.Link{}, 0, err
	}
	if !l.Matches(code) || !l.Expires.After(k.Clock.Now()) {
		return access.Link{}, 0, ErrCode
	}
	return l, version, nil
}

// SignIn exchanges a code for a session, once: the link goes in the write that
// makes the session, whichever replica is asked.
func (k *Tokens) SignIn(ctx context.Context, code string) (access.Token, string, error) {
	now := k.Clock.Now()
	l, version, err := k.link(ctx, code)
	if err != nil {
		return access.Token{}, "", err
	}
	id, secret, hash := access.Mint()
	t := access.Token{ID: id, Name: l.Name, Role: l.Role, Hash: hash, By: l.By, Created: now, Expires: now.Add(SessionFor), Session: true, Of: l.Of}
	ws := []store.Write{store.Delete(access.LinkKind, l.ID, version), store.Put(access.TokenKind, id, 0, t)}
	all, err := k.List(ctx)
	if err != nil {
		return access.Token{}, "", err
	}
	var mine []access.Token
	known := l.Of == ""
	for _, o := range all {
		switch {
		case o.ID == l.Of:
			known = true
		case o.Session && o.By == l.By && o.Of == l.Of:
			mine = append(mine, o)
		}
	}
	if !known || (l.Of != "" && !l.Until.After(now)) {
		return access.Token{}, "", ErrCode
	}
	if l.Of != "" && l.Until.Before(t.Expires) {
		t.Expires = l.Until
		ws[1] = store.Put(access.TokenKind, id, 0, t)
	}
	// The oldest go.
	slices.SortFunc(mine, func(a, b access.Token) int { return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.ID, b.ID)) })
	for _, o := range mine[:max(len(mine)-mostSessions+1, 0)] {
		ws = append(ws, store.Delete(access.TokenKind, o.ID, store.Any))
	}
	err = k.Store.Apply(ctx, store.NoEpoch, ws...)
	if errors.Is(err, store.ErrConflict) { // somebody was faster
		return access.Token{}, "", ErrCode
	}
	return t, secret, err
}

// SignOut ends a session; tokens that people keep stay.
func (k *Tokens) SignOut(ctx context.Context, id string) error {
	t, _, err := store.Get[access.Token](ctx, k.Store, access.TokenKind, id)
	if err == nil && t.Session {
		err = k.Store.Apply(ctx, store.NoEpoch, store.Delete(access.TokenKind, id, store.Any))
	}
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	return err
}

// Tidy removes sessions and links that have ended.
func (k *Tokens) Tidy(ctx context.Context) error {
	now := k.Clock.Now()
	ts, err := k.List(ctx)
	if err != nil {
		return err
	}
	ls, err := store.List[access.Link](ctx, k.Store, access.LinkKind, "")
	if err != nil {
		return err
	}
	have := map[string]bool{"": true}
	for _, t := range ts {
		have[t.ID] = true
	}
	var ws []store.Write
	for _, t := range ts {
		if t.Session && (!t.Expires.After(now) || !have[t.Of]) {
			ws = append(ws, store.Delete(access.TokenKind, t.ID, store.Any))
		}
	}
	for _, l := range ls {
		if !l.Expires.After(now) {
			ws = append(ws, store.Delete(access.LinkKind, l.ID, store.Any))
		}
	}
	return k.Store.Apply(ctx, store.NoEpoch, ws...)
}
