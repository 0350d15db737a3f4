package e2e

import (
	"os"
	"strings"
	"testing"
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
	w.edit(t, init, "  service { 'cron':", "  exec { '/usr/bin/test -e /srv/made-by-hand': }\n  service { 'cron':")
	w.edit(t, "puppet/data/common.yaml", "lives for a day", "lives for one night")
	w.fails(t, 1, []string{"step converge", "/srv/made-by-hand", "dayfly bake exec shop-", "--resume", "dayfly bake drop shop-"}, "bake", w.shop)
	name, builder := w.kept(t)
	if out := w.must(t, "bake", "exec", name, "--", "cat", "/etc/motd"); out != "lives for one night\n" && !strings.Contains(out, "one night") {
		t.Errorf("the look inside shows %q", out)
	}
	w.fails(t, 1, []string{"exit code 3"}, "bake", "exec", name, "--", "exit 3")
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
	w.edit(t, init, "  exec { '/usr/bin/test -e /srv/made-by-hand': }\n", "  file { '/srv/made-by-hand': ensure => absent }\n")
	var b struct {
		Image, Instance, From string
		Steps                 []struct{ Step string }
	}
	w.json(t, &b, "bake", w.shop, "--resume")
	if b.Image == "" || b.Instance != builder || b.From != name {
		t.Errorf("%+v; the builder was %s", b, builder)
	}
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
