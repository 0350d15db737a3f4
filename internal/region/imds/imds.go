// Package imds is the instance metadata service, version 2 (and 1 where an
// instance allows it), as an instance finds it at 169.254.169.254. It must not
// know where instances come from: a Source tells, by VPC and address.
package imds

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/clock"
	"github.com/dayfly-infra/dayfly/internal/region/state"
)

// Source knows the instances.
type Source interface {
	// Instance finds the instance that has the address in the VPC.
	Instance(vpc string, addr netip.Addr) (Instance, bool)
	// Credentials gives the credentials of the instance's role. An error is
	// shown to the instance with its text.
	Credentials(ctx context.Context, instanceID string) (Credentials, error)
}

// Credentials are those of an instance's role.
type Credentials struct {
	AccessKeyID, SecretAccessKey, SessionToken string
	Issued, Expiration                         time.Time
}

// Group is a security group of the instance.
type Group struct{ ID, Name string }

// Instance is what an instance may know of itself. Empty fields are not shown.
type Instance struct {
	ID, ImageID, Type, Architecture string
	Account, Region, Zone, ZoneID   string
	ReservationID                   string
	LaunchIndex                     int
	LaunchTime                      time.Time
	MAC, InterfaceID                string
	LocalIP, PublicIP               netip.Addr
	LocalHostname, PublicHostname   string
	VPC, Subnet                     string
	VPCCIDRs                        []netip.Prefix
	SubnetCIDR                      netip.Prefix
	Groups                          []Group
	KeyName, PublicKey              string
	ProfileARN, ProfileID, Role     string // Role is the role's name
	TargetLifecycleState            string // "" where the instance is in no Auto Scaling group
	UserData                        []byte
	Tags                            map[string]string
	ShowTags                        bool // InstanceMetadataTags
	Disabled                        bool // HttpEndpoint
	TokensRequired                  bool // HttpTokens
}

// Options of a handler.
type Options struct {
	// Key seals tokens; the same key after a restart keeps them valid.
	Key   []byte
	Clock clock.Clock
	// PerSecond and Burst limit the requests of one instance; 0 is 1,024, as on AWS.
	PerSecond, Burst int
}

const (
	tokenHeader = "X-Aws-Ec2-Metadata-Token"
	ttlHeader   = "X-Aws-Ec2-Metadata-Token-Ttl-Seconds"
	maxTTL      = 6 * 3600
	maxPath     = 1024
	maxBody     = 4 << 10
	maxBuckets  = 10_000 // addresses whose rate is remembered
)

type handler struct {
	vpc string
	src Source
	o   Options

	mu      sync.Mutex
	buckets map[netip.Addr]*bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// Handler serves the instances of a VPC. It identifies an instance by the
// address that a request comes from.
func Handler(vpc string, src Source, o Options) http.Handler {
	if o.PerSecond == 0 {
		o.PerSecond = 1024
	}
	if o.Burst == 0 {
		o.Burst = o.PerSecond
	}
	return &handler{vpc: vpc, src: src, o: o, buckets: map[netip.Addr]*bucket{}}
}

// Key reads the key for Options from the region's database, or makes it.
func Key(db *state.DB) ([]byte, error) {
	t, err := state.NewTable[[]byte](db, "imds.key")
	if err != nil {
		return nil, err
	}
	var key []byte
	err = db.Update(func(tx *state.Tx) error {
		key, _ = t.Get(tx, "token")
		if len(key) != 32 {
			key = make([]byte, 32)
			rand.Read(key)
			t.Put(tx, "token", key)
		}
		return nil
	})
	return key, err
}

func (h *handler) allow(a netip.Addr) bool {
	now := h.o.Clock.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.buckets[a]
	if b == nil {
		if len(h.buckets) >= maxBuckets {
			clear(h.buckets)
		}
		b = &bucket{tokens: float64(h.o.Burst), at: now}
		h.buckets[a] = b
	}
	b.tokens = min(float64(h.o.Burst), b.tokens+max(0, now.Sub(b.at).Seconds())*float64(h.o.PerSecond))
	b.at = now
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Server", "EC2ws")
	ap, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		fail(w, http.StatusForbidden)
		return
	}
	addr := ap.Addr().Unmap()
	if !h.allow(addr) {
		fail(w, http.StatusServiceUnavailable)
		return
	}
	in, ok := h.src.Instance(h.vpc, addr)
	switch {
	case !ok:
		fail(w, http.StatusNotFound)
		return
	case in.Disabled:
		fail(w, http.StatusForbidden)
		return
	case len(r.URL.Path) > maxPath:
		fail(w, http.StatusRequestURITooLong)
		return
	}
	// A page of another site must not reach the metadata through a browser
	// or a proxy that was talked into it.
	if host := hostOf(r.Host); host != "" {
		if _, err := netip.ParseAddr(host); err != nil && !strings.HasPrefix(host, "instance-data") && host != "localhost" {
			fail(w, http.StatusForbidden)
			return
		}
	}
	switch {
	case r.Method == http.MethodPut && isTokenPath(r.URL.Path):
		h.putToken(w, r, in)
	case r.Method == http.MethodPut && r.URL.Path == "/":
		fail(w, http.StatusMethodNotAllowed)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		fail(w, http.StatusMethodNotAllowed)
	default:
		h.get(w, r, in)
	}
}

func hostOf(s string) string {
	if h, _, err := net.SplitHostPort(s); err == nil {
		return h
	}
	return strings.Trim(s, "[]")
}

func isTokenPath(p string) bool { return strings.TrimSuffix(p, "/") == "/latest/api/token" }

func (h *handler) putToken(w http.ResponseWriter, r *http.Request, in Instance) {
	if r.Header.Get("X-Forwarded-For") != "" {
		fail(w, http.StatusForbidden)
		return
	}
	ttl, err := strconv.Atoi(r.Header.Get(ttlHeader))
	if n, rerr := io.Copy(io.Discard, io.LimitReader(r.Body, maxBody+1)); err != nil || rerr != nil || n > maxBody || ttl < 1 || ttl > maxTTL {
		fail(w, http.StatusBadRequest)
		return
	}
	token := h.token(in.ID, h.o.Clock.Now().Add(time.Duration(ttl)*time.Second))
	w.Header().Set(ttlHeader, strconv.Itoa(ttl))
	text(w, r, token)
}

// A token is when it ends, and a MAC over that and the instance.
func (h *handler) token(instance string, end time.Time) string {
	b := binary.BigEndian.AppendUint64(nil, uint64(end.UnixMilli()))
	return base64.URLEncoding.EncodeToString(append(b, h.mac(instance, b)...))
}

func (h *handler) mac(instance string, end []byte) []byte {
	m := hmac.New(sha256.New, h.o.Key)
	io.WriteString(m, "imds\x00"+h.vpc+"\x00"+instance+"\x00")
	m.Write(end)
	return m.Sum(nil)
}

// valid returns how long a token is good for.
func (h *handler) valid(instance, token string) (time.Duration, bool) {
	b, err := base64.URLEncoding.DecodeString(token)
	if err != nil || len(b) != 8+sha256.Size || !hmac.Equal(b[8:], h.mac(instance, b[:8])) {
		return 0, false
	}
	left := time.UnixMilli(int64(binary.BigEndian.Uint64(b))).Sub(h.o.Clock.Now())
	return left, left > 0
}

func (h *handler) get(w http.ResponseWriter, r *http.Request, in Instance) {
	token := r.Header.Get(tokenHeader)
	if token != "" {
		left, ok := h.valid(in.ID, token)
		if !ok {
			fail(w, http.StatusUnauthorized)
			return
		}
		w.Header().Set(ttlHeader, strconv.Itoa(int(left/time.Second)))
	} else if in.TokensRequired {
		fail(w, http.StatusUnauthorized)
		return
	}
	body, ok := h.find(r.Context(), in, r.URL.Path)
	if !ok {
		fail(w, http.StatusNotFound)
		return
	}
	w.Header().Set("Last-Modified", in.LaunchTime.UTC().Format(http.TimeFormat))
	if strings.Contains(r.URL.Path, "/user-data") {
		w.Header().Set("Content-Type", "application/octet-stream")
	}
	text(w, r, body)
}

func text(w http.ResponseWriter, r *http.Request, body string) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "text/plain")
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		io.WriteString(w, body)
	}
}

func fail(w http.ResponseWriter, status int) {
	title := strconv.Itoa(status) + " - " + http.StatusText(status)
	body := "<?xml version=\"1.0\" encoding=\"iso-8859-1\"?>\n<html xmlns=\"http://www.w3.org/1999/xhtml\" xml:lang=\"en\" lang=\"en\">\n <head>\n  <title>" + title + "</title>\n </head>\n <body>\n  <h1>" + title + "</h1>\n </body>\n</html>\n"
	w.Header().Set("Content-Type", "text/html")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	io.WriteString(w, body)
}
