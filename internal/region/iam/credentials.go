package iam

import (
	"cmp"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Credentials of a role, as an instance or AssumeRole gets them.
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	Issued          time.Time
	Expiration      time.Time
	Role            string // name
}

const (
	instanceLifetime = 6 * time.Hour
	instanceRenewal  = 5 * time.Hour // the same credentials are given out for so long
)

// Temporary credentials need no table: the session token is the sealed
// session, and the key id and the secret follow from it and from a secret of
// the region. So they survive a restart, and nothing has to expire.
type keys struct {
	seal          cipher.AEAD
	nonce, id, sk []byte
}

type session struct {
	Role    string `json:"r"`
	RoleID  string `json:"i"` // a role that was deleted and made again is another one
	Name    string `json:"s"`
	Expires int64  `json:"e"`
	Nonce   string `json:"n,omitempty"`
	Limits  string `json:"l,omitempty"`
}

func mac(key []byte, parts ...string) []byte {
	h := hmac.New(sha256.New, key)
	for _, p := range parts {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return h.Sum(nil)
}

func deriveKeys(secret []byte) keys {
	block, err := aes.NewCipher(mac(secret, "seal"))
	if err != nil {
		panic(err) // the key has the right length
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return keys{seal: aead, nonce: mac(secret, "nonce"), id: mac(secret, "id"), sk: mac(secret, "secret")}
}

const tokenPrefix = "IQoJ" // what AWS's tokens begin with

func (k keys) issue(s session) Credentials {
	plain, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings and a number
	}
	// The nonce follows from the text: the same session gives the same token.
	nonce := mac(k.nonce, string(plain))[:k.seal.NonceSize()]
	sealed := k.seal.Seal(nonce, nonce, plain, nil)
	c := k.pair(sealed)
	c.Expiration, c.Role = time.Unix(s.Expires, 0).UTC(), s.Role
	return c
}

func (k keys) pair(sealed []byte) Credentials {
	return Credentials{
		AccessKeyID:     "ASIA" + idEncoding.EncodeToString(mac(k.id, string(sealed)))[:16],
		SecretAccessKey: base64.StdEncoding.EncodeToString(mac(k.sk, string(sealed))[:30]),
		SessionToken:    tokenPrefix + base64.StdEncoding.EncodeToString(sealed),
	}
}

func (k keys) open(token string) (session, Credentials, bool) {
	var s session
	if len(token) > 16<<10 || len(token) < len(tokenPrefix) || token[:len(tokenPrefix)] != tokenPrefix {
		return s, Credentials{}, false
	}
	sealed, err := base64.StdEncoding.DecodeString(token[len(tokenPrefix):])
	n := k.seal.NonceSize()
	if err != nil || len(sealed) < n {
		return s, Credentials{}, false
	}
	plain, err := k.seal.Open(nil, sealed[:n], sealed[n:], nil)
	if err != nil || json.Unmarshal(plain, &s) != nil {
		return s, Credentials{}, false
	}
	return s, k.pair(sealed), true
}

// Secret implements wire.Authenticator.
func (s *Service) Secret(_ context.Context, accessKeyID, sessionToken string) (string, wire.Caller, error) {
	invalid := &wire.Error{Code: "InvalidClientTokenId", Message: "The security token included in the request is invalid.", Status: http.StatusForbidden}
	if subtle.ConstantTimeCompare([]byte(accessKeyID), []byte(s.cfg.AccessKeyID)) == 1 {
		if sessionToken != "" {
			return "", wire.Caller{}, invalid
		}
		return s.cfg.SecretAccessKey, wire.Caller{Account: s.cfg.Account, ARN: s.rootARN()}, nil
	}
	if sessionToken == "" {
		return "", wire.Caller{}, invalid
	}
	sess, c, ok := s.keys.open(sessionToken)
	if !ok || subtle.ConstantTimeCompare([]byte(c.AccessKeyID), []byte(accessKeyID)) != 1 {
		return "", wire.Caller{}, invalid
	}
	if s.now.Now().Unix() >= sess.Expires {
		return "", wire.Caller{}, &wire.Error{Code: "ExpiredToken", Message: "The security token included in the request is expired", Status: http.StatusForbidden}
	}
	var r role
	s.db.View(func(tx *state.Tx) { r, ok = s.roles.Get(tx, sess.Role) })
	if !ok || r.ID != sess.RoleID {
		return "", wire.Caller{}, invalid
	}
	return c.SecretAccessKey, wire.Caller{Account: s.cfg.Account, ARN: s.sessionARN(sess.Role, sess.Name), Role: sess.Role, Session: sess.Name, Limits: sess.Limits}, nil
}

func (s *Service) sessionARN(role, name string) string {
	return "arn:aws:sts::" + s.cfg.Account + ":assumed-role/" + role + "/" + name
}

// InstanceCredentials gives the credentials that an instance finds in its
// metadata: valid for six hours, the same ones until an hour before their end.
// The role must trust ec2.amazonaws.com.
func (s *Service) InstanceCredentials(_ context.Context, profileNameOrARN, instanceID string) (Credentials, error) {
	r, err := s.profileRole(profileNameOrARN)
	if err != nil {
		return Credentials{}, err
	}
	if !trusts(r, "Service", nil, "ec2.amazonaws.com") {
		return Credentials{}, &wire.Error{Code: "AssumeRoleUnauthorizedAccess", Status: http.StatusForbidden,
			Message: "EC2 cannot assume the role " + r.Name + ". Please see documentation at https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_iam-ec2.html#troubleshoot_iam-ec2_errors-info-doc."}
	}
	// Each instance renews at a time of its own, or all would at once.
	offset := time.Duration(binary.BigEndian.Uint32(mac([]byte("renewal"), instanceID))%uint32(instanceRenewal/time.Second)) * time.Second
	now := s.now.Now().UTC()
	slot := (now.Unix() + int64(offset/time.Second)) / int64(instanceRenewal/time.Second)
	start := time.Unix(slot*int64(instanceRenewal/time.Second)-int64(offset/time.Second), 0).UTC()
	c := s.keys.issue(session{Role: r.Name, RoleID: r.ID, Name: instanceID, Expires: start.Add(instanceLifetime).Unix()})
	c.Issued = start
	if r.Created.After(start) {
		c.Issued = r.Created
	}
	return c, nil
}

func (s *Service) assumed(r role, name, limits string, d time.Duration) Credentials {
	var n [12]byte
	rand.Read(n[:])
	now := s.now.Now().UTC()
	c := s.keys.issue(session{Role: r.Name, RoleID: r.ID, Name: name, Expires: now.Add(d).Unix(), Nonce: hex.EncodeToString(n[:]), Limits: limits})
	c.Issued = now
	return c
}

// profileRole finds the role of an instance profile by its name or ARN.
func (s *Service) profileRole(nameOrARN string) (r role, err error) {
	s.db.View(func(tx *state.Tx) {
		p, ok := s.findProfile(tx, nameOrARN)
		if !ok {
			err = notFound("Instance Profile %s cannot be found.", nameOrARN)
			return
		}
		if r, ok = s.roles.Get(tx, p.Role); !ok {
			err = notFound("Instance Profile %s has no role.", cmp.Or(p.Name, nameOrARN))
		}
	})
	return r, err
}
