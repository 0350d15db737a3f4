package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestBakes are the bad days of bakes alone, on real instances.
func TestBakes(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	if os.Geteuid() != 0 {
		t.Skip("real instances need root")
	}
	w := setup(t)
	t.Run("bake", w.bake)
	if t.Failed() {
		return
	}
	t.Run("an identity that comes back at boot", w.sharedIdentity)
	t.Run("a failed bake keeps its builder", w.resumed)
	t.Run("images share what did not change", w.layers)
	t.Run("a builder whose disk is full", func(t *testing.T) {
		// The kernel's device that is always full: an instance of the region has no
		// disk of its own to fill, and the host's is also the server's.
		w.breaks(t, "exec { '/bin/cp /etc/motd /dev/full': }", "step converge", "the builder's disk is full", "No space left on device")
	})
	t.Run("a token in the image, and a goss check that fails", func(t *testing.T) {
		const good, more = "  cron: { installed: true }\n", "  cron: { installed: true }\n  cron-of-old: { installed: true }\n"
		w.edit(t, "verify/base.yaml", good, more)
		token := "ghp_" + strings.Repeat("q7Zt9Kx2", 5) // put together here: no secret is in the source
		w.breaks(t, `file { '/usr/local/bin/publish': content => "#!/bin/sh\ncurl -H 'Authorization: `+token+`' https://git.corp.example\n" }`,
			"step verify", "/usr/local/bin/publish:2: GitHub token", "Package: cron-of-old: installed: expected false")
		w.edit(t, "verify/base.yaml", more, good)
	})
	t.Run("a private key in the image", func(t *testing.T) {
		w.breaks(t, `file { '/srv/tls.pem': content => "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n" }`, "step seal", "left behind: /srv/tls.pem: a private key")
	})
}

// sharedIdentity bakes Puppet code that gives every instance the same host key
// at boot: sealing cannot see it, comparing the canaries does.
func (w *world) sharedIdentity(t *testing.T) {
	const good = "  service { 'cron':"
	const planted = `  file { ['/etc/service/planted', '/usr/share/planted', '/etc/ssh']: ensure => directory }
  file { '/usr/share/planted/key.pub': content => "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPlanted root@golden\n" }
  file { '/etc/service/planted/run': mode => '0755', content => "#!/bin/sh\nset -e\ncp /usr/share/planted/key.pub /etc/ssh/ssh_host_ed25519_key.pub\ntouch /etc/ssh/ssh_host_ed25519_key\nexec sleep 100000\n" }
`
	w.edit(t, "puppet/modules/shop/manifests/init.pp", good, planted+good)
	w.fails(t, 1, []string{"canaries share an identity", "ssh-host-key:/etc/ssh/ssh_host_ed25519_key", "canary 1 and canary 2"}, "bake", w.shop)
	w.edit(t, "puppet/modules/shop/manifests/init.pp", planted, "")
}

// kept is the failed bake that keeps a builder.
func (w *world) kept(t *testing.T) (name, builder string) {
	t.Helper()
	var bs []struct{ Name, Step, Instance string }
	w.json(t, &bs, "bake", "list")
	for _, b := range bs {
		if b.Step == "kept" {
			return b.Name, b.Instance
		}
	}
	t.Fatalf("nothing is kept: %+v", bs)
	return "", ""
}

// resumed fails at Puppet, and then at the checks: both times the builder is
// kept, can be looked into, and the mended code goes on with it.
func (w *world) resumed(t *testing.T) {
	const init = "puppet/modules/shop/manifests/init.pp"
	w.edit(t, "dayfly.yaml", "keep_failed: 0s", "keep_failed: 1h")
	w.edit(t, init, "  service { 'cron':", "  exec { '/bin/false': unless => '/usr/bin/test -e /srv/made-by-hand' }\n  service { 'cron':")
	w.edit(t, "puppet/data/common.yaml", "lives for a day", "lives for one night")
	w.fails(t, 1, []string{"step converge", "/bin/false", "dayfly bake exec shop-", "--resume", "dayfly bake drop shop-"}, "bake", w.shop)
	name, builder := w.kept(t)
	if out := w.must(t, "bake", "exec", name, "--", "cat", "/etc/motd"); out != "lives for one night\n" && !strings.Contains(out, "one night") {
		t.Errorf("the look inside shows %q", out)
	}
	w.fails(t, 1, []string{"exit code 3"}, "bake", "exec", name, "--", "exit 3")
	w.noWayIn(t, name)
	w.must(t, "bake", "exec", name, "--", "touch /srv/made-by-hand")
	// The same inputs, from the failed step; the checks do not know the new words.
	w.fails(t, 1, []string{"step verify", "/etc/motd is not ours"}, "bake", w.shop, "--resume")
	again, same := w.kept(t)
	if again != name || same != builder {
		t.Errorf("%s on %s went on as %s on %s", name, builder, again, same)
	}
	if out := w.must(t, "bake", "exec", again, "--on", "canary-2", "--", "cat /etc/motd"); !strings.Contains(out, "one night") {
		t.Errorf("the canary shows %q", out)
	}
	// Other inputs: the sealed builder boots again.
	w.edit(t, "verify/base.sh", "lives for a day", "lives for one night")
	w.edit(t, init, "  exec { '/bin/false': unless => '/usr/bin/test -e /srv/made-by-hand' }\n", "  file { '/srv/made-by-hand': ensure => absent }\n")
	var b struct {
		Image, Instance, From string
		Steps                 []struct{ Step string }
	}
	w.json(t, &b, "bake", w.shop, "--resume")
	if b.Image == "" || b.Instance != builder || b.From != name {
		t.Errorf("%+v; the builder was %s", b, builder)
	}
	w.attested(t, b.Image)
	w.edit(t, init, "  file { '/srv/made-by-hand': ensure => absent }\n", "")
	w.edit(t, "verify/base.sh", "lives for one night", "lives for a day")
	w.edit(t, "puppet/data/common.yaml", "lives for one night", "lives for a day")
	w.edit(t, "dayfly.yaml", "keep_failed: 1h", "keep_failed: 0s")
	var s struct{ Instances, VPCs, Stacks int }
	w.json(t, &s, "region", "status")
	if s.Instances+s.VPCs+s.Stacks != 0 {
		t.Errorf("the region still has %+v", s)
	}
}

// attested checks what is signed about an image as anybody can who has the public
// key, and that another key believes nothing.
func (w *world) attested(t *testing.T, image string) {
	t.Helper()
	key, pub, other := filepath.Join(w.dir, "signing.key"), filepath.Join(w.dir, "signing.pub"), filepath.Join(w.dir, "other")
	w.run(t, w.dir, "openssl", "pkey", "-in", key, "-pubout", "-out", pub)
	w.run(t, w.dir, "openssl", "genpkey", "-algorithm", "ed25519", "-out", other)
	w.run(t, w.dir, "openssl", "pkey", "-in", other, "-pubout", "-out", other+".pub")
	var v struct {
		Image   string
		Matches []string
	}
	w.json(t, &v, "image", "verify", image, "--key", pub)
	if v.Image != image || strings.Join(v.Matches, " ") != "inventory sbom puppet-report" {
		t.Errorf("%+v", v)
	}
	w.fails(t, 1, []string{"no trusted key signed it", "sha256:"}, "image", "verify", image, "--key", other+".pub")
	if raw, err := os.ReadFile(filepath.Join(w.dir, "server/server.log")); err != nil || strings.Contains(string(raw), "PRIVATE KEY") {
		t.Errorf("the key is in the log, or %v", err)
	}
}

// breaks bakes with a line of Puppet code more, which must fail with the words.
func (w *world) breaks(t *testing.T, line string, words ...string) {
	t.Helper()
	const init = "puppet/modules/shop/manifests/init.pp"
	w.edit(t, init, "  service { 'cron':", "  "+line+"\n  service { 'cron':")
	w.fails(t, 1, words, "bake", w.shop)
	w.edit(t, init, "  "+line+"\n", "")
	var s struct{ Instances, VPCs, Stacks int }
	w.json(t, &s, "region", "status")
	if s.Instances+s.VPCs+s.Stacks != 0 {
		t.Errorf("the region still has %+v", s)
	}
}

// noWayIn listens on the builder, on all its addresses, and tries to get there
// from the region's internet; root is locked and no SSH runs.
func (w *world) noWayIn(t *testing.T, name string) {
	t.Helper()
	inside := func(script string) string {
		t.Helper()
		return strings.TrimSpace(w.must(t, "bake", "exec", name, "--", script))
	}
	inside(`setsid perl -MIO::Socket::INET -e '$s = IO::Socket::INET->new(Listen => 5, LocalPort => 8888, ReuseAddr => 1) or die; while ($c = $s->accept) { print $c "hello\n"; close $c }' >/dev/null 2>&1 </dev/null &`)
	const connect = `$s = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => 8888, Timeout => 3) or die "no way in: $@"; print scalar <$s>`
	w.until(t, 10*time.Second, func() error {
		out, err := w.try("bake", "exec", name, "--", "perl -MIO::Socket::INET -e '"+connect+"' 127.0.0.1")
		if err != nil || !strings.Contains(out, "hello") {
			return fmt.Errorf("the listener does not answer on the builder itself: %s", out)
		}
		return nil
	})
	imds := `t=$(curl -fsS -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' http://169.254.169.254/latest/api/token); curl -fsS -H "X-aws-ec2-metadata-token: $t" http://169.254.169.254/latest/meta-data/`
	for _, which := range []string{"public-ipv4", "local-ipv4"} {
		address := inside(imds + which)
		if strings.Count(address, ".") != 3 {
			t.Fatalf("%s is %q", which, address)
		}
		// A private address leads elsewhere from there: only the builder says hello.
		out, _ := exec.Command("nsenter", "--net="+w.ns, "perl", "-MIO::Socket::INET", "-e", connect, address).CombinedOutput()
		if strings.Contains(string(out), "hello") || (which == "public-ipv4" && !strings.Contains(string(out), "no way in")) {
			t.Errorf("%s %s lets in: %s", which, address, out)
		}
	}
	if keys := inside(imds + ` | grep -c public-keys || true`); keys != "0" {
		t.Errorf("the builder has a key pair: %s", keys)
	}
	if root := inside("grep ^root: /etc/shadow | cut -d: -f2"); !strings.HasPrefix(root, "!") && !strings.HasPrefix(root, "*") {
		t.Errorf("root is not locked: %q", root)
	}
}

// layers looks at what images consist of, by digest: one that was baked with a
// change shares all but its own layer.
func (w *world) layers(t *testing.T) {
	of := func() map[string][]string {
		t.Helper()
		files, err := filepath.Glob(filepath.Join(w.dir, "region/hypervisor/images/ami-*.json"))
		if err != nil {
			t.Fatal(err)
		}
		out := map[string][]string{}
		for _, f := range files {
			raw, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			var m struct {
				ID     string
				Layers []struct{ Digest string }
			}
			if err := json.Unmarshal(raw, &m); err != nil {
				t.Fatal(err)
			}
			for _, l := range m.Layers {
				out[m.ID] = append(out[m.ID], l.Digest)
			}
		}
		return out
	}
	before := of()
	w.edit(t, "puppet/modules/shop/manifests/init.pp", "  service { 'cron':", "  file { '/etc/one-change': content => 'x' }\n  service { 'cron':")
	var b struct{ AMI, Base string }
	w.json(t, &b, "bake", w.shop)
	w.edit(t, "puppet/modules/shop/manifests/init.pp", "  file { '/etc/one-change': content => 'x' }\n", "")
	after := of()
	base, made := before[b.Base], after[b.AMI]
	if len(base) == 0 || len(made) != len(base)+1 || !slices.Equal(made[:len(base)], base) {
		t.Errorf("the base image is %v, and what was made of it %v", base, made)
	}
	unique := map[string]bool{}
	for _, ls := range after {
		for _, l := range ls {
			unique[l] = true
		}
	}
	es, err := os.ReadDir(filepath.Join(w.dir, "region/hypervisor/layers"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range es {
		if strings.HasPrefix(e.Name(), "sha256-") {
			n++
		}
	}
	if n != len(unique) {
		t.Errorf("%d layers are on the disk for %d digests", n, len(unique))
	}
}
