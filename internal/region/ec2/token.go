package ec2

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"reflect"
	"time"

	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// keepTokens is how long a client token is remembered, AWS's least.
const keepTokens = 24 * time.Hour

// hashOf is the fingerprint of a request's parameters, without the token and
// DryRun.
func hashOf(in any) string {
	v := reflect.New(reflect.TypeOf(in).Elem())
	v.Elem().Set(reflect.ValueOf(in).Elem())
	for _, f := range []string{"ClientToken", "DryRun"} {
		if x := v.Elem().FieldByName(f); x.IsValid() {
			x.SetZero()
		}
	}
	raw, err := json.Marshal(v.Interface())
	if err != nil {
		panic("ec2: a request that is not JSON: " + err.Error()) // generated types are
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:16])
}

// once finds what the token made before; nil where the call is new. The same
// token with other parameters is refused.
func (s *Service) once(tx *state.Tx, op, clientToken, hash string) ([]string, error) {
	if clientToken == "" {
		return nil, nil
	}
	if len(clientToken) > 128 {
		return nil, wire.Errorf("InvalidParameterValue", "The client token can be up to 128 characters")
	}
	t, ok := s.tokens.Get(tx, op+":"+clientToken)
	if !ok {
		return nil, nil
	}
	if t.Hash != hash {
		return nil, wire.Errorf("IdempotentParameterMismatch", "Arguments on this idempotent request are inconsistent with arguments used in previous request(s).")
	}
	return t.IDs, nil
}

// remember ties a token to what it made, in the same transaction.
func (s *Service) remember(tx *state.Tx, op, clientToken, hash string, ids ...string) {
	if clientToken != "" {
		s.tokens.Put(tx, op+":"+clientToken, token{Hash: hash, IDs: ids, Made: s.now()})
	}
}
