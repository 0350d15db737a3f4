package handoff

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
)

// Proof is an instance's word for which instance it is: the headers of a request
// to STS, GetCallerIdentity, signed with the credentials of its own role. It
// says nothing to who cannot ask STS, and is good for a few minutes and for the
// name in ProofHeader alone.
type Proof struct {
	Host          string `json:"host"` // as it was signed; who checks dials an address of his own
	Date          string `json:"date"`
	Authorization string `json:"authorization"`
	Token         string `json:"token"`
}

// What a proof is a request of.
const (
	ProofHeader = "X-Amz-Dayfly-Certname" // signed: the name that the proof is for
	ProofBody   = "Action=GetCallerIdentity&Version=2011-06-15"
	ProofType   = "application/x-www-form-urlencoded; charset=utf-8"
)

// A proof is one word in a certificate request's challengePassword: an alphabet
// that every kind of ASN.1 string has.
const proofPrefix = "sts:"

// IsProof tells a proof from a one-time token.
func IsProof(s string) bool { return strings.HasPrefix(s, proofPrefix) }

func (p Proof) String() string {
	raw, err := json.Marshal(p)
	if err != nil {
		panic("handoff: four strings: " + err.Error())
	}
	return proofPrefix + base64.StdEncoding.EncodeToString(raw)
}

// ParseProof reads the word, and refuses what could be more than header values.
func ParseProof(s string) (Proof, error) {
	var p Proof
	bad := errors.New("the proof in challengePassword cannot be read")
	word, ok := strings.CutPrefix(s, proofPrefix)
	if !ok || len(word) > 12<<10 {
		return p, bad
	}
	raw, err := base64.StdEncoding.DecodeString(word)
	if err != nil || json.Unmarshal(raw, &p) != nil {
		return p, bad
	}
	for _, v := range []string{p.Host, p.Date, p.Authorization, p.Token} {
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
			return p, bad
		}
	}
	if p.Host == "" || strings.ContainsAny(p.Host, "/@?# ") || p.Date == "" || !strings.HasPrefix(p.Authorization, "AWS4-HMAC-SHA256 ") ||
		!strings.Contains(p.Authorization, strings.ToLower(ProofHeader)) {
		return p, bad
	}
	return p, nil
}
