package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

const (
	defaultStall = 30 * time.Second
	// A box that hangs must leave time for the mirror before a deploy's deadline.
	defaultAnswer = 5 * time.Second
	// chunk is what is read, hashed and sent at once, in bytes: while 45 instances
	// share two processors more than this has come in when it is their turn.
	chunk = 128 << 10
)

// source is the release on a loopback address: it comes from the box, or from
// the mirror where the box fails, and its last bytes are sent only when the
// digest of all of them is right. So no deploy script can unpack other bytes
// without its download having failed.
type source struct {
	launch handoff.Launch
	client *http.Client
	aws    *api
	say    func(string, ...any)
	stall  time.Duration // how long a source may send nothing
	answer time.Duration // how long a box with a mirror may take to answer at all

	mu       sync.Mutex
	verified bool
	from     string // that the verified bytes came from
	broken   error  // of the last fetch that failed
	badBox   bool   // the box gave other bytes: do not ask it again

	server   *http.Server
	listener net.Listener
}

// listen serves the release until close.
func (s *source) listen() (address string, err error) {
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return "", err
	}
	s.server = &http.Server{Handler: s, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10}
	go s.server.Serve(s.listener)
	return "http://" + s.listener.Addr().String() + "/release", nil
}

func (s *source) close() { _ = s.server.Close() }

// result tells whether the whole release was fetched and proven, and from
// where; else what went wrong last.
func (s *source) result() (ok bool, from string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.verified, s.from, s.broken
}

func (s *source) fail(err error) {
	s.say("release: %v", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = err
}

func (s *source) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/release" && r.URL.Path != "/release/"+s.launch.File() {
		http.NotFound(w, r)
		return
	}
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET")
		http.Error(w, "the release can only be fetched (GET)", http.StatusMethodNotAllowed)
		return
	}
	err := s.stream(r.Context(), w)
	if err == nil {
		return
	}
	s.fail(err)
	if e, ok := errors.AsType[*unsent](err); ok {
		http.Error(w, e.Error(), http.StatusBadGateway)
		return
	}
	panic(http.ErrAbortHandler) // the download ends without its last bytes
}

// unsent is an error before anything was sent.
type unsent struct{ error }

func (u *unsent) Unwrap() error { return u.error }

func (s *source) stream(ctx context.Context, w http.ResponseWriter) error {
	in, err := s.open(ctx, false)
	if err != nil {
		return &unsent{err}
	}
	defer func() { in.close() }()
	w.Header().Set("Content-Type", "application/octet-stream")
	if in.size >= 0 {
		w.Header().Set("Content-Length", strconv.FormatInt(in.size, 10))
	}
	h := sha256.New()
	bufs := [2][]byte{make([]byte, chunk), make([]byte, chunk)}
	var held []byte // read and hashed, not yet sent
	var read, sent int64
	give := func(err error) error {
		if sent == 0 {
			w.Header().Del("Content-Length")
			return &unsent{err}
		}
		return err
	}
	for i := 0; ; {
		k, err := in.read(bufs[i])
		if k > 0 {
			h.Write(bufs[i][:k])
			read += int64(k)
			if len(held) > 0 {
				n, err := w.Write(held)
				sent += int64(n)
				if err != nil {
					return fmt.Errorf("the deploy script ended its download after %d bytes: %w", sent, err)
				}
			}
			held, i = bufs[i][:k], 1-i
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			continue
		}
		// The bytes are known by their digest, so any other source goes on
		// where this one broke off.
		broke := fmt.Errorf("the %s broke off after %d bytes: %w", in.from, read, err)
		if in.from == mirror || s.launch.Mirror == "" || ctx.Err() != nil {
			return give(broke)
		}
		s.say("release: %v; going on from the mirror", broke)
		next, err := s.open(ctx, true)
		if err != nil {
			return give(errors.Join(broke, err))
		}
		in.close()
		in = next
		if _, err := io.CopyN(io.Discard, in.body, read); err != nil {
			return give(fmt.Errorf("the mirror is shorter than the box: %w", err))
		}
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != s.launch.Digest {
		s.mu.Lock()
		s.badBox = s.badBox || in.from == box
		s.mu.Unlock()
		return give(fmt.Errorf("the %s gave other bytes: their digest is %s, and the release is %s", in.from, got, s.launch.Digest))
	}
	s.mu.Lock()
	s.verified, s.from = true, in.from
	s.mu.Unlock()
	_, err = w.Write(held)
	return err
}

const (
	box    = "box"
	mirror = "mirror"
)

// feed is one source under way. It ends when nothing comes for too long.
type feed struct {
	body   io.ReadCloser
	size   int64
	from   string
	ctx    context.Context
	cancel context.CancelCauseFunc
	watch  *time.Timer
	stall  time.Duration
}

func (f *feed) read(b []byte) (int, error) {
	f.watch.Reset(f.stall)
	n, err := f.body.Read(b)
	if err != nil && !errors.Is(err, io.EOF) && context.Cause(f.ctx) != nil {
		err = context.Cause(f.ctx)
	}
	return n, err
}

func (f *feed) close() {
	f.watch.Stop()
	f.cancel(nil)
	f.body.Close()
}

// open asks the box, and the mirror where the box has no answer.
func (s *source) open(ctx context.Context, onlyMirror bool) (*feed, error) {
	s.mu.Lock()
	skip := s.badBox || onlyMirror || !readable(s.launch.URL)
	s.mu.Unlock()
	var boxErr error
	if !skip {
		f, err := s.get(ctx, s.launch.URL, box)
		if err == nil {
			return f, nil
		}
		boxErr = fmt.Errorf("the box has no answer: %w", err)
	}
	if s.launch.Mirror == "" {
		if boxErr == nil {
			boxErr = errors.New("the box gave other bytes, and there is no mirror")
		}
		return nil, boxErr
	}
	if boxErr != nil {
		s.say("release: %v; asking the mirror", boxErr)
	}
	f, err := s.get(ctx, s.launch.Mirror, mirror)
	if err != nil {
		return nil, errors.Join(boxErr, fmt.Errorf("the mirror has no answer: %w", err))
	}
	return f, nil
}

// readable tells whether an instance can read a box at all: a folder of the
// server's machine and a repository it cannot, their releases are mirrored.
func readable(address string) bool {
	scheme, _, _ := strings.Cut(address, "://")
	return scheme == "http" || scheme == "https" || scheme == "s3"
}

func (s *source) get(ctx context.Context, address, from string) (*feed, error) {
	f := &feed{from: from, stall: s.stall}
	first := s.stall
	if from == box && s.launch.Mirror != "" {
		first = min(first, s.answer)
	}
	f.ctx, f.cancel = context.WithCancelCause(ctx)
	f.watch = time.AfterFunc(first, func() { f.cancel(errors.New("nothing came for too long")) })
	var err error
	if strings.HasPrefix(address, "s3://") {
		f.body, f.size, err = s.aws.open(f.ctx, address)
	} else {
		f.body, f.size, err = s.web(f.ctx, address)
	}
	if err != nil {
		f.watch.Stop()
		f.cancel(nil)
		return nil, err
	}
	f.watch.Reset(f.stall)
	return f, nil
}

func (s *source) web(ctx context.Context, address string) (io.ReadCloser, int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, 0, err
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, 0, err
	}
	if res.StatusCode != http.StatusOK {
		res.Body.Close()
		return nil, 0, fmt.Errorf("%s: HTTP status %s", req.URL.Redacted(), res.Status)
	}
	return res.Body, res.ContentLength, nil
}
