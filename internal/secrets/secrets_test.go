package secrets

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/md5"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	alnum = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
	upper = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
)

// random is n signs that no file of ours holds.
func random(n int, signs string) string {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		panic(err)
	}
	for i := range b {
		b[i] = signs[int(b[i])%len(signs)]
	}
	return string(b)
}

func pemKey(typ string, key any) string {
	var der []byte
	switch k := key.(type) {
	case *rsa.PrivateKey:
		der = x509.MarshalPKCS1PrivateKey(k)
	default:
		der, _ = x509.MarshalPKCS8PrivateKey(k)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
}

type planted struct {
	path, body, kind string
	line             int
	secret           string // what no output may show; "" = the body's longest word
}

func plant(t testing.TB) []planted {
	t.Helper()
	r, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaPEM := pemKey("RSA PRIVATE KEY", r)
	inJSON, err := json.Marshal(map[string]string{"type": "service_account", "private_key": rsaPEM})
	if err != nil {
		t.Fatal(err)
	}
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	url := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	jwt := url(`{"alg":"HS256","typ":"JWT"}`) + "." + url(`{"sub":"`+random(20, alnum)+`"}`) + "." + random(43, alnum)
	pw := "Q7" + random(14, alnum) + "z9"
	hash := "$6$" + random(16, alnum) + "$" + random(86, alnum)
	const gen = "password or token in a configuration"
	ps := []planted{
		{"/srv/app/key.pem", "a certificate comes first\n" + rsaPEM, "private key", 2, ""},
		{"/opt/x/ec", pemKey("EC PRIVATE KEY", e), "private key", 1, ""},
		{"/opt/x/pkcs8", pemKey("PRIVATE KEY", ed), "private key", 1, ""},
		{"/opt/x/enc", strings.Replace(rsaPEM, "KEY-----\n", "KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,"+random(32, "0123456789ABCDEF")+"\n\n", 1), "private key", 1, ""},
		{"/root/.ssh/id_ed25519", string(pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte("openssh-key-v1\x00" + random(200, alnum))})), "private key", 1, ""},
		{"/var/lib/x/pgp", string(pem.EncodeToMemory(&pem.Block{Type: "PGP PRIVATE KEY BLOCK", Bytes: []byte(random(200, alnum))})), "private key", 1, ""},
		{"/opt/x/account", string(inJSON), "private key", 1, ""},
		{"/opt/x/windows.pem", strings.ReplaceAll(rsaPEM, "\n", "\r\n"), "private key", 1, ""},
		{"/home/a/k.ppk", "PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n" + random(60, alnum) + "\n", "private key", 1, ""},
		{"/opt/x/binary", "\x7fELF\x00\x01" + rsaPEM, "private key", 1, ""},
		{"/usr/local/bin/up", "#!/bin/sh\n\nexport KEY=AKIA" + random(16, upper) + "\n", "AWS access key", 3, ""},
		{"/usr/local/bin/up2", "aws_secret_access_key = " + random(40, alnum) + "\n", "AWS secret key", 1, ""},
		{"/opt/x/gh.txt", "ghp_" + random(36, alnum), "GitHub token", 1, ""},
		{"/opt/x/gh2.txt", "github_pat_" + random(22, alnum) + "_" + random(59, alnum), "GitHub token", 1, ""},
		{"/opt/x/gl.txt", "glpat-" + random(20, alnum), "GitLab token", 1, ""},
		{"/opt/x/slack", "xoxb-" + random(12, "0123456789") + "-" + random(24, alnum), "Slack token", 1, ""},
		{"/opt/x/hook", "https://hooks.slack.com/services/T" + random(8, upper) + "/B" + random(8, upper) + "/" + random(24, alnum), "Slack token", 1, ""},
		{"/opt/x/goog", "AIza" + random(35, alnum), "Google key", 1, ""},
		{"/opt/x/stripe", "sk_live_" + random(24, alnum), "Stripe key", 1, ""},
		{"/opt/x/npm", "npm_" + random(36, alnum), "npm token", 1, ""},
		{"/opt/x/pypi", "pypi-AgEIcHlwaS5vcmc" + random(60, alnum), "PyPI token", 1, ""},
		{"/opt/x/jwt", "Bearer " + jwt, "JSON web token", 1, jwt},
		{"/etc/app.conf", "[db]\nuser = x\npassword = " + pw + "\n", gen, 3, pw},
		{"/srv/app/.env", "A=1\nexport API_TOKEN=\"" + pw + "\"\n", gen, 2, pw},
		{"/srv/app/config.yaml", "db:\n  secret_key: '" + pw + "'\n", gen, 2, pw},
		{"/opt/y/settings.json", "{\n \"dbPassword\": \"" + pw + "\"}", gen, 2, pw},
		{"/etc/default/app", "DATABASE_URL=postgres://app:" + pw + "@db/app\n", gen, 1, pw},
		{"/root/.netrc", "machine x login y\npassword " + pw, "login in .netrc", 2, pw},
		{"/home/a/.pgpass", "# c\nh:5432:d:u:" + pw + "\n", "login in .pgpass", 2, pw},
		{"/home/a/.git-credentials", "https://u:" + pw + "@git.corp.test\n", "login in git-credentials", 1, pw},
		{"/root/.docker/config.json", `{"auths":{"r":{"auth":"` + b64("u:"+pw) + `"}}}`, "registry login", 1, ""},
		{"/home/a/.kube/config", "users:\n- name: x\n  user:\n    client-key-data: " + b64(random(60, alnum)) + "\n", "login in kubeconfig", 4, ""},
		{"/etc/nginx/.htpasswd", "# c\nbob:$apr1$" + random(8, alnum) + "$" + random(22, alnum) + "\n", "password hash in htpasswd", 2, ""},
		{"/etc/shadow", "daemon:*:19000:0:::::\nroot:" + hash + ":19000:0:99999:7:::\n", "password hash", 2, hash},
		{"/etc/puppet/csr_attributes.yaml", "extension_requests:\n  pp_preshared_key: " + pw + "\n", "Puppet certificate extension request", 2, pw},
		{"/var/lib/puppet/ssl/private_keys/x.pem", "short", "Puppet private key", 1, "short"},
		{"/root/.npmrc", "//registry/:_authToken=" + pw + "\n", "npm login", 1, pw},
		{"/root/.pypirc", "[pypi]\npassword: " + pw + "\n", "PyPI login", 2, pw},
		{"/root/.aws/credentials", "[default]\naws_access_key_id = x\naws_session_token = " + pw + pw + "\n", "cloud login", 3, pw},
		{"/root/.config/gcloud/c.json", `{"refresh_token": "` + pw + `"}`, "cloud login", 1, pw},
		{"/root/.azure/accessTokens.json", "[1]", "cloud login", 1, "[1]"},
		{"/opt/x/dayfly", "dfl_" + random(32, alnum), "Dayfly token", 1, ""},
		{"/home/ann/.ssh/authorized_keys", "# c\nssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFoo ann\n", "SSH login", 2, "AAAAC3NzaC1lZDI1NTE5AAAAIFoo"},
		{"/home/ann/.ssh/id_rsa", "short-or-of-another-format", "SSH key", 1, "short-or-of-another-format"},
		{"/opt/x/age", "AGE-SECRET-KEY-1" + random(58, upper), "private key", 1, ""},
		{"/var/lib/app/with\x0abinary", "\x00\x01\n" + rsaPEM, "private key", 2, ""},
		{"/root/.bash_history", "mysql -p" + pw + "\n", "shell history", 1, pw},
	}
	return ps
}

// lookalikes are no secrets.
var lookalikes = map[string]string{
	"/usr/local/bin/check":         "grep -q -e '-----BEGIN RSA PRIVATE KEY-----' \"$1\"\nopenssl x > y\n",
	"/opt/x/doc.txt":               "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----\n",
	"/opt/x/same.pem":              "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("A", 64) + "\n",
	"/opt/x/pub.pem":               "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAuGbXWiK3dQTyCbX5xdE4\n-----END PUBLIC KEY-----\n",
	"/opt/x/aws":                   "AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
	"/opt/x/base64":                "QUtJQUFLSUFBS0lBQUtJQUFLSUE=\n",
	"/opt/x/gh":                    "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n",
	"/opt/x/jwt":                   "eyJub3QiOiJhIGhlYWRlciJ9.eyJub3QiOiJhIGhlYWRlciJ9.aaaaaaaaaaaaaaaaaaaaaaaa",
	"/etc/app.conf":                "# password = R3allySecr3tThing\npassword = changeme\ntoken = ${TOKEN}\npasswd_file = /etc/app/pw\nsecret = <your-secret>\napi_key = \"{{ key }}\"\npassword=\npassword = $(cat /run/x)\nsecret: /run/secrets/db\npassword: prompt\nauth_token = %(TOKEN)s\n",
	"/etc/nsswitch.conf":           "passwd:         files systemd\nshadow:         files\n",
	"/etc/pam.d/common-password":   "password\t[success=1 default=ignore]\tpam_unix.so obscure yescrypt\n",
	"/etc/ssh/sshd_config":         "PasswordAuthentication no\nPermitEmptyPasswords no\n",
	"/etc/login.defs":              "ENCRYPT_METHOD SHA512\nPASS_MAX_DAYS\t99999\n",
	"/etc/x.yaml":                  "secretName: app-secret-store\ntoken_url: https://login.corp.test/token\npassword: \"*\"\n",
	"/etc/default/url":             "URL=postgres://app:${PASSWORD}@db/app\nU=http://proxy:3128/\n",
	"/etc/shadow":                  "root:*:19000:0:99999:7:::\nx:!:19000::::::\ny:!$6$a$b:1::::::\nz::1::::::\n",
	"/etc/passwd":                  "root:x:0:0:root:/root:/bin/bash\n",
	"/home/a/.pgpass":              "# h:5432:d:u:realpassword1\n*:*:*:u:\n",
	"/root/.docker/config.json":    `{"auths":{"r":{}},"credsStore":"pass"}`,
	"/root/.kube/config":           "users:\n- name: x\n  user:\n    client-certificate: /x\n",
	"/root/.netrc":                 "machine x login y\n",
	"/root/.aws/config":            "[default]\nregion = eu-central-1\n",
	"/etc/puppet/puppet.conf":      "[main]\nssldir = /var/lib/puppet/ssl\n",
	"/root/.npmrc":                 "//registry/:_authToken=${NPM_TOKEN}\n",
	"/usr/share/app/defaults.conf": "password = Sup3rS3cretDefaultX\n",
	"/etc/template":                "password: ${DB_PASSWORD}\npassword = {{ vault_password }}\nsecret: <%= @secret %>\napi_key: $API_KEY\n",
	"/etc/words":                   "password: required\nsecret = enabled\nauth_token: /etc/app/token1\n",
	"/etc/code.rb":                 "password = params.fetch(:password1)\n",
	"/usr/share/doc/x":             "see https://user:pass@host/\n",
	"/home/a/.ssh/id_rsa.pub":      "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQC a\n",
	"/etc/ssh/ssh_host_rsa_key":    "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n", // the machine's own, made at boot
}

func write(t testing.TB, root, name, body string) {
	t.Helper()
	p := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(body), 0o600); err != nil {
		t.Fatal(err)
	}
}

func scan(t testing.TB, root string, allow ...string) Result {
	t.Helper()
	r, err := Scan(t.Context(), Config{Root: root, Own: []string{"/etc/ssh/ssh_host_*"}, Allow: allow, Most: 500})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestPlanted(t *testing.T) {
	root := t.TempDir()
	ps := plant(t)
	for _, p := range ps {
		write(t, root, p.path, p.body)
	}
	r := scan(t, root)
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ps {
		want := Finding{p.path, p.line, p.kind}
		if !slices.Contains(r.Findings, want) {
			t.Errorf("%s was not found", want)
		}
		// The output never has the secret itself.
		secret := p.secret
		if secret == "" {
			for _, w := range strings.FieldsFunc(p.body, func(r rune) bool { return strings.ContainsRune(" \n\r\"=/", r) }) {
				if len(w) > len(secret) {
					secret = w
				}
			}
		}
		if len(secret) > 6 && strings.Contains(string(raw), secret) {
			t.Errorf("%s is shown", want)
		}
	}
	if r.Files != len(ps) || r.More {
		t.Errorf("%d of %d files; more: %v", r.Files, len(ps), r.More)
	}
	// An exception is for a path, or for all below a folder.
	r = scan(t, root, "/opt/", "/etc/shadow", "/home/a/.pg", "/srv/app/*.pem")
	for _, f := range r.Findings {
		if strings.HasPrefix(f.Path, "/opt/") || f.Path == "/etc/shadow" || f.Path == "/srv/app/key.pem" {
			t.Errorf("%s is allowed", f)
		}
	}
	if !slices.ContainsFunc(r.Findings, func(f Finding) bool { return f.Path == "/home/a/.pgpass" }) {
		t.Error("an exception reaches further than its path")
	}
}

func TestLookalikes(t *testing.T) {
	root := t.TempDir()
	for p, body := range lookalikes {
		write(t, root, p, body)
	}
	for _, f := range scan(t, root).Findings {
		t.Errorf("%s is no secret", f)
	}
}

// What a package brought is nobody's secret until somebody changes it.
func TestPackages(t *testing.T) {
	root := t.TempDir()
	key := plant(t)[0].body
	write(t, root, "/usr/share/ssl-tests/key.pem", key)
	write(t, root, "/usr/share/ssl-tests/other.pem", key)
	write(t, root, "/var/lib/dpkg/status", "Package: tests\nStatus: install ok installed\nVersion: 1\n")
	write(t, root, "/var/lib/dpkg/info/tests.list", "/usr/share/ssl-tests/key.pem\n")
	write(t, root, "/var/lib/dpkg/info/tests.md5sums", fmt.Sprintf("%x  usr/share/ssl-tests/key.pem\n", md5.Sum([]byte(key))))
	if got := scan(t, root).Findings; len(got) != 1 || got[0].Path != "/usr/share/ssl-tests/other.pem" {
		t.Errorf("%v", got)
	}
	write(t, root, "/usr/share/ssl-tests/key.pem", "changed\n"+key)
	if got := scan(t, root).Findings; len(got) != 2 {
		t.Errorf("a changed file of a package: %v", got)
	}
}

// Huge files, loops, FIFOs, files that cannot be read: a scan ends and says so.
func TestBadFiles(t *testing.T) {
	root := t.TempDir()
	write(t, root, "/etc/found", "ghp_"+random(36, alnum))
	huge := filepath.Join(root, "huge")
	if err := os.WriteFile(huge, []byte("ghp_"+random(36, alnum)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, 1<<40); err != nil { // a terabyte of holes
		t.Fatal(err)
	}
	if err := os.Symlink(".", filepath.Join(root, "etc/loop")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("self", filepath.Join(root, "etc/self")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(root, "etc/fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	write(t, root, "/etc/line", "password = "+strings.Repeat("x", 3<<20))
	write(t, root, "/etc/bytes", "\xff\xfe\x80password=\x00\n")
	write(t, root, "/etc/new\nline", "ghp_"+random(36, alnum))
	began := time.Now()
	r := scan(t, root)
	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("it took %s", d)
	}
	if len(r.Findings) != 3 || r.More {
		t.Errorf("%+v", r)
	}
	for _, f := range r.Findings {
		if strings.Contains(f.String(), "\n") {
			t.Errorf("%q has two lines", f.String())
		}
	}
	if r, err := Scan(t.Context(), Config{Root: root, Most: 2}); err != nil || len(r.Findings) != 2 || !r.More {
		t.Errorf("%+v, %v", r, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Scan(ctx, Config{Root: root}); err == nil {
		t.Error("a scan that was ended says nothing")
	}
}

// Whatever a file holds: the matchers end, and name lines that are there.
func FuzzFind(f *testing.F) {
	for _, p := range plant(f) {
		f.Add(p.path, []byte(p.body))
	}
	for p, body := range lookalikes {
		f.Add(p, []byte(body))
	}
	f.Fuzz(func(t *testing.T, p string, data []byte) {
		n := 1 + strings.Count(string(data), "\n")
		for _, x := range Find(p, data) {
			if x.Path != p || x.Line < 1 || x.Line > n || !kinds[x.Kind] {
				t.Fatalf("%+v of %d lines", x, n)
			}
		}
	})
}

// kinds are all there are: a kind is a constant, and never made of the secret.
var kinds = func() map[string]bool {
	m := map[string]bool{"password or token in a configuration": true}
	for _, f := range formats {
		m[f.kind] = true
	}
	for _, n := range named {
		m[n.kind] = true
	}
	return m
}()

// BenchmarkScan reads a real root file system: DAYFLY_TEST_ROOT, or this one's.
func BenchmarkScan(b *testing.B) {
	root := os.Getenv("DAYFLY_TEST_ROOT")
	if root == "" {
		b.Skip("DAYFLY_TEST_ROOT is not set")
	}
	var r Result
	for b.Loop() {
		r = scan(b, root)
	}
	b.ReportMetric(float64(r.Files), "files")
	for _, f := range r.Findings {
		b.Log(f)
	}
}
