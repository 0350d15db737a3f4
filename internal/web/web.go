// Package web is the console: pages that the browser draws, and the session by
// which it asks the API. It must not know what the API does.
//
// A session is a token in a cookie that no script can read and that no other
// site can have sent: one of its own that the API gives for the code of a link,
// or a token that somebody has. So there is nothing to keep here, a token that
// is revoked ends its sessions, and a session may do what its token may.
package web

import (
	"bytes"
	"compress/gzip"
	"embed"
	"encoding/json"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"
)

//go:embed all:dist
var dist embed.FS

const (
	cookie = "dayfly_session"
	// Header must be in every request of a session that changes something. Other
	// sites cannot send it without being asked first, and nobody answers that.
	Header = "X-Dayfly-Console"
	// lasts is how long a browser keeps a session; its token may end earlier.
	lasts = 12 * time.Hour
	// maxSignIn is the largest request to sign in, in bytes.
	maxSignIn = 4 << 10

	policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)

type file struct {
	kind        string
	plain, gzip []byte
	forever     bool // its name says what is in it
}

// Handler serves the console, and hands all else to the API.
type Handler struct {
	api   http.Handler
	files map[string]file
}

// New returns the console before an API.
func New(api http.Handler) (*Handler, error) {
	h := &Handler{api: api, files: map[string]file{}}
	root, err := fs.Sub(dist, "dist")
	if err != nil {
		return nil, err
	}
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		f := file{kind: mime.TypeByExtension(path.Ext(name)), plain: raw, forever: strings.HasPrefix(name, "assets/")}
		if f.kind == "" {
			f.kind = "application/octet-stream"
		}
		if f.gzip, err = pack(raw); err != nil {
			return err
		}
		h.files["/"+name] = f
		return nil
	})
	return h, err
}

func pack(raw []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(raw); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil || b.Len() >= len(raw) {
		return nil, err
	}
	return b.Bytes(), nil
}

// pages are the console's own addresses: whoever opens one gets the console,
// which shows it.
var pages = []string{"environments", "runs", "images", "instances", "events", "report", "sign-in"}

func isPage(p string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	for _, name := range pages {
		if first == name {
			return true
		}
	}
	return p == "/"
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/session" {
		h.session(w, r)
		return
	}
	name := r.URL.Path
	if isPage(name) {
		name = "/index.html"
	}
	f, ok := h.files[name]
	if !ok || (r.Method != http.MethodGet && r.Method != http.MethodHead) {
		h.ask(w, r)
		return
	}
	head := w.Header()
	head.Set("Content-Type", f.kind)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("Referrer-Policy", "no-referrer")
	head.Set("Content-Security-Policy", policy)
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Vary", "Accept-Encoding")
	head.Set("Cache-Control", "no-cache")
	if f.forever {
		head.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	body := f.plain
	if f.gzip != nil && strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		head.Set("Content-Encoding", "gzip")
		body = f.gzip
	}
	head.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodGet {
		_, _ = w.Write(body)
	}
}

// ask hands a request to the API, with the session's token.
func (h *Handler) ask(w http.ResponseWriter, r *http.Request) {
	c, err := r.Cookie(cookie)
	if err == nil && r.Header.Get("Authorization") == "" {
		if safe := r.Method == http.MethodGet || r.Method == http.MethodHead; !safe && r.Header.Get(Header) == "" {
			refuse(w, http.StatusForbidden, "a session changes nothing without the header "+Header)
			return
		}
		r = r.Clone(r.Context())
		r.Header.Set("Authorization", "Bearer "+c.Value)
	}
	h.api.ServeHTTP(w, r)
}

// session begins one with the code of a link or with a token, and ends one.
func (h *Handler) session(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if r.Header.Get(Header) == "" {
		refuse(w, http.StatusForbidden, "a session begins and ends with the header "+Header)
		return
	}
	c := &http.Cookie{Name: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: r.TLS != nil}
	switch r.Method {
	case http.MethodDelete:
		if old, err := r.Cookie(cookie); err == nil {
			// What the API says is no matter: the browser forgets its session in any case.
			_, _ = h.inner(r, http.MethodDelete, "/v1/session", old.Value)
		}
		c.MaxAge = -1
		http.SetCookie(w, c)
		w.WriteHeader(http.StatusNoContent)
	case http.MethodPost:
		var in struct{ Token, Code string }
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxSignIn)).Decode(&in); err != nil || (in.Token == "") == (in.Code == "") || strings.ContainsAny(in.Token+in.Code, " \r\n\t;,\"\\") {
			refuse(w, http.StatusUnprocessableEntity, "a link's code or a token is expected: {\"code\": \"...\"} or {\"token\": \"...\"}")
			return
		}
		// The API says whether it is good, and slows down who guesses.
		method, at := http.MethodGet, "/v1/whoami"
		if in.Code != "" {
			method, at = http.MethodPost, "/v1/session"
		}
		out, err := h.inner(r, method, at, in.Code+in.Token)
		if err != nil {
			refuse(w, http.StatusInternalServerError, err.Error())
			return
		}
		for _, k := range []string{"Content-Type", "Retry-After"} {
			if v := out.head.Get(k); v != "" {
				w.Header().Set(k, v)
			}
		}
		if out.status == http.StatusOK {
			if c.Value, c.MaxAge = in.Token, int(lasts/time.Second); in.Code != "" {
				var s struct{ Secret string }
				if json.Unmarshal(out.body.Bytes(), &s) != nil || s.Secret == "" {
					refuse(w, http.StatusInternalServerError, "the API gave no session")
					return
				}
				c.Value = s.Secret
				out.body.Reset() // no script reads it
				out.body.WriteString("{}\n")
			}
			http.SetCookie(w, c)
		}
		w.WriteHeader(out.status)
		_, _ = io.Copy(w, &out.body)
	default:
		w.Header().Set("Allow", "POST, DELETE")
		refuse(w, http.StatusMethodNotAllowed, "POST begins a session, DELETE ends it")
	}
}

// inner asks the API on behalf of a request.
func (h *Handler) inner(r *http.Request, method, path, secret string) (*answer, error) {
	q, err := http.NewRequestWithContext(r.Context(), method, path, http.NoBody)
	if err != nil {
		return nil, err
	}
	q.RemoteAddr, q.Host = r.RemoteAddr, r.Host
	q.Header.Set("Authorization", "Bearer "+secret)
	out := &answer{head: http.Header{}, status: http.StatusOK}
	h.api.ServeHTTP(out, q)
	return out, nil
}

// answer keeps what the API says.
type answer struct {
	head   http.Header
	status int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header         { return a.head }
func (a *answer) WriteHeader(status int)      { a.status = status }
func (a *answer) Write(b []byte) (int, error) { return a.body.Write(b) }

func refuse(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"title": http.StatusText(status), "status": status, "detail": detail})
}
