// Package csrtest makes certificate requests as Puppet's agent does, and such as
// it never would, for tests of what signs them. It must not know who signs.
package csrtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Request is what to ask for.
type Request struct {
	CommonName, Organization string
	Token                    string            // challengePassword
	Extensions               map[string]string // below Puppet's arc 1.3.6.1.4.1.34380, or whole
	More                     []pkix.Extension
	Key                      any // default: one for all requests
}

var key = sync.OnceValue(func() *ecdsa.PrivateKey { k, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader); return k })

var challengePassword = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}

// PEM is the request, signed.
func (r Request) PEM(t testing.TB) []byte {
	t.Helper()
	tmpl := &x509.CertificateRequest{Subject: pkix.Name{CommonName: r.CommonName}, ExtraExtensions: r.More}
	if r.Organization != "" {
		tmpl.Subject.Organization = []string{r.Organization}
	}
	for k, v := range r.Extensions {
		if !strings.HasPrefix(k, "1.3.6.") && !strings.HasPrefix(k, "2.") {
			k = "1.3.6.1.4.1.34380." + k
		}
		var oid asn1.ObjectIdentifier
		for p := range strings.SplitSeq(k, ".") {
			n, err := strconv.Atoi(p)
			if err != nil {
				t.Fatal(err)
			}
			oid = append(oid, n)
		}
		der, err := asn1.MarshalWithParams(v, "utf8")
		if err != nil {
			t.Fatal(err)
		}
		tmpl.ExtraExtensions = append(tmpl.ExtraExtensions, pkix.Extension{Id: oid, Value: der})
	}
	if r.Key == nil {
		r.Key = key()
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, r.Key)
	if err != nil {
		t.Fatal(err)
	}
	if r.Token != "" {
		der = withChallenge(t, der, r.Token)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// withChallenge adds the attribute, which Go's library cannot make, and signs anew.
func withChallenge(t testing.TB, der []byte, token string) []byte {
	t.Helper()
	var c struct {
		TBS struct {
			Raw        asn1.RawContent
			Version    int
			Subject    asn1.RawValue
			Key        asn1.RawValue
			Attributes []asn1.RawValue `asn1:"tag:0,set"`
		}
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &c); err != nil {
		t.Fatal(err)
	}
	value, _ := asn1.MarshalWithParams(token, "utf8")
	attr, err := asn1.Marshal(struct {
		ID     asn1.ObjectIdentifier
		Values []asn1.RawValue `asn1:"set"`
	}{challengePassword, []asn1.RawValue{{FullBytes: value}}})
	if err != nil {
		t.Fatal(err)
	}
	c.TBS.Raw = nil
	c.TBS.Attributes = append(c.TBS.Attributes, asn1.RawValue{FullBytes: attr})
	tbs, err := asn1.Marshal(c.TBS)
	if err != nil {
		t.Fatal(err)
	}
	h := sha256.Sum256(tbs)
	sig, err := ecdsa.SignASN1(rand.Reader, key(), h[:])
	if err != nil {
		t.Fatal(err)
	}
	out, err := asn1.Marshal(struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}{asn1.RawValue{FullBytes: tbs}, c.Algorithm, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
