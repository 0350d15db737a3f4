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
}

const (
	idBytes     = 6
	secretBytes = 32
)

// Prefix of every token, so that scanners for leaked secrets know them.
const Prefix = "dfl_"

var tokenForm = regexp.MustCompile(`^` + Prefix + `([0-9a-f]{12})_([A-Za-z0-9_-]{43})$`)

// Mint makes a new token's id, secret and digest.
func Mint() (id, secret string, hash []byte) {
	b := make([]byte, idBytes+secretBytes)
	_, _ = rand.Read(b) // it does not fail: crypto/rand ends the program instead
	id = hex.EncodeToString(b[:idBytes])
	secret = Prefix + id + "_" + base64.RawURLEncoding.EncodeToString(b[idBytes:])
	return id, secret, digest(secret)
}

// TokenID is the id in a secret, "" when it has not the form of one.
func TokenID(secret string) string {
	if m := tokenForm.FindStringSubmatch(secret); m != nil {
		return m[1]
	}
	return ""
}

// Matches compares in constant time.
func (t Token) Matches(secret string) bool {
	return subtle.ConstantTimeCompare(t.Hash, digest(secret)) == 1
}

func digest(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
