package autosign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/puppet"
)

// MaxRequest is the largest certificate request that is read, in bytes.
const MaxRequest = 16 << 10

// Request is what a certificate request says of itself; all of it was written
// by whoever sent it.
type Request struct {
	Certname    string
	Token       string        // challengePassword
	Proof       handoff.Proof // what the token is where a fleet's instance asks
	Instance    string        // pp_instance_id
	Image       string        // pp_image_name
	Role        string        // pp_role
	Environment string        // pp_environment
	Key         string        // SHA-256 of the public key
}

var (
	oidChallenge  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}
	oidExtensions = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}
	// Puppet's own arc, and the part of it by which auth.conf lets people in.
	oidAuth = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 34380, 1, 3}
	// An attribute, not an extension: agents of Puppet 8 say so that they can
	// renew. It grants nothing by itself.
	oidAutoRenew = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 34380, 1, 3, 2}

	instanceForm = regexp.MustCompile(`^i-[0-9a-f]{8,17}$`)
	wordForm     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$`)
	tokenForm    = regexp.MustCompile(`^[A-Za-z0-9_-]{32,128}$`)
)

// Parse reads a request and refuses whatever does not look exactly like one of
// Dayfly's machines. It asks nobody.
func Parse(certname string, csr []byte) (Request, error) {
	node := puppet.NodeForm.MatchString(certname)
	if !node && !puppet.CertnameForm.MatchString(certname) {
		return Request{}, fmt.Errorf("%.80q is not a name that Dayfly's machines have", certname)
	}
	if len(csr) > MaxRequest {
		return Request{}, fmt.Errorf("the request has more than %d bytes", MaxRequest)
	}
	block, rest := pem.Decode(csr)
	if block == nil || (block.Type != "CERTIFICATE REQUEST" && block.Type != "NEW CERTIFICATE REQUEST") || len(bytes.TrimSpace(rest)) > 0 {
		return Request{}, errors.New("this is not one PEM certificate request")
	}
	c, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return Request{}, fmt.Errorf("the request cannot be read: %w", err)
	}
	if err := c.CheckSignature(); err != nil {
		return Request{}, fmt.Errorf("the request's signature is wrong: %w", err)
	}
	r := Request{Certname: certname}
	if err := strong(c.PublicKey); err != nil {
		return Request{}, err
	}
	key := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	r.Key = hex.EncodeToString(key[:])
	if len(c.Subject.Names) != 1 || !c.Subject.Names[0].Type.Equal(oidCommonName) {
		return Request{}, errors.New("the subject must be a common name and nothing else")
	}
	if c.Subject.CommonName != certname {
		return Request{}, fmt.Errorf("the common name %.80q is not the certname %s", c.Subject.CommonName, certname)
	}
	if r.Token, err = challenge(c.RawTBSCertificateRequest); err != nil {
		return Request{}, err
	}
	switch {
	case node:
		if r.Proof, err = handoff.ParseProof(r.Token); err != nil {
			return Request{}, err
		}
	case !tokenForm.MatchString(r.Token):
		return Request{}, errors.New("there is no one-time token in challengePassword")
	}
	return r, r.extensions(c)
}

func strong(key any) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 || k.N.BitLen() > 8192 {
			return fmt.Errorf("the key has %d bits; 2048 to 8192 are taken", k.N.BitLen())
		}
		return nil
	case *ecdsa.PublicKey:
		return nil
	}
	return fmt.Errorf("keys of type %T are not taken", key)
}

// challenge finds the challengePassword among a request's attributes, and
// refuses attributes that nobody expects.
func challenge(tbs []byte) (string, error) {
	var t struct {
		Raw        asn1.RawContent
		Version    int
		Subject    asn1.RawValue
		Key        asn1.RawValue
		Attributes []asn1.RawValue `asn1:"tag:0"`
	}
	if rest, err := asn1.Unmarshal(tbs, &t); err != nil || len(rest) > 0 {
		return "", errors.New("the request's attributes cannot be read")
	}
	token, seen := "", map[string]bool{}
	for _, raw := range t.Attributes {
		var a struct {
			ID     asn1.ObjectIdentifier
			Values []asn1.RawValue `asn1:"set"`
		}
		if rest, err := asn1.Unmarshal(raw.FullBytes, &a); err != nil || len(rest) > 0 {
			return "", errors.New("the request's attributes cannot be read")
		}
		if seen[a.ID.String()] {
			return "", fmt.Errorf("the attribute %s is there twice", a.ID)
		}
		seen[a.ID.String()] = true
		switch {
		case a.ID.Equal(oidExtensions), a.ID.Equal(oidAutoRenew):
		case a.ID.Equal(oidChallenge):
			if len(a.Values) != 1 {
				return "", errors.New("challengePassword must have one value")
			}
			var err error
			if token, err = word(a.Values[0].FullBytes); err != nil {
				return "", fmt.Errorf("challengePassword: %w", err)
			}
		default:
			return "", fmt.Errorf("the attribute %s is not expected", a.ID)
		}
	}
	return token, nil
}

// extensions takes the four that Dayfly's machines ask for, and no other.
func (r *Request) extensions(c *x509.CertificateRequest) error {
	fields := map[string]struct {
		name string
		to   *string
	}{
		"1.3.6.1.4.1.34380.1.1.2":  {"pp_instance_id", &r.Instance},
		"1.3.6.1.4.1.34380.1.1.3":  {"pp_image_name", &r.Image},
		"1.3.6.1.4.1.34380.1.1.12": {"pp_environment", &r.Environment},
		"1.3.6.1.4.1.34380.1.1.13": {"pp_role", &r.Role},
	}
	for _, e := range c.Extensions {
		if len(e.Id) >= len(oidAuth) && e.Id[:len(oidAuth)].Equal(oidAuth) {
			return fmt.Errorf("the extension %s would give the certificate rights on this server (pp_auth)", e.Id)
		}
		f, ok := fields[e.Id.String()]
		if !ok {
			return fmt.Errorf("the extension %s is not expected", e.Id)
		}
		if *f.to != "" {
			return fmt.Errorf("the extension %s is there twice", f.name)
		}
		v, err := word(e.Value)
		if err != nil || !wordForm.MatchString(v) {
			return fmt.Errorf("the extension %s has a value that nobody expects", f.name)
		}
		*f.to = v
	}
	if !instanceForm.MatchString(r.Instance) {
		return errors.New("pp_instance_id does not name an instance")
	}
	if r.Role == "" {
		return errors.New("there is no pp_role")
	}
	return nil
}

// word is the text of one DER string.
func word(der []byte) (string, error) {
	var v asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &v); err != nil || len(rest) > 0 || v.Class != asn1.ClassUniversal {
		return "", errors.New("it is not a string")
	}
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagT61String:
		if s := string(v.Bytes); strings.ToValidUTF8(s, "") == s {
			return s, nil
		}
	}
	return "", errors.New("it is not a string")
}
