package e2e

import (
	"os"
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
