package autosign

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// ConfigFile is where an operator says what cannot be found out.
const ConfigFile = "/etc/dayfly/autosign.json"

// Config of the CA's side. Everything may be left out where the default is meant.
type Config struct {
	Certname string `json:"certname"` // of the Puppet server itself, for clean
	Owner    string `json:"owner"`    // Dayfly's installation; default: this machine's tag dayfly:owner
	Region   string `json:"region"`   // default: this machine's
	Endpoint string `json:"endpoint"` // of the AWS API, where it is not AWS's own
	State    string `json:"state"`    // default /var/lib/dayfly-autosign
	CADir    string `json:"ca_dir"`   // default: where Puppet's and Debian's packages have it
	SSLDir   string `json:"ssl_dir"`
	CA       string `json:"ca"`       // default https://localhost:8140
	PuppetDB string `json:"puppetdb"` // such as https://puppetdb.corp.example:8081
}

// ReadConfig reads the file; one that is absent is all defaults.
func ReadConfig(file string) (Config, error) {
	c := Config{State: "/var/lib/dayfly-autosign", CA: "https://localhost:8140"}
	raw, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return c, err
	}
	if err == nil {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.DisallowUnknownFields()
		if err := d.Decode(&c); err != nil {
			return c, fmt.Errorf("%s: %w", file, err)
		}
	}
	if c.CADir == "" {
		c.CADir = first("signed", "/etc/puppetlabs/puppetserver/ca", "/etc/puppet/puppetserver/ca", "/var/lib/puppetserver/ca", "/var/lib/puppet/ssl/ca", "/etc/puppet/ssl/ca", "/etc/puppetlabs/puppet/ssl/ca")
	}
	if c.SSLDir == "" && c.Certname != "" {
		c.SSLDir = first("private_keys/"+c.Certname+".pem", "/etc/puppetlabs/puppet/ssl", "/var/lib/puppet/ssl", "/etc/puppet/ssl", "/var/lib/puppetserver/ssl")
	}
	return c, nil
}

func first(has string, dirs ...string) string {
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, has)); err == nil {
			return d
		}
	}
	return ""
}

// Client speaks TLS with the Puppet server's own certificate; the server is
// this machine, whatever its name resolves to.
func (c Config) Client() (*http.Client, error) {
	if c.Certname == "" || c.SSLDir == "" {
		return nil, fmt.Errorf("the server's own certificate is not found: set certname and ssl_dir in %s", ConfigFile)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(c.SSLDir, "certs", c.Certname+".pem"), filepath.Join(c.SSLDir, "private_keys", c.Certname+".pem"))
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(c.SSLDir, "certs", "ca.pem"))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(raw)
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, RootCAs: pool}}
		if host, _, err := net.SplitHostPort(address); err == nil && host == "localhost" {
			d.Config.ServerName = c.Certname
		}
		return d.DialContext(ctx, network, address)
	}
	return &http.Client{Timeout: time.Minute, Transport: named{c.Certname, &http.Transport{DialTLSContext: dial, DisableKeepAlives: true}}}, nil
}

// named asks localhost by its name: the server answers no request whose host is
// not the one that TLS was made for.
type named struct {
	certname string
	next     http.RoundTripper
}

func (n named) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Hostname() == "localhost" {
		req = req.Clone(req.Context())
		req.Host = net.JoinHostPort(n.certname, req.URL.Port())
	}
	return n.next.RoundTrip(req)
}
