package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"regexp"
	"time"
)

// TokenKind is the kind of token records; the name is the token's id.
const TokenKind = "token"

// Token is what is kept of a token: never the secret, only its digest. A
// secret has 256 random bits, so a plain digest cannot be searched.
type Token struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Role    Role      `json:"role"`
	Hash    []byte    `json:"hash"`
	By      string    `json:"by"` // who made it
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"used,omitzero"` // last, to the minute
	// Session: it was made by a sign-in link, for a browser. Of is the id of the
	// token whose holder made the link, which ends its sessions when it ends; ""
	// when that was a user of the server's machine.
	Session bool   `json:"session,omitempty"`
	Of      string `json:"of,omitempty"`
}

// LinkKind is the kind of link records; the name is the link's id.
const LinkKind = "link"

// Link is what is kept of a sign-in link until its code is exchanged, once, for
// a session: never the code, only its digest.
type Link struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"` // of the session
	Role    Role      `json:"role"`
	Hash    []byte    `json:"hash"`
	By      string    `json:"by"` // who made it
	Of      string    `json:"of,omitempty"`
	Expires time.Time `json:"expires"`
	Until   time.Time `json:"until,omitzero"` // when the session ends at the latest
}

const (
	idBytes     = 6
	secretBytes = 32
)

// Prefix of every token, so that scanners for leaked secrets know them.
const Prefix = "dfl_"

// codePrefix is that of the codes of links, which are no tokens.
const codePrefix = "dfc_"

const secretForm = `([0-9a-f]{12})_([A-Za-z0-9_-]{43})$`

var (
	tokenForm = regexp.MustCompile(`^` + Prefix + secretForm)
	codeForm  = regexp.MustCompile(`^` + codePrefix + secretForm)
)

// Mint makes a new token's id, secret and digest.
func Mint() (id, secret string, hash []byte) { return mint(Prefix) }

// MintCode makes a new link's id, code and digest.
func MintCode() (id, code string, hash []byte) { return mint(codePrefix) }

func mint(prefix string) (id, secret string, hash []byte) {
	b := make([]byte, idBytes+secretBytes)
	_, _ = rand.Read(b) // it does not fail: crypto/rand ends the program instead
	id = hex.EncodeToString(b[:idBytes])
	secret = prefix + id + "_" + base64.RawURLEncoding.EncodeToString(b[idBytes:])
	return id, secret, digest(secret)
}

// TokenID is the id in a secret, "" when it has not the form of one.
func TokenID(secret string) string {
	if m := tokenForm.FindStringSubmatch(secret); m != nil {
		return m[1]
	}
	return ""
}

// CodeID is the id in a link's code, "" when it has not the form of one.
func CodeID(code string) string {
	if m := codeForm.FindStringSubmatch(code); m != nil {
		return m[1]
	}
	return ""
}

// Matches compares in constant time.
func (l Link) Matches(code string) bool {
	return subtle.ConstantTimeCompare(l.Hash, digest(code)) == 1
}

// Matches compares in constant time.
func (t Token) Matches(secret string) bool {
	return subtle.ConstantTimeCompare(t.Hash, digest(secret)) == 1
}

func digest(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
