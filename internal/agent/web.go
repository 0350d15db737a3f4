package agent

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"
)

// newClient is the one HTTP client: few connections, small buffers, no proxy to
// link-local addresses.
func newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			if a, err := netip.ParseAddr(r.URL.Hostname()); err == nil && (a.IsLinkLocalUnicast() || a.IsLoopback()) {
				return nil, nil
			}
			return http.ProxyFromEnvironment(r)
		},
		DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  30 * time.Second,
		MaxIdleConns:           3,
		MaxIdleConnsPerHost:    1,
		IdleConnTimeout:        5 * time.Second,
		ReadBufferSize:         4 << 10,
		WriteBufferSize:        4 << 10,
		MaxResponseHeaderBytes: 32 << 10,
		DisableCompression:     true,
	}}
}
