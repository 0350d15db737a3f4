package control

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/dayfly-infra/dayfly/internal/outbound"
)

// reachable are the places that the server may ask because others than its
// operator name them: boxes, versions of Puppet environments, forges. A
// company's lie on private addresses, so those are allowed; on this machine are
// services that trust whoever comes from it, so they are not.
func (cfg Config) reachable() (outbound.Allowed, error) {
	entries := cfg.OutboundAddresses
	if len(entries) == 0 {
		entries = []string{outbound.Any}
	}
	return outbound.Parse("--outbound-addresses", entries)
}

// asks is a client for those places. It follows redirects to them, takes the
// environment's proxy, and has no limit for a whole answer: a release is large.
func (cfg Config) asks() *http.Client {
	// Run refuses a list that cannot be read; of such a one nothing is allowed.
	allowed, _ := cfg.reachable()
	return &http.Client{Transport: allowed.Transport(net.DefaultResolver, http.ProxyFromEnvironment, 15*time.Second)}
}

// located is where a repository's host is, as a git.Guard.
func (cfg Config) located(ctx context.Context, repository *url.URL) ([]netip.Addr, error) {
	allowed, err := cfg.reachable()
	if err != nil {
		return nil, err
	}
	return allowed.Addresses(ctx, net.DefaultResolver, http.ProxyFromEnvironment, repository)
}
