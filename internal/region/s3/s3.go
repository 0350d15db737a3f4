// Package s3 is a minimal S3: buckets and objects over S3's REST protocol,
// bodies in files, everything else in the region's database. It takes requests
// that are authenticated already, with the caller in the context, and must not
// know signatures.
package s3

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/state"
	"github.com/dayfly-infra/dayfly/internal/region/wire"
)

// Service is S3. Its fields are set before the first request.
type Service struct {
	// Policy decides what callers may do; without it every request is refused.
	Policy wire.Authorizer
	// Hosts are the names under which the endpoint is reached: a request for
	// bucket.HOST is one for that bucket.
	Hosts []string
	// Log, where set, is told of internal errors.
	Log *slog.Logger

	dir     string
	db      *state.DB
	now     clock.Clock
	buckets *state.Table[bucket]
	objects *state.Table[object] // by bucket/key
	uploads *state.Table[upload]
	parts   *state.Table[part] // by upload/number
}

type bucket struct {
	Name     string
	Location string // LocationConstraint, may be empty
	Created  time.Time
	Tags     map[string]string
	Access   *publicAccess
}

// headers are those of an object that come back as they were given.
type headers map[string]string

type object struct {
	Bucket, Key  string
	File         string // name of the body's file
	Size         int64
	ETag         string // without quotes
	Modified     time.Time
	Headers      headers
	Checksum     checksum
	ChecksumType string // FULL_OBJECT or COMPOSITE
}

type upload struct {
	ID, Bucket, Key string
	Headers         headers
	Algorithm       string // of the checksum, "" for none
	ChecksumType    string
	Started         time.Time
}

type part struct {
	Number   int
	File     string
	Size     int64
	ETag     string
	Checksum checksum
	Modified time.Time
}

const (
	maxObject = 5 << 30
	maxKey    = 1024
	maxXML    = 2 << 20 // a DeleteObjects of 1,000 long keys
)

// New opens the store in dir and removes the bodies that a crash left without
// an object.
func New(dir string, db *state.DB, now clock.Clock) (*Service, error) {
	s := &Service{dir: dir, db: db, now: now, Hosts: []string{"localhost"}}
	var err error
	if s.buckets, err = state.NewTable[bucket](db, "s3.bucket"); err != nil {
		return nil, err
	}
	if s.objects, err = state.NewTable[object](db, "s3.object"); err != nil {
		return nil, err
	}
	if s.uploads, err = state.NewTable[upload](db, "s3.upload"); err != nil {
		return nil, err
	}
	if s.parts, err = state.NewTable[part](db, "s3.part"); err != nil {
		return nil, err
	}
	for _, d := range []string{"data", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, fmt.Errorf("s3: %w", err)
		}
	}
	if err := s.sweep(); err != nil {
		return nil, fmt.Errorf("s3: sweep %s: %w", dir, err)
	}
	return s, nil
}

func (s *Service) sweep() error {
	used := map[string]bool{}
	s.db.View(func(tx *state.Tx) {
		for _, o := range s.objects.All(tx) {
			used[o.File] = true
		}
		for _, p := range s.parts.All(tx) {
			used[p.File] = true
		}
	})
	return filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if used[d.Name()] && filepath.Base(filepath.Dir(path)) != "tmp" {
			return nil
		}
		return os.Remove(path)
	})
}

// call is one request.
type call struct {
	*Service
	w           http.ResponseWriter
	r           *http.Request
	ctx         context.Context
	caller      wire.Caller
	query       url.Values
	bucket, key string
}

var (
	bucketForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	virtualHost = regexp.MustCompile(`^(.+)\.s3(?:[.-][a-z0-9-]+)?\.amazonaws\.com$`)
)

// ServeHTTP serves one request.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{Service: s, w: w, r: r, ctx: r.Context(), query: r.URL.Query()}
	c.caller, _ = wire.CallerFrom(r.Context())
	if err := c.serve(); err != nil {
		c.fail(err)
	}
}

func (c *call) fail(err error) {
	e, ok := errors.AsType[*wire.Error](err)
	if !ok {
		if c.ctx.Err() != nil {
			return // nobody is there to hear it
		}
		if c.Log != nil {
			c.Log.Error("an S3 request failed", "method", c.r.Method, "bucket", c.bucket, "key", c.key, "request", c.caller.RequestID, "error", err)
		}
		e = &wire.Error{Code: "InternalError", Message: "We encountered an internal error. Please try again.", Status: http.StatusInternalServerError}
	}
	if c.r.Method != http.MethodGet && c.r.Method != http.MethodHead {
		c.w.Header().Set("Connection", "close") // the body may be only half read
	}
	wire.WriteError(c.w, c.r, wire.ProtocolS3, c.caller.RequestID, e)
}

func failure(status int, code, format string, args ...any) error {
	return &wire.Error{Code: code, Message: fmt.Sprintf(format, args...), Status: status}
}

// locate finds bucket and key, path-style or in the name of the host.
func (c *call) locate() error {
	host := c.r.Host
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(host)
	path := strings.TrimPrefix(c.r.URL.Path, "/")
	if m := virtualHost.FindStringSubmatch(host); m != nil {
		c.bucket, c.key = m[1], path
	} else {
		for _, base := range c.Hosts {
			if b, ok := strings.CutSuffix(host, "."+base); ok && b != "s3" {
				c.bucket, c.key = strings.TrimSuffix(b, ".s3"), path
			}
		}
	}
	if c.bucket == "" {
		c.bucket, c.key, _ = strings.Cut(path, "/")
	}
	if c.bucket != "" && (!bucketForm.MatchString(c.bucket) || strings.Contains(c.bucket, "..") || net.ParseIP(c.bucket) != nil) {
		return failure(http.StatusBadRequest, "InvalidBucketName", "The specified bucket is not valid.")
	}
	if len(c.key) > maxKey {
		return failure(http.StatusBadRequest, "KeyTooLongError", "Your key is too long")
	}
	if !utf8.ValidString(c.key) || strings.ContainsRune(c.key, 0) {
		return failure(http.StatusBadRequest, "InvalidURI", "Couldn't parse the specified URI.")
	}
	return nil
}

func (c *call) arn() string {
	if c.key == "" {
		return "arn:aws:s3:::" + c.bucket
	}
	return "arn:aws:s3:::" + c.bucket + "/" + c.key
}

// may asks for the right to an action on the call's bucket or object.
func (c *call) may(action string) error {
	return c.mayOn(action, cmp.Or(c.arn(), "*"), nil)
}

func (c *call) mayOn(action, resource string, extra map[string]string) error {
	if c.Policy == nil {
		return failure(http.StatusForbidden, "AccessDenied", "Access Denied")
	}
	cond := map[string]string{"aws:SecureTransport": fmt.Sprint(c.r.TLS != nil)}
	if h, _, err := net.SplitHostPort(c.r.RemoteAddr); err == nil {
		cond["aws:SourceIp"] = h
	}
	for k, v := range extra {
		cond[k] = v
	}
	return c.Policy.Authorize(c.ctx, c.caller, "s3", action, []string{resource}, cond)
}

// subresources are the words in a query that choose another operation.
var subresources = strings.Fields("accelerate acl analytics attributes cors encryption intelligent-tiering inventory legal-hold lifecycle location logging metadataConfiguration metrics notification object-lock ownershipControls policy policyStatus publicAccessBlock replication requestPayment restore retention select tagging torrent uploads uploadId versioning versions versionId website delete partNumber renameObject session")

func (c *call) serve() error {
	if err := c.locate(); err != nil {
		return err
	}
	var sub []string
	for _, name := range subresources {
		if c.query.Has(name) {
			sub = append(sub, name)
		}
	}
	what := c.r.Method
	switch {
	case c.bucket == "":
		what += " service"
	case c.key == "":
		what += " bucket"
	default:
		what += " object"
	}
	if len(sub) > 0 {
		what += " " + strings.Join(sub, " ")
	}
	if h := c.r.Header.Get("X-Amz-Copy-Source"); h != "" {
		what += " copy"
	}
	f := operations[what]
	if f == nil {
		return failure(http.StatusNotImplemented, "NotImplemented", "the local region does not implement s3: %s", what)
	}
	return f(c)
}

var operations = map[string]func(*call) error{
	"GET service":                     (*call).listBuckets,
	"PUT bucket":                      (*call).createBucket,
	"HEAD bucket":                     (*call).headBucket,
	"DELETE bucket":                   (*call).deleteBucket,
	"GET bucket":                      (*call).listObjects,
	"GET bucket location":             (*call).getLocation,
	"GET bucket tagging":              (*call).getTags,
	"PUT bucket tagging":              (*call).putTags,
	"DELETE bucket tagging":           (*call).deleteTags,
	"GET bucket publicAccessBlock":    (*call).getAccess,
	"PUT bucket publicAccessBlock":    (*call).putAccess,
	"DELETE bucket publicAccessBlock": (*call).deleteAccess,
	"GET bucket uploads":              (*call).listUploads,
	"POST bucket delete":              (*call).deleteObjects,
	"PUT object":                      (*call).putObject,
	"GET object":                      (*call).getObject,
	"HEAD object":                     (*call).getObject,
	"DELETE object":                   (*call).deleteObject,
	"POST object uploads":             (*call).createUpload,
	"PUT object uploadId partNumber":  (*call).uploadPart,
	"POST object uploadId":            (*call).completeUpload,
	"DELETE object uploadId":          (*call).abortUpload,
	"GET object uploadId":             (*call).listParts,
}

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// modified is the time as S3 tells it in HTTP headers, in whole seconds.
func (s *Service) modified() time.Time { return s.now.Now().UTC().Truncate(time.Second) }

func (s *Service) file(name string) string { return filepath.Join(s.dir, "data", name[:2], name) }

// drop removes bodies that no object has any more.
func (s *Service) drop(names ...string) {
	for _, n := range names {
		if n != "" {
			os.Remove(s.file(n)) // what stays goes with the sweep at the next start
		}
	}
}
