package puppet

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"regexp"
	"strings"
)

// ClaimTag is the tag by which an instance may ask the company's CA for a
// certificate. It holds no secret: of the token there is the hash only.
const ClaimTag = "dayfly:puppet"

// Claim says which certificate an instance may have, and with which token.
type Claim struct {
	Certname    string
	Token       string // SHA-256 of the one-time token, in hex
	Role        string // pp_role
	Environment string // Puppet's, pp_environment
}

// CertnameForm is what certnames of bakes look like: the inputs digest, the
// attempt, and a part that no other bake has.
var CertnameForm = regexp.MustCompile(`^bake-[0-9a-f]{16}-[0-9]{1,6}-[0-9a-f]{8}$`)

// NodeForm is what certnames of a fleet's instances look like: the role, Puppet's
// environment, the instance.
var NodeForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]{0,31}\.[a-z0-9_]{1,32}\.i-[0-9a-f]{8,17}$`)

var (
	hashForm = regexp.MustCompile(`^[0-9a-f]{64}$`)
	wordForm = regexp.MustCompile(`^[a-z0-9][a-z0-9_:-]{0,31}$`)
)

// HashToken is what stands for a token where others can read.
func HashToken(token string) string {
	h := sha256.Sum256([]byte(token))
	return hex.EncodeToString(h[:])
}

// String is the tag's value, within EC2's 256 characters and its alphabet.
func (c Claim) String() string {
	return fmt.Sprintf("certname=%s token=%s role=%s environment=%s", c.Certname, c.Token, c.Role, c.Environment)
}

// ParseClaim reads the tag's value; every part must be there once.
func ParseClaim(s string) (Claim, error) {
	var c Claim
	parts := map[string]*string{"certname": &c.Certname, "token": &c.Token, "role": &c.Role, "environment": &c.Environment}
	for _, f := range strings.Fields(s) {
		k, v, _ := strings.Cut(f, "=")
		p := parts[k]
		if p == nil || *p != "" || v == "" {
			return Claim{}, fmt.Errorf("the tag %s cannot be read at %q", ClaimTag, f)
		}
		*p = v
	}
	switch {
	case !CertnameForm.MatchString(c.Certname):
		return Claim{}, fmt.Errorf("the tag %s has no certname of a bake", ClaimTag)
	case !hashForm.MatchString(c.Token):
		return Claim{}, fmt.Errorf("the tag %s has no token's hash", ClaimTag)
	case !wordForm.MatchString(c.Role) || !wordForm.MatchString(c.Environment):
		return Claim{}, fmt.Errorf("the tag %s has no role or environment", ClaimTag)
	}
	return c, nil
}

// NodeClaim is that of a fleet: each of its instances may have a certificate for
// itself, when it proves which one it is.
type NodeClaim struct {
	Role        string
	Environment string // Puppet's
}

const nodeClaim = "boot=puppet role=%s environment=%s"

func (c NodeClaim) String() string { return fmt.Sprintf(nodeClaim, c.Role, c.Environment) }

// Certname is that of one instance.
func (c NodeClaim) Certname(instance string) string {
	return c.Role + "." + c.Environment + "." + instance
}

// ParseNodeClaim reads the tag's value.
func ParseNodeClaim(s string) (NodeClaim, error) {
	var c NodeClaim
	if n, err := fmt.Sscanf(s, nodeClaim, &c.Role, &c.Environment); err != nil || n != 2 || c.String() != s || !wordForm.MatchString(c.Role) || !wordForm.MatchString(c.Environment) {
		return NodeClaim{}, fmt.Errorf("the tag %s does not let a fleet's instances have certificates", ClaimTag)
	}
	return c, nil
}
