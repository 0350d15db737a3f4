package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/store"
)

const (
	keyHeader = "Idempotency-Key"
	// onceKind is the kind of the records of calls with a key.
	onceKind = "idempotency"
	// remembered is for how long a key stands for its call.
	remembered = 24 * time.Hour
	maxAnswer  = 1 << 20
)

var keyForm = regexp.MustCompile(`^[A-Za-z0-9_.:-]{8,128}$`)

// call is a request with a key, and its answer when there is one.
type call struct {
	Digest string    `json:"digest"` // of the request
	Began  time.Time `json:"began"`
	Status int       `json:"status,omitempty"` // 0: no answer yet
	Type   string    `json:"type,omitempty"`
	Body   []byte    `json:"body,omitempty"`
}

// once carries a call out unless it was already: then it gives the same answer.
func (s *Server) once(op *huma.Operation, p access.Principal, key string, body []byte, w http.ResponseWriter, r *http.Request, next func(http.ResponseWriter, *http.Request)) {
	if !keyForm.MatchString(key) {
		write(w, &Problem{Title: http.StatusText(http.StatusBadRequest), Status: http.StatusBadRequest, Detail: "the key is not one", Kind: kindOf(http.StatusBadRequest),
			Errors: []Mistake{{Detail: "8 to 128 letters, digits and _ . : -", Parameter: keyHeader, In: "header"}}})
		return
	}
	ctx := r.Context()
	name := p.ID + "/" + key
	h := sha256.New()
	for _, part := range []string{r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type")} {
		fmt.Fprintf(h, "%d:%s", len(part), part)
	}
	h.Write(body)
	c := call{Digest: hex.EncodeToString(h.Sum(nil)), Began: s.cfg.Clock.Now()}
	version := int64(0)
	old, there, err := store.Get[call](ctx, s.cfg.Store, onceKind, name)
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		s.storeDown(w, err)
		return
	case c.Began.Sub(old.Began) >= remembered:
		version = there
	case old.Digest != c.Digest:
		refuse(w, http.StatusUnprocessableEntity, "this key was used for another request", "take a new key for each request; the same key repeats the same one")
		return
	case old.Status == 0 && c.Began.Sub(old.Began) < time.Minute:
		later(w, http.StatusConflict, time.Second, "the first request with this key is still under way")
		return
	case old.Status == 0:
		refuse(w, http.StatusConflict, "the first request with this key was cut off: whether it was carried out is not known", "look what is there, then ask with a new key")
		return
	case old.Body == nil && op.Metadata[metaSecret] == true:
		refuse(w, http.StatusConflict, "this was done already, and its secret is not kept", "revoke what was made, and ask with a new key")
		return
	default:
		w.Header().Set("Content-Type", old.Type)
		w.Header().Set("Idempotency-Replayed", "true")
		w.WriteHeader(old.Status)
		_, _ = w.Write(old.Body)
		return
	}
	err = s.cfg.Store.Apply(ctx, store.NoEpoch, store.Put(onceKind, name, version, c))
	if errors.Is(err, store.ErrConflict) {
		later(w, http.StatusConflict, time.Second, "the first request with this key is still under way")
		return
	}
	if err != nil {
		s.storeDown(w, err)
		return
	}
	out := &recorder{ResponseWriter: w, keep: maxAnswer}
	done := false
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		c.Status, c.Type, c.Body = out.status, out.Header().Get("Content-Type"), out.body
		w := store.Put(onceKind, name, store.Any, c)
		switch {
		case !done || out.status >= 500 || out.status == http.StatusTooManyRequests || out.status == http.StatusConflict || out.cut:
			// It may be tried again with the same key: loops and records see to
			// it that nothing is made twice.
			w = store.Delete(onceKind, name, store.Any)
		case op.Metadata[metaSecret] == true:
			c.Body = nil
			w = store.Put(onceKind, name, store.Any, c)
		}
		if err := s.cfg.Store.Apply(end, store.NoEpoch, w); err != nil {
			s.cfg.Log.Warn("an answer is not kept for its repetition", "error", err)
		}
	}()
	next(out, r)
	done = true
}

func (s *Server) storeDown(w http.ResponseWriter, err error) {
	s.cfg.Log.Error("the store does not answer", "error", err)
	later(w, http.StatusServiceUnavailable, time.Second, "the store does not answer")
}

// Tidy removes what is kept for a time only: answers with a key, and the end of
// the audit log.
func (s *Server) Tidy(ctx context.Context) error {
	now := s.cfg.Clock.Now()
	r := store.Range{Limit: 500}
	for {
		rs, err := s.cfg.Store.Page(ctx, onceKind, r)
		if err != nil {
			return err
		}
		var ws []store.Write
		for _, rec := range rs {
			if now.Sub(rec.Updated) >= remembered {
				ws = append(ws, store.Delete(onceKind, rec.Name, store.Any))
			}
		}
		if err := s.cfg.Store.Apply(ctx, store.NoEpoch, ws...); err != nil {
			return err
		}
		if len(rs) < r.Limit {
			return errors.Join(s.audit.Prune(ctx), s.tokens.Tidy(ctx))
		}
		r.After = rs[len(rs)-1].Name
	}
}
