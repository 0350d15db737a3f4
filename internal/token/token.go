// Package token keeps the tokens by which the API knows who asks: it makes,
// checks, lists and revokes them, and makes the links by which a browser signs
// in. What a token may do is in package access; it
// must not know HTTP.
package token

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

const (
	// Default and Longest are how long a token lives.
	Default = 90 * 24 * time.Hour
	Longest = 366 * 24 * time.Hour
	// Most is how many tokens there may be.
	Most = 1000
	// precision of when a token was last used: a write each time would be too many.
	precision = time.Minute
)

// Tokens are the tokens in a store.
type Tokens struct {
	Store store.Store
	Clock clock.Clock
}

// Create makes a token and returns its secret, which is not kept.
func (k *Tokens) Create(ctx context.Context, by, name string, role access.Role, expires time.Time) (access.Token, string, error) {
	now := k.Clock.Now()
	bad := func(format string, a ...any) (access.Token, string, error) {
		return access.Token{}, "", &fault.Error{Kind: fault.Invalid, Op: "create a token", Object: name, Message: fmt.Sprintf(format, a...)}
	}
	switch {
	case !slices.Contains(access.Roles, role):
		return bad("there is no role %q, only viewer, deployer, operator and admin", role)
	case strings.TrimSpace(name) == "":
		return bad("a token has a name")
	case expires.IsZero():
		expires = now.Add(Default)
	case !expires.After(now):
		return bad("its end is in the past")
	case expires.Sub(now) > Longest:
		return bad("a token lives a year at most")
	}
	all, err := store.List[access.Token](ctx, k.Store, access.TokenKind, "")
	if err != nil {
		return access.Token{}, "", err
	}
	all = slices.DeleteFunc(all, func(t access.Token) bool { return t.Session })
	if len(all) >= Most {
		return access.Token{}, "", &fault.Error{Kind: fault.Conflict, Op: "create a token", Object: name, Message: fmt.Sprintf("there are %d already", len(all)), Hint: "dayfly token list, dayfly token revoke ID"}
	}
	for _, t := range all {
		if t.Name == name && t.Expires.After(now) {
			return access.Token{}, "", &fault.Error{Kind: fault.Conflict, Op: "create a token", Object: name, Message: "a token has this name: " + t.ID, Hint: "dayfly token revoke " + t.ID}
		}
	}
	id, secret, hash := access.Mint()
	t := access.Token{ID: id, Name: name, Role: role, Hash: hash, By: by, Created: now, Expires: expires}
	if err := k.Store.Apply(ctx, store.NoEpoch, store.Put(access.TokenKind, id, 0, t)); err != nil {
		return access.Token{}, "", err
	}
	return t, secret, nil
}

// List gives all tokens, those that ended too.
func (k *Tokens) List(ctx context.Context) ([]access.Token, error) {
	return store.List[access.Token](ctx, k.Store, access.TokenKind, "")
}

// Revoke ends a token at once.
func (k *Tokens) Revoke(ctx context.Context, id string) (access.Token, error) {
	t, version, err := store.Get[access.Token](ctx, k.Store, access.TokenKind, id)
	if err == nil {
		err = k.Store.Apply(ctx, store.NoEpoch, store.Delete(access.TokenKind, id, version))
		if errors.Is(err, store.ErrConflict) { // it was used meanwhile
			err = k.Store.Apply(ctx, store.NoEpoch, store.Delete(access.TokenKind, id, store.Any))
		}
	}
	if errors.Is(err, store.ErrNotFound) {
		return t, &fault.Error{Kind: fault.NotFound, Op: "revoke", Object: "token " + id, Message: "there is no such token", Hint: "dayfly token list shows their ids"}
	}
	return t, err
}

// ErrUnknown is the one answer for every secret that is not good, so that
// nobody learns why.
var ErrUnknown = &fault.Error{Kind: fault.Denied, Op: "authenticate", Message: "the token is not known, has ended or was revoked", Hint: "an admin makes a new one: dayfly token create"}

// nobody is compared with when there is no token of that id, so that the answer
// takes as long.
var nobody = access.Token{Hash: make([]byte, 32)}

// Check returns the token that a secret is of, or ErrUnknown.
func (k *Tokens) Check(ctx context.Context, secret string) (access.Token, error) {
	id := access.TokenID(secret)
	if id == "" {
		id = "none" // looked up all the same
	}
	t, version, err := store.Get[access.Token](ctx, k.Store, access.TokenKind, id)
	if errors.Is(err, store.ErrNotFound) {
		nobody.Matches(secret)
		return access.Token{}, ErrUnknown
	}
	if err != nil {
		return access.Token{}, err
	}
	now := k.Clock.Now()
	if !t.Matches(secret) || !t.Expires.After(now) {
		return access.Token{}, ErrUnknown
	}
	if t.Of != "" { // a session lives no longer than the token that it is of
		if _, err := k.Store.Get(ctx, access.TokenKind, t.Of); errors.Is(err, store.ErrNotFound) {
			return access.Token{}, ErrUnknown
		} else if err != nil {
			return access.Token{}, err
		}
	}
	if now.Sub(t.Used) >= precision {
		t.Used = now
		// For people alone: whoever was faster, or a store that only reads, is
		// no reason to turn somebody away.
		_ = k.Store.Apply(ctx, store.NoEpoch, store.Put(access.TokenKind, id, version, t))
	}
	return t, nil
}
