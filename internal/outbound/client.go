package outbound

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// Resolver is what net.Resolver has.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// lookup resolves a name once, and leaves of its addresses those that may be
// asked: at least one, or an error.
func (a Allowed) lookup(ctx context.Context, r Resolver, host, port string) ([]netip.Addr, error) {
	var ips []netip.Addr
	if ip, err := netip.ParseAddr(host); err == nil {
		ips = []netip.Addr{ip}
	} else if ips, err = r.LookupNetIP(ctx, "ip", host); err != nil {
		return nil, err
	}
	last := fmt.Errorf("%s has no address", host)
	var out []netip.Addr
	for _, ip := range ips {
		if err := a.address(host, port, ip); err != nil {
			last = err
			continue
		}
		out = append(out, ip.Unmap())
	}
	if len(out) == 0 {
		return nil, last
	}
	return out, nil
}

// Addresses are where a program that is run connects to, so that it need not
// resolve the name again. There are none where a proxy is asked, which resolves
// names itself.
func (a Allowed) Addresses(ctx context.Context, r Resolver, proxy Proxy, u *url.URL) ([]netip.Addr, error) {
	if err := a.URL(u); err != nil {
		return nil, err
	}
	if u.Scheme == "http" || u.Scheme == "https" {
		if p, err := proxy(&http.Request{URL: u}); p != nil || err != nil {
			return nil, err
		}
	}
	port := u.Port()
	if port == "" {
		port = ports[u.Scheme]
	}
	return a.lookup(ctx, r, canonical(u.Hostname()), port)
}

// direct connects to nothing but addresses that were looked at.
func (a Allowed) direct(r Resolver, patience time.Duration) *http.Transport {
	dial := net.Dialer{Timeout: patience}
	return &http.Transport{
		ResponseHeaderTimeout: patience, TLSHandshakeTimeout: patience, IdleConnTimeout: 2 * patience, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, target string) (net.Conn, error) {
			host, port, err := net.SplitHostPort(target)
			if err != nil {
				return nil, err
			}
			ips, err := a.lookup(ctx, r, canonical(host), port)
			if err != nil {
				return nil, err
			}
			for _, ip := range ips {
				var c net.Conn
				if c, err = dial.DialContext(ctx, network, net.JoinHostPort(ip.String(), port)); err == nil {
					return c, nil
				}
			}
			return nil, err
		},
	}
}

// Client asks what is allowed, directly, without a proxy, and follows no
// redirect. Each request resolves its name once and connects to one of the
// addresses that were looked at.
func (a Allowed) Client(r Resolver, timeout time.Duration) *http.Client {
	t := a.direct(r, timeout)
	t.DisableKeepAlives = true
	return &http.Client{Transport: guarded{a, t}, Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// Proxy is which proxy a request takes, as http.ProxyFromEnvironment says.
type Proxy func(*http.Request) (*url.URL, error)

// Transport asks what is allowed, and by a proxy where the operator says so: it
// resolves names itself then, and only addresses that are named are looked at
// here. Redirects that its user follows are looked at like first requests.
func (a Allowed) Transport(r Resolver, proxy Proxy, patience time.Duration) http.RoundTripper {
	return guarded{a, choice{proxy, a.direct(r, patience), &http.Transport{
		Proxy: proxy, DialContext: (&net.Dialer{Timeout: patience}).DialContext, ForceAttemptHTTP2: true,
		ResponseHeaderTimeout: patience, TLSHandshakeTimeout: patience, IdleConnTimeout: 2 * patience, MaxResponseHeaderBytes: 64 << 10,
	}}}
}

// choice keeps the way to the operator's proxy, which may be on this machine,
// apart from that to everything else.
type choice struct {
	proxy           Proxy
	direct, proxied *http.Transport
}

func (c choice) RoundTrip(r *http.Request) (*http.Response, error) {
	switch by, err := c.proxy(r); {
	case err != nil:
		return nil, err
	case by != nil:
		return c.proxied.RoundTrip(r)
	}
	return c.direct.RoundTrip(r)
}

// CloseIdleConnections is what http.Client looks for.
func (c choice) CloseIdleConnections() {
	c.direct.CloseIdleConnections()
	c.proxied.CloseIdleConnections()
}

// guarded looks at each request's address, a redirect's too, before its name
// is resolved.
type guarded struct {
	a    Allowed
	next interface {
		http.RoundTripper
		CloseIdleConnections()
	}
}

func (g guarded) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := g.a.URL(r.URL); err != nil {
		return nil, err
	}
	return g.next.RoundTrip(r)
}

// CloseIdleConnections is what http.Client looks for.
func (g guarded) CloseIdleConnections() { g.next.CloseIdleConnections() }
