package identity

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestCompare(t *testing.T) {
	builder := Machine{"builder", map[string]string{"machine-id": "b", "hostname": "hb"}}
	one := Machine{"canary 1", map[string]string{"machine-id": "1", "hostname": "h1", "ssh-host-key:/k": "sha256:1", "file:/seed": "x"}}
	two := Machine{"canary 2", map[string]string{"machine-id": "2", "hostname": "h2", "ssh-host-key:/k": "sha256:2"}}
	with := func(m Machine, name, value string) Machine {
		facts := map[string]string{name: value}
		for k, v := range m.Facts {
			if k != name {
				facts[k] = v
			}
		}
		if value == "" {
			delete(facts, name)
		}
		return Machine{m.Name, facts}
	}
	for _, c := range []struct {
		name          string
		first, a, b   Machine
		want, exactly string
	}{
		{"all differ", builder, one, two, "", ""},
		{"an empty builder", Machine{Name: "builder"}, one, two, "", ""},
		{"a key on both canaries", builder, one, with(two, "ssh-host-key:/k", "sha256:1"), "ssh-host-key:/k sha256:1 is the same on canary 1 and canary 2", ""},
		{"the builder's machine-id", builder, one, with(two, "machine-id", "b"), "machine-id b is the same on builder and canary 2", ""},
		{"all three", with(builder, "hostname", "h"), with(one, "hostname", "h"), with(two, "hostname", "h"), "hostname h is the same on builder and canary 1 and canary 2", ""},
		{"no machine-id", builder, with(one, "machine-id", ""), two, "canary 1 has no machine-id", ""},
		{"no host name", builder, one, with(two, "hostname", ""), "canary 2 has no hostname", ""},
	} {
		got := strings.Join(Compare(c.first, c.a, c.b), "; ")
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// The function reads a machine that a chroot of links stands for: here, only
// what needs no root, with the paths moved.
func TestFunction(t *testing.T) {
	dir := t.TempDir()
	write := func(name, body string) {
		t.Helper()
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("etc/machine-id", "0123\n")
	write("etc/ssh/ssh_host_rsa_key", "private")
	write("etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAA root@one\n")
	write("etc/ssh/sshd_config.d/other.conf", "  hostkey "+dir+"/srv/own key\nHostKey "+dir+"/srv/own\n")
	write("srv/own", "private only")
	write("etc/puppet/puppet.conf", "[main]\ncertname = web.prod.i-1\n")
	write("etc/puppet/ssl/private_keys/web.pem", "key")
	write("etc/puppet/ssl/certs/ca.pem", "ca")
	write("etc/ssl/private/x.key", "key")
	write("etc/hostid", "abcd")
	read := func() map[string]string {
		t.Helper()
		body := strings.NewReplacer(" /etc/", " "+dir+"/etc/", " /var/lib/", " "+dir+"/var/lib/", "=/etc", "="+dir+"/etc").Replace(Function)
		out, err := exec.Command("sh", "-euc", "FACTS_LIMIT=4000\n"+body+"\nfacts").CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got := map[string]string{}
		for k, v := range Read(string(out)) {
			got[strings.ReplaceAll(k, dir, "")] = v
		}
		return got
	}
	got := read()
	for _, want := range []string{"machine-id", "hostname", "ssh-host-key:/etc/ssh/ssh_host_rsa_key", "ssh-host-key:/srv/own", "certname", "puppet-key:/etc/puppet/ssl/private_keys/web.pem", "file:/etc/ssl/private/x.key", "file:/etc/hostid"} {
		if got[want] == "" {
			t.Errorf("%s was not read: %v", want, got)
		}
	}
	if len(got) != 8 || got["machine-id"] != "0123" || got["certname"] != "web.prod.i-1" {
		t.Errorf("%v", got)
	}
	for k, v := range got {
		if strings.Contains(v, "private") {
			t.Errorf("%s shows a key: %s", k, v)
		}
	}
	// Comments do not make a key another one, nor does a machine-id that is none.
	write("etc/ssh/ssh_host_rsa_key.pub", "ssh-rsa AAAA root@two\n")
	write("etc/machine-id", "uninitialized\n")
	again := read()
	if k := "ssh-host-key:/etc/ssh/ssh_host_rsa_key"; again[k] != got[k] {
		t.Error("the comment counts")
	}
	if again["machine-id"] != "" {
		t.Errorf("%v", again)
	}
}
