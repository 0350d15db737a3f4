// Package iam is the region's Identity and Access Management: roles, policies
// and instance profiles, the credentials that roles give, and the decisions
// that follow from them. It must not know what the operations that it permits
// do, nor how requests reach it.
package iam

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/api/iamapi"
	"github.com/dayfly-infra/dayfly/internal/region/iam/policy"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Config says whose region this is.
type Config struct {
	Account         string // 12 digits
	Region          string
	AccessKeyID     string // of the account's root
	SecretAccessKey string
}

// Service is IAM; it is the wire package's Authenticator, Authorizer and Needer.
type Service struct {
	cfg      Config
	now      clock.Clock
	db       *state.DB
	roles    *state.Table[role]
	policies *state.Table[managed] // by ARN, the account's own
	profiles *state.Table[profile]
	aws      map[string]managed // by ARN, AWS's own
	keys     keys
}

type role struct {
	Name, ID, ARN, Path, Trust, Description string
	MaxSession                              int64
	Boundary                                string // ARN of a policy
	Tags                                    map[string]string
	Inline                                  map[string]string // policy name -> document
	Attached                                []string          // ARNs, sorted
	Created                                 time.Time
}

type managed struct {
	Name, ID, ARN, Path, Description, Document string
	Tags                                       map[string]string
	Created                                    time.Time
}

type profile struct {
	Name, ID, ARN, Path, Role string
	Tags                      map[string]string
	Created                   time.Time
}

//go:embed managed/*.json
var managedFiles embed.FS

var (
	accountForm = regexp.MustCompile(`^[0-9]{12}$`)
	nameForm    = regexp.MustCompile(`^[\w+=,.@-]+$`)
	pathForm    = regexp.MustCompile(`^/([\x21-\x7e]+/)?$`)
)

// New reads what the database has.
func New(cfg Config, db *state.DB, now clock.Clock) (*Service, error) {
	if !accountForm.MatchString(cfg.Account) || cfg.AccessKeyID == "" || cfg.SecretAccessKey == "" {
		return nil, errors.New("iam: the account (12 digits), its access key id and secret must be given")
	}
	s := &Service{cfg: cfg, now: now, db: db, aws: map[string]managed{}}
	var err error
	if s.roles, err = state.NewTable[role](db, "iam.role"); err != nil {
		return nil, err
	}
	if s.policies, err = state.NewTable[managed](db, "iam.policy"); err != nil {
		return nil, err
	}
	if s.profiles, err = state.NewTable[profile](db, "iam.profile"); err != nil {
		return nil, err
	}
	secrets, err := state.NewTable[[]byte](db, "iam.secret")
	if err != nil {
		return nil, err
	}
	var secret []byte
	err = db.Update(func(tx *state.Tx) error {
		secret, _ = secrets.Get(tx, "session")
		if len(secret) != 32 {
			secret = make([]byte, 32)
			rand.Read(secret)
			secrets.Put(tx, "session", secret)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.keys = deriveKeys(secret)
	return s, s.loadManaged()
}

func (s *Service) loadManaged() error {
	files, err := managedFiles.ReadDir("managed")
	if err != nil {
		return err
	}
	for _, f := range files {
		b, err := managedFiles.ReadFile("managed/" + f.Name())
		if err != nil {
			return err
		}
		var m struct {
			Path, Description string
			Document          json.RawMessage
		}
		if err := json.Unmarshal(b, &m); err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
		if _, err := policy.Parse(string(m.Document)); err != nil {
			return fmt.Errorf("%s: %w", f.Name(), err)
		}
		name := strings.TrimSuffix(f.Name(), ".json")
		p := managed{Name: name, Path: m.Path, Description: m.Description, Document: string(m.Document), ARN: "arn:aws:iam::aws:policy" + m.Path + name, ID: stableID("ANPA", name)}
		s.aws[p.ARN] = p
	}
	return nil
}

var idEncoding = base32.StdEncoding.WithPadding(base32.NoPadding)

// newID makes an id of IAM's shape: a prefix of four and 17 letters and digits.
func newID(prefix string) string {
	var b [11]byte
	rand.Read(b[:])
	return prefix + idEncoding.EncodeToString(b[:])[:17]
}

func stableID(prefix, name string) string {
	return prefix + idEncoding.EncodeToString(mac([]byte("aws"), name))[:17]
}

func (s *Service) arn(kind, p, name string) string {
	return "arn:aws:iam::" + s.cfg.Account + ":" + kind + p + name
}

// rootARN is the caller that may do everything.
func (s *Service) rootARN() string { return "arn:aws:iam::" + s.cfg.Account + ":root" }

func notFound(format string, args ...any) error {
	return &wire.Error{Code: "NoSuchEntity", Message: fmt.Sprintf(format, args...), Status: http.StatusNotFound}
}

func conflict(code, format string, args ...any) error {
	return &wire.Error{Code: code, Message: fmt.Sprintf(format, args...), Status: http.StatusConflict}
}

func checkName(param, name string, limit int) error {
	if len(name) > limit || !nameForm.MatchString(name) {
		return wire.Errorf("ValidationError", "The specified value for %s is invalid. It must contain only alphanumeric characters and/or the following: +=,.@_- and have at most %d of them", param, limit)
	}
	return nil
}

func cleanPath(p string) (string, error) {
	if p == "" {
		return "/", nil
	}
	if len(p) > 512 || !pathForm.MatchString(p) || path.Clean(p)+"/" != p && p != "/" {
		return "", wire.Errorf("ValidationError", "The specified value for path is invalid. It must begin and end with / and contain only printable ASCII characters")
	}
	return p, nil
}

// tagsOf reads tags; only services of the region may set aws:'s own.
func tagsOf(ctx context.Context, old map[string]string, in []*iamapi.Tag) (map[string]string, error) {
	out := map[string]string{}
	for k, v := range old {
		out[k] = v
	}
	c, _ := wire.CallerFrom(ctx)
	for _, t := range in {
		if t.Key == "" || len(t.Key) > 128 || len(t.Value) > 256 {
			return nil, wire.Errorf("InvalidInput", "A tag's key has 1 to 128 characters and its value at most 256")
		}
		if strings.HasPrefix(strings.ToLower(t.Key), "aws:") && c.Service == "" {
			return nil, wire.Errorf("InvalidInput", "Tag keys that begin with aws: are reserved for system use")
		}
		out[t.Key] = t.Value
	}
	if len(out) > 50 {
		return nil, conflict("LimitExceeded", "The number of tags has reached the maximum limit of 50")
	}
	return out, nil
}

func tagList(m map[string]string) []*iamapi.Tag {
	var out []*iamapi.Tag
	for k, v := range m {
		out = append(out, &iamapi.Tag{Key: k, Value: v})
	}
	slices.SortFunc(out, func(a, b *iamapi.Tag) int { return strings.Compare(a.Key, b.Key) })
	return out
}

// encodeDocument is how IAM gives out policy documents (RFC 3986).
func encodeDocument(doc string) string {
	return strings.ReplaceAll(url.QueryEscape(doc), "+", "%20")
}

// page cuts a sorted list to what a request asks for.
func page[T any](all []T, name func(T) string, marker string, max *int64) (out []T, truncated *bool, next string, err error) {
	n := 100
	if max != nil {
		if *max < 1 || *max > 1000 {
			return nil, nil, "", wire.Errorf("ValidationError", "1 validation error detected: Value '%d' at 'maxItems' failed to satisfy constraint: Member must have value between 1 and 1000", *max)
		}
		n = int(*max)
	}
	slices.SortFunc(all, func(a, b T) int { return strings.Compare(name(a), name(b)) })
	if marker != "" {
		last, err := idEncoding.DecodeString(marker)
		if err != nil {
			return nil, nil, "", wire.Errorf("ValidationError", "Invalid Marker.")
		}
		i, found := slices.BinarySearchFunc(all, string(last), func(t T, m string) int { return strings.Compare(name(t), m) })
		if found {
			i++
		}
		all = all[i:]
	}
	more := len(all) > n
	if more {
		all = all[:n]
		next = idEncoding.EncodeToString([]byte(name(all[n-1])))
	}
	return all, new(more), next, nil
}
