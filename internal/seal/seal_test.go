package seal

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// machine is a Debian's file system, in which scripts run by chroot.
type machine struct {
	t    *testing.T
	root string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	if testing.Short() || os.Geteuid() != 0 {
		t.Skip("needs root and a base image")
	}
	dir := os.Getenv("DAYFLY_TEST_BASEIMAGES")
	if dir == "" {
		dir = "/var/cache/dayfly"
	}
	tars, err := filepath.Glob(filepath.Join(dir, "debian-12-slim-*.tar"))
	if err != nil || len(tars) == 0 {
		t.Skip("no base image below " + dir)
	}
	m := &machine{t, t.TempDir()}
	if out, err := exec.Command("tar", "-C", m.root, "--exclude=./dev/*", "-xf", tars[0]).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.MkdirAll(filepath.Join(m.root, "dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mknod(filepath.Join(m.root, "dev/null"), syscall.S_IFCHR|0o666, 1<<8|3); err != nil {
		t.Fatal(err)
	}
	// What a bake has made when it is sealed.
	m.write("/etc/dayfly/handoff.json", "{}", 0o644)
	m.write("/usr/lib/dayfly/dayfly-agent", "#!/bin/sh\n", 0o755)
	m.write("/var/lib/dayfly/bake/inputs/x", "x", 0o644)
	return m
}

func (m *machine) write(name, body string, mode fs.FileMode) {
	m.t.Helper()
	p := filepath.Join(m.root, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(body), mode); err != nil {
		m.t.Fatal(err)
	}
}

// read is a file's contents; "" is one that is empty or is not there.
func (m *machine) read(name string) string {
	raw, _ := os.ReadFile(filepath.Join(m.root, name))
	return string(raw)
}

func (m *machine) there(name string) bool {
	_, err := os.Lstat(filepath.Join(m.root, name))
	return err == nil
}

func (m *machine) seal() (out string, ok bool) {
	m.t.Helper()
	cmd := exec.Command("/bin/sh")
	cmd.Stdin, cmd.Dir = strings.NewReader(Script()), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: m.root, Cloneflags: syscall.CLONE_NEWUTS}
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	err := cmd.Run()
	if _, exit := err.(*exec.ExitError); err != nil && !exit {
		m.t.Fatal(err)
	}
	return b.String(), err == nil
}

// removed is what makes a builder this one, or is a trace of its making:
// every line of the design's order of sealing.
var removed = []string{
	// Puppet's identity and memory, at Debian's, Puppet's own and older places.
	"/etc/puppet/csr_attributes.yaml", "/etc/puppetlabs/puppet/csr_attributes.yaml",
	"/var/lib/puppet/ssl/private_keys/web.pem", "/var/lib/puppet/ssl/certs/web.pem", "/etc/puppetlabs/puppet/ssl/ca/ca.pem", "/etc/puppet/ssl/public_keys/x.pem",
	"/var/cache/puppet/client_data/catalog/web.json", "/var/cache/puppet/state/agent_disabled.lock", "/var/cache/puppet/state/last_run_summary.yaml", "/var/cache/puppet/state/last_run_report.yaml",
	"/var/cache/puppet/public/last_run_summary.yaml", "/var/cache/puppet/clientbucket/a/b/contents", "/var/cache/puppet/reports/web/1.yaml",
	"/opt/puppetlabs/puppet/cache/state/agent_disabled.lock", "/opt/puppetlabs/puppet/cache/clientbucket/x", "/opt/puppetlabs/puppet/public/last_run_summary.yaml", "/opt/puppetlabs/puppet/cache/client_data/x",
	"/var/lib/dayfly/bake/inputs/x",
	// Identity.
	"/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ed25519_key.pub", "/etc/ssl/private/ssl-cert-snakeoil.key", "/var/lib/dbus/machine-id",
	"/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/var/lib/systemd/credential.secret", "/var/lib/NetworkManager/secret_key",
	"/var/lib/dhcp/dhclient.eth0.leases", "/var/lib/dhcp/dhclient.leases", "/var/lib/NetworkManager/x.lease",
	// Logins and traces of people, wherever their homes are.
	"/root/.ssh/authorized_keys", "/home/admin/.ssh/authorized_keys2", "/srv/git/.ssh/authorized_keys", "/root/.bash_history", "/home/admin/.mysql_history", "/srv/git/.sh_history",
	"/root/.aws/credentials", "/home/admin/.netrc", "/root/.lesshst", "/home/admin/.viminfo", "/root/.wget-hsts", "/root/.cache/x", "/root/.ssh/known_hosts",
	"/var/log/journal/0123/system.journal", "/var/log/dayfly/agent.log", "/var/log/syslog.1", "/var/log/dpkg.log.2.gz",
	"/var/cache/apt/archives/jq_1_amd64.deb", "/var/lib/apt/lists/deb.example_Release", "/tmp/left", "/var/tmp/left/over", "/tmp/.hidden",
	"/var/lib/dayfly/fired", "/var/lib/dayfly/report.json", "/etc/dayfly/instance.env",
}

func TestSealAFullBuilder(t *testing.T) {
	m := newMachine(t)
	for _, f := range removed {
		m.write(f, "of this machine", 0o600)
	}
	m.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444)
	m.write("/etc/hostname", "builder\n", 0o644)
	m.write("/etc/hosts", "127.0.0.1 localhost\n10.0.0.1 builder # dayfly\n", 0o644)
	m.write("/etc/puppet/puppet.conf", "[main]\nserver = puppet.corp\ncertname = bake-1\n  environment=production\n", 0o644)
	m.write("/var/log/syslog", "lines", 0o644)
	m.write("/etc/passwd", m.read("/etc/passwd")+"admin:x:1000:1000::/home/admin:/bin/sh\ngit:x:1001:1001::/srv/git:/bin/sh\n", 0o644)
	m.write("/etc/shadow", strings.Replace(m.read("/etc/shadow"), "root:*:", "root:$6$salt$hash:", 1)+"admin:!:19000:0:99999:7:::\ngit:*:19000:0:99999:7:::\n", 0o640)
	m.write("/usr/bin/cloud-init", "#!/bin/sh\nif [ \"$2\" = --help ]; then echo --configs; exit; fi\necho \"$*\" >/cloud-init.said\n", 0o755)
	if !strings.Contains(m.read("/etc/shadow"), "root:$6$") {
		t.Fatal("root has no password to begin with")
	}
	out, ok := m.seal()
	if !ok {
		t.Fatalf("not sealed:\n%s", out)
	}
	for _, f := range removed {
		if m.there(f) {
			t.Errorf("%s is still there", f)
		}
	}
	for _, f := range []string{"/etc/machine-id", "/etc/hostname", "/var/log/syslog"} {
		if !m.there(f) || m.read(f) != "" {
			t.Errorf("%s is not there or not empty: %q", f, m.read(f))
		}
	}
	if got := m.read("/etc/hosts"); got != "127.0.0.1 localhost\n" {
		t.Errorf("/etc/hosts: %q", got)
	}
	if got := m.read("/etc/puppet/puppet.conf"); got != "[main]\nserver = puppet.corp\n" {
		t.Errorf("puppet.conf: %q", got)
	}
	if got := m.read("/cloud-init.said"); got != "clean --logs --machine-id --seed --configs all\n" {
		t.Errorf("cloud-init was asked for %q", got)
	}
	if !strings.Contains(m.read("/etc/shadow"), "\nroot:!") && !strings.HasPrefix(m.read("/etc/shadow"), "root:!") {
		t.Errorf("root is not locked: %s", m.read("/etc/shadow"))
	}
	// What a builder was is printed before it is gone, for the canaries.
	for _, want := range []string{"fact machine-id 0123456789abcdef", "fact certname bake-1", "fact ssh-host-key:/etc/ssh/ssh_host_rsa_key sha256:"} {
		if !strings.Contains(out, want) {
			t.Errorf("the builder's identity lacks %q:\n%s", want, out)
		}
	}
	// Sealing twice is sealing once.
	if out, ok := m.seal(); !ok {
		t.Errorf("the second time:\n%s", out)
	}
}

// What sealing may not throw away, because somebody wants it, makes no image:
// the path and the kind are named, the secret is not.
func TestSealFindsSecrets(t *testing.T) {
	m := newMachine(t)
	const secret = "c2VjcmV0"
	key := "-----BEGIN RSA PRIVATE KEY-----\n" + secret + "\n-----END RSA PRIVATE KEY-----\n"
	shadow := m.read("/etc/shadow")
	for _, c := range []struct{ file, body, kind string }{
		{"/etc/ssl/private/corp.key", key, "a private key"},
		{"/srv/app/tls.pem", key, "a private key"},
		{"/opt/app/key", key, "a private key"},
		{"/var/lib/app/key", key, "a private key"},
		{"/home/admin/.ssh/id_ed25519", "-----BEGIN OPENSSH PRIVATE " + "KEY-----\n" + secret, "an SSH key"},
		{"/root/.docker/config.json", `{"auths":{"x":{"auth":"` + secret + `"}}}`, "a login"},
		{"/root/.git-credentials", "https://u:" + secret + "@git.corp", "a login"},
		{"/etc/shadow", shadow + "bob:$6$" + secret + "$h:19000:0:99999:7:::\n", "a password of bob"},
		{"/etc/shadow", shadow + "bob::19000:0:99999:7:::\n", "a password of bob"},
	} {
		before := m.read(c.file)
		m.write(c.file, c.body, 0o600)
		m.write("/etc/dayfly/handoff.json", "{}", 0o644)
		out, ok := m.seal()
		if ok || !strings.Contains(out, "left behind: "+c.file+": "+c.kind) {
			t.Errorf("%s as %s was not found:\n%s", c.file, c.kind, out)
		}
		if strings.Contains(out, secret) {
			t.Errorf("the secret of %s is shown:\n%s", c.file, out)
		}
		if before != "" {
			m.write(c.file, before, 0o640)
		} else if err := os.Remove(filepath.Join(m.root, c.file)); err != nil {
			t.Fatal(err)
		}
	}
	if out, ok := m.seal(); !ok {
		t.Errorf("without them it cannot be sealed:\n%s", out)
	}
	if err := os.Remove(filepath.Join(m.root, "/etc/dayfly/handoff.json")); err != nil {
		t.Fatal(err)
	}
	if out, ok := m.seal(); ok || !strings.Contains(out, "not armed") {
		t.Errorf("sealed without a hand-off:\n%s", out)
	}
}
