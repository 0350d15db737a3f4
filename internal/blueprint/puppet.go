package blueprint

import (
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"
)

const puppetPort = "8140"

var (
	hostForm        = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
	puppetRoleForm  = regexp.MustCompile(`^[a-z0-9][a-z0-9_:-]{0,31}$`)
	puppetEnvForm   = regexp.MustCompile(`^[a-z0-9_]{1,32}$`)
	fingerprintForm = regexp.MustCompile(`^[0-9A-F]{64}$`)
	versionForm     = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+:@/-]{0,127}$`)
)

// ServerHost takes the server's address apart.
func (p Puppet) ServerHost() (host, port string) {
	host, port, ok := strings.Cut(p.Server, ":")
	if !ok {
		port = puppetPort
	}
	return host, port
}

// ValidVersion tells whether an environment's version is one that can be
// compared and printed.
func ValidVersion(s string) bool { return versionForm.MatchString(s) }

func (r *reader) puppet(o *object, role string) Puppet {
	i := r.object(o.node("image"), "image")
	p := r.object(i.node("puppet"), "image.puppet")
	out := Puppet{
		Code:        p.string("code", ""),
		Server:      p.string("server", ""),
		Address:     p.string("address", ""),
		Version:     p.string("version", ""),
		VersionURL:  p.string("version_url", ""),
		Fingerprint: strings.ReplaceAll(strings.ToUpper(p.string("ca_fingerprint", "")), ":", ""),
		Sign:        p.duration("maxwaitforcert", 5*time.Minute, 10*time.Second, time.Hour),
		Environment: p.string("environment", "production"),
		Role:        p.string("role", role),
		MaxRuns:     p.int("max_runs", 5, 2, 20),
		Deadline:    p.duration("deadline", 30*time.Minute, time.Minute, 6*time.Hour),
	}
	p.done()
	switch {
	case out.Code == "" && out.Server == "":
		r.problem(i.position("puppet"), "image: { puppet: { code: puppet/ } }", "image.puppet needs code, a folder with manifests/site.pp, or server")
		return out
	case out.Code != "" && out.Server != "":
		r.problem(i.position("puppet"), "", "image.puppet has both code and server; take one")
		return out
	case out.Code != "":
		for _, k := range []string{"address", "version", "version_url", "ca_fingerprint", "maxwaitforcert"} {
			if p.node(k) != nil {
				r.problem(p.position(k), "", "image.puppet.%s is for bakes with a server, and this one has code", k)
			}
		}
		return out
	}
	host, port := out.ServerHost()
	if n, err := strconv.Atoi(port); !hostForm.MatchString(host) || err != nil || n < 1 || n > 65535 {
		r.problem(p.position("server"), "such as: server: puppet.corp.example:8140", "image.puppet.server must be the name of the Puppet server, as its certificate has it, in lower case, and perhaps a port")
	}
	if _, err := netip.ParseAddr(out.Address); out.Address != "" && err != nil {
		r.problem(p.position("address"), "such as: address: 192.0.2.7", "image.puppet.address must be an IP address")
	}
	if out.Fingerprint != "" && !fingerprintForm.MatchString(out.Fingerprint) {
		r.problem(p.position("ca_fingerprint"), "on the CA: sha256sum ca_crt.pem", "image.puppet.ca_fingerprint must be the SHA-256 of the CA's bundle as the server gives it, 64 hex digits")
	}
	if !puppetRoleForm.MatchString(out.Role) {
		r.problem(p.position("role"), "such as: role: web", "image.puppet.role becomes pp_role in the certificate: at most 32 of a-z, 0-9, _, : and -")
	}
	if !puppetEnvForm.MatchString(out.Environment) {
		r.problem(p.position("environment"), "such as: environment: production", "image.puppet.environment must be a Puppet environment's name: at most 32 of a-z, 0-9 and _")
	}
	if out.Version != "" && !ValidVersion(out.Version) {
		r.problem(p.position("version"), "", "image.puppet.version is one word of at most 128 letters, digits and ._+:@/-")
	}
	if u, err := url.Parse(out.VersionURL); out.VersionURL != "" && (err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "") {
		r.problem(p.position("version_url"), "", "image.puppet.version_url must be an http:// or https:// address that answers with the environment's version")
	}
	if out.Version != "" && out.VersionURL != "" {
		r.problem(p.position("version_url"), "", "image.puppet has both version and version_url; take one")
	}
	return out
}
