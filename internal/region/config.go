// Package region is the local region: it wires the services, the hypervisor,
// the network and the balancer of one AWS-compatible endpoint on one machine,
// and runs them until it is told to end. Instances, networks and balancers
// outlive the process; the next one adopts them. It must not hold what a
// service could hold, and the platform never imports it.
package region

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/region/cloudwatch"
)

// Config of a region.
type Config struct {
	Dir      string // what must survive: state, images, credentials
	RunDir   string // what may go with a reboot; "" = /run/dayfly-NAME
	CacheDir string // base images; "" = /var/cache/dayfly
	Listen   string // of the AWS endpoint on the host
	Region   string // the region's name
	Guest    string // path of dayfly-guest; "" = beside this binary
	Runtime  string // what starts instances; "" = the launcher where it can be, else runc
	Bases    []string
	Simulate bool          // instances, networks and balancers are in memory: no root, no kernel objects
	Boot     time.Duration // of a simulated instance
	Limits   string        // "aws": refuse requests that come faster than AWS takes them; "" or "none": take all
	Log      *slog.Logger
	Progress func(string)
}

// identity is made once and kept: what must not change between two starts.
type identity struct {
	Account         string
	AccessKeyID     string
	SecretAccessKey string
	Prefix          string       // of every kernel object's name
	Internet        netip.Prefix // public addresses
	Region, Listen  string       // of the last start
	Simulated       bool
}

func (c *Config) fill() error {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Progress == nil {
		c.Progress = func(string) {}
	}
	abs, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	c.Dir = abs
	if c.RunDir == "" {
		c.RunDir = "/run/dayfly-" + c.tag()
	}
	if c.CacheDir == "" {
		c.CacheDir = "/var/cache/dayfly"
	}
	if c.Guest == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		c.Guest = filepath.Join(filepath.Dir(self), "dayfly-guest")
	}
	return nil
}

// tag tells the regions of one machine apart, by their folders.
func (c *Config) tag() string {
	h := fnv.New32a()
	h.Write([]byte(c.Dir))
	return fmt.Sprintf("%04x", h.Sum32()&0xffff)
}

func (c *Config) identityFile() string { return filepath.Join(c.Dir, "region.json") }

func readIdentity(path string) (identity, error) {
	var id identity
	raw, err := os.ReadFile(path)
	if err != nil {
		return id, err
	}
	if err := json.Unmarshal(raw, &id); err != nil {
		return id, fmt.Errorf("%s: %w", path, err)
	}
	return id, nil
}

func (c *Config) identity() (identity, error) {
	id, err := readIdentity(c.identityFile())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if id, err = newIdentity(c.tag()); err != nil {
			return id, err
		}
	case err != nil:
		return id, err
	}
	if id.Region != "" && id.Region != c.Region {
		return id, &fault.Error{Kind: fault.Invalid, Op: "start the region", Object: c.Dir, Message: fmt.Sprintf("it was made with the name %s and cannot become %s", id.Region, c.Region), Hint: "start it with --region " + id.Region + ", or choose another --region-dir"}
	}
	if id.Region != "" && id.Simulated != c.Simulate {
		was, now := "with real instances", "--simulate"
		if id.Simulated {
			was, now = "as a simulation", "real instances"
		}
		return id, &fault.Error{Kind: fault.Invalid, Op: "start the region", Object: c.Dir, Message: "it was made " + was + " and cannot go on with " + now, Hint: "start it as before, or choose another --region-dir"}
	}
	id.Simulated = c.Simulate
	id.Region, id.Listen = c.Region, c.Listen
	raw, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return id, err
	}
	tmp := c.identityFile() + ".new"
	if err := os.WriteFile(tmp, raw, 0o600); err != nil {
		return id, err
	}
	return id, os.Rename(tmp, c.identityFile())
}

func newIdentity(tag string) (identity, error) {
	b := make([]byte, 46)
	if _, err := rand.Read(b); err != nil {
		return identity{}, err
	}
	account := uint64(0)
	for _, x := range b[:8] {
		account = account<<8 | uint64(x)
	}
	internet, err := freeInternet(tag)
	return identity{
		Account: fmt.Sprintf("%012d", account%900_000_000_000+100_000_000_000),
		// The form of AWS's keys, so that tools which look at it are content.
		AccessKeyID:     "AKIA" + base32(b[8:18]),
		SecretAccessKey: hex.EncodeToString(b[26:46]),
		Prefix:          "df" + tag,
		Internet:        internet,
	}, err
}

func base32(b []byte) string {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
	out := make([]byte, 16)
	for i := range out {
		out[i] = letters[int(b[i*len(b)/16]+byte(i*37))%32]
	}
	return string(out)
}

// freeInternet finds a /20 of the shared address space (RFC 6598) that no
// interface of this machine overlaps.
func freeInternet(tag string) (netip.Prefix, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return netip.Prefix{}, err
	}
	var start uint32
	if _, err := fmt.Sscanf(tag, "%x", &start); err != nil {
		return netip.Prefix{}, err
	}
	for i := range uint32(1024) {
		n := (start + i) % 1024
		p := netip.PrefixFrom(netip.AddrFrom4([4]byte{100, byte(64 + n/16), byte(n % 16 * 16), 0}), 20)
		free := true
		for _, a := range addrs {
			q, err := netip.ParsePrefix(a.String())
			free = free && (err != nil || !q.Masked().Overlaps(p))
		}
		if free {
			return p, nil
		}
	}
	return netip.Prefix{}, &fault.Error{Kind: fault.Failed, Op: "start the region", Message: "no part of 100.64.0.0/10 is free on this machine"}
}

// Environment is what points an AWS client at the region in that folder, and how
// short the periods of a load balancer's figures are here.
func Environment(dir string) (map[string]string, error) {
	id, err := readIdentity(filepath.Join(dir, "region.json"))
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"AWS_ENDPOINT_URL": "http://" + id.Listen, "AWS_REGION": id.Region, "AWS_DEFAULT_REGION": id.Region,
		"AWS_ACCESS_KEY_ID": id.AccessKeyID, "AWS_SECRET_ACCESS_KEY": id.SecretAccessKey,
		"DAYFLY_FIGURES_PERIOD": cloudwatch.Step.String(),
	}, nil
}

// Preflight says before anything is begun why a region cannot run here.
func Preflight() error {
	if os.Geteuid() != 0 {
		return &fault.Error{Kind: fault.Denied, Op: "start the region", Message: "its instances need namespaces, mounts and packet filters, and this is not root", Hint: "sudo dayfly region start"}
	}
	for _, tool := range []struct{ bin, pkg string }{{"haproxy", "haproxy"}, {"mmdebstrap", "mmdebstrap"}} {
		if _, err := exec.LookPath(tool.bin); err != nil {
			return &fault.Error{Kind: fault.Failed, Op: "start the region", Message: tool.bin + " is not installed", Hint: "apt-get install " + tool.pkg}
		}
	}
	return nil
}
