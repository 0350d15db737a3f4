// Package dns is the resolver that instances see at their VPC's link-local
// address: the region's endpoints, private names and reverse names it answers
// itself, everything else it forwards to the host's resolvers. It serves on
// sockets that it is handed and keeps no cache. It must not know namespaces,
// instances or how names come about: those it asks a Lookup for.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/miekg/dns"
)

// Lookup finds what a resource name of a VPC stands for.
type Lookup interface {
	// Name is asked for i-0123456789abcdef0.REGION.compute.internal and for
	// any name that ends in .internal or .elb.amazonaws.com; false is unknown.
	Name(vpc, name string) (netip.Addr, bool)
}

// Config says what a resolver answers.
type Config struct {
	Region   string     // local-1
	Endpoint netip.Addr // of the AWS API
	Lookup   Lookup     // may be nil
	// Upstream are host:port of resolvers; nil is what the host's
	// /etc/resolv.conf says, read again for every question.
	Upstream []string
	// Resolver is the address that the resolver itself has in a VPC, so that
	// it never asks itself; the zero Addr is 169.254.169.253.
	Resolver netip.Addr
	Log      *slog.Logger
}

// Limits.
const (
	maxInFlight = 256 // forwarded questions at once
	maxTCP      = 64  // connections for each listener
	upstreamFor = 2 * time.Second
	ownTTL      = 5 // seconds: addresses live short
)

// Resolver answers questions.
type Resolver struct {
	cfg    Config
	suffix string // .REGION.amazonaws.com.
	flight chan struct{}

	mu      sync.Mutex
	servers map[*dns.Server]bool
	running sync.WaitGroup
	closed  bool
	stop    context.Context
	cancel  context.CancelFunc
}

var regionRE = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// New is a resolver for one region.
func New(cfg Config) (*Resolver, error) {
	if !regionRE.MatchString(cfg.Region) || !cfg.Endpoint.Is4() {
		return nil, &fault.Error{Kind: fault.Invalid, Op: "dns", Object: cfg.Region, Message: "a resolver needs a region's name and the IPv4 address of its endpoint"}
	}
	for _, u := range cfg.Upstream {
		if _, err := netip.ParseAddrPort(u); err != nil {
			return nil, &fault.Error{Kind: fault.Invalid, Op: "dns", Object: u, Message: "an upstream resolver is an address and a port", Err: err}
		}
	}
	if !cfg.Resolver.IsValid() {
		cfg.Resolver = netip.MustParseAddr("169.254.169.253")
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	r := &Resolver{
		cfg: cfg, suffix: "." + cfg.Region + ".amazonaws.com.",
		flight: make(chan struct{}, maxInFlight), servers: map[*dns.Server]bool{},
	}
	r.stop, r.cancel = context.WithCancel(context.Background())
	return r, nil
}

// Serve answers a VPC's questions on a packet socket and a listener, either of
// which may be nil, until they or the Resolver are closed. It returns at once
// and closes them at the end.
func (r *Resolver) Serve(vpc string, pc net.PacketConn, l net.Listener) {
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) { r.answer(vpc, w, q) })
	if pc != nil {
		r.start(&dns.Server{PacketConn: pc, Handler: h, UDPSize: dns.DefaultMsgSize}, pc.Close)
	}
	if l != nil {
		r.start(&dns.Server{Listener: limit(l, maxTCP), Handler: h, MaxTCPQueries: 128,
			ReadTimeout: 5 * time.Second, WriteTimeout: 5 * time.Second,
			IdleTimeout: func() time.Duration { return 10 * time.Second }}, l.Close)
	}
}

func (r *Resolver) start(s *dns.Server, shut func() error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		shut()
		return
	}
	r.servers[s] = true
	up := make(chan struct{})
	s.NotifyStartedFunc = func() { close(up) }
	ended := make(chan struct{})
	r.running.Go(func() {
		defer close(ended)
		if err := s.ActivateAndServe(); err != nil && !errors.Is(err, net.ErrClosed) {
			r.cfg.Log.Warn("a resolver ended", "error", err)
		}
		shut()
		r.mu.Lock()
		delete(r.servers, s)
		r.mu.Unlock()
	})
	select { // so that Close finds a server that can be shut down
	case <-up:
	case <-ended:
	}
}

// Close ends all serving and waits for it.
func (r *Resolver) Close() error {
	r.mu.Lock()
	r.closed = true
	servers := make([]*dns.Server, 0, len(r.servers))
	for s := range r.servers {
		servers = append(servers, s)
	}
	r.mu.Unlock()
	r.cancel()
	for _, s := range servers {
		_ = s.Shutdown() // one that has ended by itself says so
	}
	r.running.Wait()
	return nil
}

func (r *Resolver) answer(vpc string, w dns.ResponseWriter, q *dns.Msg) {
	m := new(dns.Msg)
	switch {
	case q.Opcode != dns.OpcodeQuery || len(q.Question) != 1:
		m.SetRcode(q, dns.RcodeNotImplemented)
	case q.Question[0].Qclass != dns.ClassINET:
		m.SetRcode(q, dns.RcodeRefused)
	default:
		if own := r.own(vpc, q); own != nil {
			m = own
		} else {
			m = r.forward(w, q)
		}
	}
	size := dns.MinMsgSize
	if o := q.IsEdns0(); o != nil {
		size = max(size, min(int(o.UDPSize()), dns.DefaultMsgSize))
		if m.IsEdns0() == nil {
			m.SetEdns0(dns.DefaultMsgSize, false)
		}
	}
	if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
		m.Truncate(size)
	}
	if err := w.WriteMsg(m); err != nil {
		r.cfg.Log.Debug("an answer was not sent", "error", err)
	}
}

// own answers what the region itself knows; nil is somebody else's name.
func (r *Resolver) own(vpc string, q *dns.Msg) *dns.Msg {
	question := q.Question[0]
	name := strings.ToLower(question.Name)
	m := new(dns.Msg)
	m.SetReply(q)
	m.Authoritative, m.RecursionAvailable = true, true
	if ip, ok := reverse(name); ok {
		private := ip.IsPrivate() || ip.IsLinkLocalUnicast() || ip.IsLoopback()
		if !private {
			return nil
		}
		if question.Qtype == dns.TypePTR && ip.IsPrivate() {
			m.Answer = append(m.Answer, &dns.PTR{Hdr: header(question.Name, dns.TypePTR), Ptr: r.privateName(ip)})
		} else if question.Qtype == dns.TypePTR {
			m.Rcode = dns.RcodeNameError
		}
		return m
	}
	a, ok, mine := r.resolve(vpc, name)
	switch {
	case !mine:
		return nil
	case !ok:
		m.Rcode = dns.RcodeNameError
	case question.Qtype == dns.TypeA || question.Qtype == dns.TypeANY:
		m.Answer = append(m.Answer, &dns.A{Hdr: header(question.Name, dns.TypeA), A: a.AsSlice()})
	}
	return m
}

func header(name string, t uint16) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: t, Class: dns.ClassINET, Ttl: ownTTL}
}

// resolve finds a name's address; mine says whether it is the region's to
// answer at all.
func (r *Resolver) resolve(vpc, name string) (a netip.Addr, ok, mine bool) {
	plain := strings.TrimSuffix(name, ".")
	private := "." + r.cfg.Region + ".compute.internal."
	switch {
	case strings.HasSuffix(name, ".elb.amazonaws.com.") || strings.HasSuffix(name, ".elb"+r.suffix):
		a, ok = r.lookup(vpc, plain)
		return a, ok, true
	case globalService(name), strings.HasSuffix(name, r.suffix):
		return r.cfg.Endpoint, true, true
	case strings.HasSuffix(name, private):
		label := strings.TrimSuffix(name, private)
		if a, ok := addressName(label); ok {
			return a, true, true
		}
		a, ok = r.lookup(vpc, plain)
		return a, ok, true
	case strings.HasSuffix(name, ".internal."):
		a, ok = r.lookup(vpc, plain)
		return a, ok, true
	}
	return netip.Addr{}, false, false
}

func (r *Resolver) lookup(vpc, name string) (netip.Addr, bool) {
	if r.cfg.Lookup == nil {
		return netip.Addr{}, false
	}
	a, ok := r.cfg.Lookup.Name(vpc, name)
	return a, ok && a.Is4()
}

// globalService tells whether a name is of a service without a region in it:
// iam, sts, and s3 with a bucket's name before it or not.
func globalService(name string) bool {
	host, ok := strings.CutSuffix(name, ".amazonaws.com.")
	if !ok {
		return false
	}
	return host == "iam" || host == "sts" || host == "s3" || strings.HasSuffix(host, ".s3")
}

// addressName reads ip-10-0-1-5.
func addressName(label string) (netip.Addr, bool) {
	rest, ok := strings.CutPrefix(label, "ip-")
	parts := strings.Split(rest, "-")
	if !ok || len(parts) != 4 {
		return netip.Addr{}, false
	}
	var b [4]byte
	for i, p := range parts {
		n, err := strconv.ParseUint(p, 10, 8)
		if err != nil || strconv.FormatUint(n, 10) != p {
			return netip.Addr{}, false
		}
		b[i] = byte(n)
	}
	return netip.AddrFrom4(b), true
}

// privateName is ip-10-0-1-5.REGION.compute.internal.
func (r *Resolver) privateName(a netip.Addr) string {
	b := a.As4()
	return fmt.Sprintf("ip-%d-%d-%d-%d.%s.compute.internal.", b[0], b[1], b[2], b[3], r.cfg.Region)
}

// reverse reads 5.1.0.10.in-addr.arpa.
func reverse(name string) (netip.Addr, bool) {
	rest, ok := strings.CutSuffix(name, ".in-addr.arpa.")
	if !ok {
		return netip.Addr{}, false
	}
	parts := strings.Split(rest, ".")
	if len(parts) != 4 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(parts[3] + "." + parts[2] + "." + parts[1] + "." + parts[0])
	return a, err == nil
}

// forward asks the host's resolvers, one after the other.
func (r *Resolver) forward(w dns.ResponseWriter, q *dns.Msg) *dns.Msg {
	fail := new(dns.Msg)
	fail.SetRcode(q, dns.RcodeServerFailure)
	fail.RecursionAvailable = true
	select {
	case r.flight <- struct{}{}:
		defer func() { <-r.flight }()
	default:
		return fail
	}
	proto := "udp"
	if _, ok := w.RemoteAddr().(*net.TCPAddr); ok {
		proto = "tcp"
	}
	for _, up := range r.upstream() {
		ctx, cancel := context.WithTimeout(r.stop, upstreamFor)
		ask := q.Copy()
		ask.Id = dns.Id()
		c := dns.Client{Net: proto, Timeout: upstreamFor, UDPSize: dns.DefaultMsgSize}
		m, _, err := c.ExchangeContext(ctx, ask, up)
		cancel()
		if err != nil || m.Rcode == dns.RcodeServerFailure || m.Rcode == dns.RcodeRefused {
			r.cfg.Log.Debug("an upstream resolver did not answer", "upstream", up, "error", err)
			continue
		}
		m.Id = q.Id
		return m
	}
	return fail
}

// upstream are the resolvers to ask, without this one.
func (r *Resolver) upstream() []string {
	ups := r.cfg.Upstream
	if ups == nil {
		conf, err := dns.ClientConfigFromFile(resolvConf)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				r.cfg.Log.Warn("the host's resolvers are not known", "error", err)
			}
			return nil
		}
		for _, s := range conf.Servers {
			ups = append(ups, net.JoinHostPort(s, conf.Port))
		}
	}
	out := make([]string, 0, 3)
	for _, u := range ups {
		ap, err := netip.ParseAddrPort(u)
		if err != nil || ap.Addr() == r.cfg.Resolver || len(out) == cap(out) {
			continue
		}
		out = append(out, u)
	}
	return out
}

const resolvConf = "/etc/resolv.conf"
