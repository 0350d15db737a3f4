// Package hook reads what forges and others send when code was pushed: it
// checks signatures, tells deliveries apart, and says what was pushed. It is
// pure: it must not know servers, stores or runs.
package hook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Kind of a sender.
type Kind string

const (
	GitHub Kind = "github" // X-Hub-Signature-256 over the body
	GitLab Kind = "gitlab" // X-Gitlab-Token
	HMAC   Kind = "hmac"   // X-Dayfly-Signature over time and body
)

const (
	// MaxBody is the largest body that is read.
	MaxBody = 1 << 20
	// MinSecret is the shortest secret that is taken.
	MinSecret = 16
	// Skew is how far the time of a plain delivery may be from ours.
	Skew = 5 * time.Minute
)

// Event is what a delivery says.
type Event struct {
	// Delivery is the sender's id of the event; the same one twice is a replay.
	Delivery string
	// Push tells whether code was pushed; anything else starts nothing.
	Push   bool
	What   string // the sender's own name of the event
	Repo   string // owner/name, or GitLab's path with namespaces
	Ref    string // refs/heads/main
	Commit string
}

// Branch is the branch of the ref, "" where it is none.
func (e Event) Branch() string {
	b, ok := strings.CutPrefix(e.Ref, "refs/heads/")
	if !ok {
		return ""
	}
	return b
}

// Error is a delivery that is refused.
type Error struct {
	Status int // for HTTP
	Why    string
}

func (e *Error) Error() string { return e.Why }

func refused(status int, format string, args ...any) (Event, error) {
	return Event{}, &Error{status, fmt.Sprintf(format, args...)}
}

var (
	deliveryForm = regexp.MustCompile(`^[A-Za-z0-9._:-]{8,100}$`)
	commitForm   = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)
	repoForm     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]{0,200}$`)
	refForm      = regexp.MustCompile(`^[!-~]{1,250}$`)
)

// Read checks a delivery and reads it. Nothing of the body is looked at before
// its signature is good.
func Read(k Kind, secret []byte, h http.Header, body []byte, now time.Time) (Event, error) {
	if len(secret) < MinSecret {
		return refused(http.StatusInternalServerError, "the trigger's secret has fewer than %d bytes", MinSecret)
	}
	if len(body) > MaxBody {
		return refused(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", MaxBody)
	}
	switch k {
	case GitHub:
		return github(secret, h, body)
	case GitLab:
		return gitlab(secret, h, body)
	case HMAC:
		return plain(secret, h, body, now)
	}
	return refused(http.StatusInternalServerError, "there is no such kind of hook")
}

// signed compares sha256=HEX in constant time.
func signed(secret []byte, header string, parts ...[]byte) bool {
	sum, ok := strings.CutPrefix(header, "sha256=")
	if !ok {
		return false
	}
	got, err := hex.DecodeString(sum)
	if err != nil {
		return false
	}
	m := hmac.New(sha256.New, secret)
	for _, p := range parts {
		m.Write(p)
	}
	return hmac.Equal(got, m.Sum(nil))
}

func github(secret []byte, h http.Header, body []byte) (Event, error) {
	if !signed(secret, h.Get("X-Hub-Signature-256"), body) {
		return refused(http.StatusUnauthorized, "X-Hub-Signature-256 is not of this body and this secret")
	}
	e := Event{Delivery: h.Get("X-GitHub-Delivery"), What: h.Get("X-GitHub-Event")}
	if !deliveryForm.MatchString(e.Delivery) {
		return refused(http.StatusBadRequest, "X-GitHub-Delivery is missing")
	}
	if e.What != "push" {
		return e, nil
	}
	var in struct {
		Ref        string
		After      string
		Deleted    bool
		Repository struct {
			FullName string `json:"full_name"`
		}
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return refused(http.StatusBadRequest, "the body is no JSON of a push: Content type must be application/json")
	}
	e.Ref, e.Commit, e.Repo, e.Push = in.Ref, in.After, in.Repository.FullName, !in.Deleted
	return e.checked()
}

func gitlab(secret []byte, h http.Header, body []byte) (Event, error) {
	// Digests of the same length: the comparison tells nothing of the secret's.
	got, want := sha256.Sum256([]byte(h.Get("X-Gitlab-Token"))), sha256.Sum256(secret)
	if subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
		return refused(http.StatusUnauthorized, "X-Gitlab-Token is not this trigger's")
	}
	e := Event{Delivery: h.Get("X-Gitlab-Event-UUID"), What: h.Get("X-Gitlab-Event")}
	if key := h.Get("Idempotency-Key"); key != "" { // the same for every try of a delivery
		e.Delivery = key
	}
	if !deliveryForm.MatchString(e.Delivery) {
		return refused(http.StatusBadRequest, "X-Gitlab-Event-UUID is missing")
	}
	if e.What != "Push Hook" {
		return e, nil
	}
	var in struct {
		Ref     string
		After   string
		Project struct {
			Path string `json:"path_with_namespace"`
		}
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return refused(http.StatusBadRequest, "the body is no JSON of a push")
	}
	e.Ref, e.Commit, e.Repo = in.Ref, in.After, in.Project.Path
	e.Push = strings.Trim(in.After, "0") != "" // zeros: the branch was deleted
	return e.checked()
}

// plain is our own form: X-Dayfly-Timestamp (Unix seconds), X-Dayfly-Delivery,
// and X-Dayfly-Signature: sha256=HMAC(secret, TIMESTAMP "." DELIVERY "." BODY).
func plain(secret []byte, h http.Header, body []byte, now time.Time) (Event, error) {
	stamp, id := h.Get("X-Dayfly-Timestamp"), h.Get("X-Dayfly-Delivery")
	if !signed(secret, h.Get("X-Dayfly-Signature"), []byte(stamp+"."+id+"."), body) {
		return refused(http.StatusUnauthorized, "X-Dayfly-Signature is not of this time, this delivery, this body and this secret")
	}
	sec, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil {
		return refused(http.StatusBadRequest, "X-Dayfly-Timestamp is not a number of seconds since 1970")
	}
	if d := now.Unix() - sec; d > int64(Skew/time.Second) || d < -int64(Skew/time.Second) {
		return refused(http.StatusUnauthorized, "X-Dayfly-Timestamp is more than %s from now", Skew)
	}
	if !deliveryForm.MatchString(id) {
		return refused(http.StatusBadRequest, "X-Dayfly-Delivery must be 8 to 100 of A-Z, a-z, 0-9 and . _ : -")
	}
	e := Event{Delivery: id, What: "push", Push: true}
	if len(body) == 0 {
		return e, nil
	}
	var in struct{ Repo, Ref, Commit string }
	if err := json.Unmarshal(body, &in); err != nil {
		return refused(http.StatusBadRequest, "the body is no JSON")
	}
	e.Repo, e.Ref, e.Commit = in.Repo, in.Ref, in.Commit
	return e.checked()
}

// checked refuses what could not be: these texts go into records and into the
// paths of requests.
func (e Event) checked() (Event, error) {
	for _, f := range []struct {
		name, value string
		form        *regexp.Regexp
	}{{"repository", e.Repo, repoForm}, {"ref", e.Ref, refForm}, {"commit", e.Commit, commitForm}} {
		if f.value != "" && (!f.form.MatchString(f.value) || strings.Contains(f.value, "..")) {
			return refused(http.StatusBadRequest, "the %s has not the form of one", f.name)
		}
	}
	return e, nil
}

// Sign makes the header of a plain delivery.
func Sign(secret []byte, stamp, delivery string, body []byte) string {
	m := hmac.New(sha256.New, secret)
	m.Write([]byte(stamp + "." + delivery + "."))
	m.Write(body)
	return "sha256=" + hex.EncodeToString(m.Sum(nil))
}
