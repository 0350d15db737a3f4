package attest

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"

	"github.com/secure-systems-lab/go-securesystemslib/dsse"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// maxKeys bounds a file of keys, in bytes.
const maxKeys = 64 << 10

// Key signs statements. It is Ed25519's, which signs the same bytes the same
// way each time: what is made again after a crash is the same.
type Key struct {
	private ed25519.PrivateKey
	id      string
}

// ReadKey reads a private key in PKCS #8, PEM, that nobody else may read.
func ReadKey(path string) (*Key, error) {
	refuse := func(message, hint string, err error) error {
		return &fault.Error{Kind: fault.Invalid, Op: "read the signing key", Object: path, Message: message, Hint: hint, Err: err}
	}
	const made = "openssl genpkey -algorithm ed25519 -out KEY && chmod 600 KEY"
	fi, err := os.Stat(path)
	if err != nil {
		return nil, refuse("it cannot be read", made, err)
	}
	if fi.Mode().Perm()&0o077 != 0 {
		return nil, refuse(fmt.Sprintf("its mode is %#o: others can read it", fi.Mode().Perm()), "chmod 600 "+path, nil)
	}
	raw, err := read(path)
	if err != nil {
		return nil, refuse("it cannot be read", made, err)
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != "PRIVATE KEY" {
		return nil, refuse("it is no private key in PKCS #8, PEM", made, nil)
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, refuse("it is no private key in PKCS #8, PEM", made, nil) // the error may quote the key
	}
	private, ok := k.(ed25519.PrivateKey)
	if !ok {
		return nil, refuse("it is no Ed25519 key", made, nil)
	}
	id, err := keyID(private.Public())
	return &Key{private, id}, err
}

// Trusted are the keys whose statements are believed.
type Trusted []public

// ReadTrusted reads public keys in PEM, several in a file: those of the past
// stay beside that of today.
func ReadTrusted(path string) (Trusted, error) {
	refuse := func(message string, err error) error {
		return &fault.Error{Kind: fault.Invalid, Op: "read the trusted keys", Object: path, Message: message, Hint: "openssl pkey -in KEY -pubout", Err: err}
	}
	raw, err := read(path)
	if err != nil {
		return nil, refuse("it cannot be read", err)
	}
	var out Trusted
	for {
		var block *pem.Block
		if block, raw = pem.Decode(raw); block == nil {
			break
		}
		k, err := x509.ParsePKIXPublicKey(block.Bytes)
		key, ok := k.(ed25519.PublicKey)
		if err != nil || !ok {
			return nil, refuse("a "+block.Type+" in it is no Ed25519 public key", err)
		}
		id, err := keyID(key)
		if err != nil {
			return nil, refuse("a key in it cannot be used", err)
		}
		out = append(out, public{key, id})
	}
	if len(out) == 0 || len(bytes.TrimSpace(raw)) > 0 {
		return nil, refuse("it is not public keys in PEM alone", nil)
	}
	return out, nil
}

func read(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() || fi.Size() > maxKeys {
		return nil, fmt.Errorf("it is no file of at most %d bytes", maxKeys)
	}
	return os.ReadFile(path)
}

// Trusted is the public half of the key.
func (k *Key) Trusted() Trusted {
	return Trusted{{k.private.Public().(ed25519.PublicKey), k.id}}
}

// ID names the key, by the digest of its public half.
func (k *Key) ID() string { return k.id }

// Sign puts a statement into a signed envelope, JSON.
func (k *Key) Sign(ctx context.Context, s Statement) ([]byte, error) {
	body, err := s.bytes()
	if err != nil {
		return nil, err
	}
	signer, err := dsse.NewEnvelopeSigner(signing{k})
	if err != nil {
		return nil, err
	}
	e, err := signer.SignPayload(ctx, PayloadType, body)
	if err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

// Open gives the statement in an envelope when a trusted key signed it.
func (t Trusted) Open(ctx context.Context, envelope []byte) (s Statement, key string, err error) {
	if len(t) == 0 {
		return s, "", errors.New("no key is trusted")
	}
	if len(envelope) > Limit {
		return s, "", fmt.Errorf("the envelope is larger than %d bytes", Limit)
	}
	var e dsse.Envelope
	if err := json.Unmarshal(envelope, &e); err != nil {
		return s, "", fmt.Errorf("it is no DSSE envelope: %w", err)
	}
	if e.PayloadType != PayloadType {
		return s, "", fmt.Errorf("its payload is %q, not %s", e.PayloadType, PayloadType)
	}
	var vs []dsse.Verifier
	for _, k := range t {
		vs = append(vs, k)
	}
	v, err := dsse.NewEnvelopeVerifier(vs...)
	if err != nil {
		return s, "", err
	}
	by, body, err := v.VerifyAndDecode(ctx, &e)
	if err != nil || len(by) == 0 {
		return s, "", fmt.Errorf("no trusted key signed it: it is signed by %s", signers(e))
	}
	return s, by[0].KeyID, json.Unmarshal(body, &s)
}

func signers(e dsse.Envelope) string {
	var out []byte
	for _, s := range e.Signatures[:min(len(e.Signatures), 5)] {
		out = fmt.Appendf(out, " %.80q", s.KeyID)
	}
	if len(out) == 0 {
		return "nobody"
	}
	return string(out[1:])
}

func keyID(k crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(k)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}

// signing is a key as dsse wants it.
type signing struct{ k *Key }

func (s signing) Sign(_ context.Context, data []byte) ([]byte, error) {
	return ed25519.Sign(s.k.private, data), nil
}
func (s signing) KeyID() (string, error) { return s.k.id, nil }

// public is a trusted key as dsse wants it.
type public struct {
	key ed25519.PublicKey
	id  string
}

func (p public) Verify(_ context.Context, data, sig []byte) error {
	if !ed25519.Verify(p.key, data, sig) {
		return errors.New("another key signed it, or other bytes")
	}
	return nil
}
func (p public) KeyID() (string, error)   { return p.id, nil }
func (p public) Public() crypto.PublicKey { return p.key }
