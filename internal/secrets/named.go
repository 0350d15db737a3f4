package secrets

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"path"
	"regexp"
	"strings"
)

// holder is a file that is there to hold secrets, known by its name.
type holder struct {
	kind string
	is   func(p string) bool
	find func(data []byte, found func(line int))
}

var named = []holder{
	{"login in .netrc", base(".netrc", "_netrc"), netrc},
	{"login in .pgpass", base(".pgpass"), lines(func(l string) bool {
		f := fields(l, ':')
		return len(f) == 5 && f[4] != "" && !placeholder(f[4])
	})},
	{"login in git-credentials", base(".git-credentials"), lines(func(l string) bool { return address.MatchString(l) })},
	{"registry login", func(p string) bool {
		return strings.HasSuffix(p, "/.docker/config.json") || path.Base(p) == ".dockercfg" || strings.HasSuffix(p, "/containers/auth.json")
	}, docker},
	{"login in kubeconfig", func(p string) bool {
		return strings.Contains(p, "/.kube/") || strings.HasPrefix(p, "/etc/kubernetes/") && strings.HasSuffix(p, ".conf") || strings.Contains(path.Base(p), "kubeconfig")
	}, matching(`^\s*(?:- )?["']?(?:client-key-data|token|password)["']?\s*:\s*["']?([^\s"'#]{8,})`)},
	{"password hash in htpasswd", func(p string) bool { return strings.Contains(path.Base(p), "htpasswd") }, lines(func(l string) bool {
		_, hash, ok := strings.Cut(l, ":")
		return ok && hash != "" && !strings.HasPrefix(l, "#") && usable(hash)
	})},
	{"password hash", func(p string) bool {
		return p == "/etc/shadow" || p == "/etc/gshadow" || p == "/etc/shadow-" || p == "/etc/gshadow-"
	}, lines(func(l string) bool {
		f := strings.Split(l, ":")
		return len(f) > 1 && usable(f[1])
	})},
	{"password hash", is("/etc/passwd", "/etc/passwd-"), lines(func(l string) bool {
		f := strings.Split(l, ":")
		return len(f) == 7 && usable(f[1])
	})},
	{"Puppet certificate extension request", base("csr_attributes.yaml"), matching(`^\s+["']?[\w.:]+["']?\s*:\s*["']?([^\s"'#]+)`)},
	{"Puppet private key", func(p string) bool { return strings.Contains(p, "/ssl/private_keys/") }, any1},
	{"SSH key", func(p string) bool {
		return strings.HasPrefix(path.Base(p), "id_") && strings.HasSuffix(path.Dir(p), "/.ssh") && !strings.HasSuffix(p, ".pub")
	}, any1},
	{"SSH login", base("authorized_keys", "authorized_keys2"), matching(`^\s*((?:[a-z].* )?(?:ssh-|ecdsa-|sk-)\S+)`)},
	{"npm login", base(".npmrc", "npmrc"), matching(`(?:_authToken|_auth|_password)\s*=\s*["']?([^\s"']{8,})`)},
	{"PyPI login", base(".pypirc"), matching(`^\s*password\s*[=:]\s*(\S+)`)},
	{"cloud login", func(p string) bool { return strings.HasSuffix(p, "/.aws/credentials") }, matching(`^\s*aws_(?:secret_access_key|session_token)\s*=\s*(\S{16,})`)},
	{"cloud login", func(p string) bool {
		return strings.Contains(p, "/.config/gcloud/") || path.Base(p) == "application_default_credentials.json"
	}, matching(`"(?:refresh_token|private_key|access_token)"\s*:\s*"([^"]{8,})`)},
	{"cloud login", func(p string) bool {
		return strings.Contains(p, "/.azure/") && (path.Base(p) == "accessTokens.json" || strings.HasPrefix(path.Base(p), "msal_token_cache"))
	}, any1},
	{"shell history", func(p string) bool {
		b := path.Base(p)
		return strings.HasPrefix(b, ".") && strings.HasSuffix(b, "_history") || b == ".history" || b == "fish_history"
	}, any1},
}

func base(names ...string) func(string) bool {
	return func(p string) bool {
		for _, n := range names {
			if path.Base(p) == n {
				return true
			}
		}
		return false
	}
}

func is(paths ...string) func(string) bool {
	return func(p string) bool {
		for _, q := range paths {
			if p == q {
				return true
			}
		}
		return false
	}
}

// any1 is for files that are a secret whatever is in them.
func any1(data []byte, found func(int)) {
	if len(bytes.TrimSpace(data)) > 0 {
		found(1)
	}
}

func lines(secret func(string) bool) func([]byte, func(int)) {
	return func(data []byte, found func(int)) {
		n := 0
		for line := range bytes.Lines(data) {
			n++
			if l := strings.TrimRight(string(line[:min(len(line), 4096)]), "\r\n"); !strings.HasPrefix(l, "#") && secret(l) {
				found(n)
			}
		}
	}
}

// matching finds lines whose first group is no placeholder.
func matching(form string) func([]byte, func(int)) {
	re := regexp.MustCompile(form)
	return lines(func(l string) bool {
		m := re.FindStringSubmatch(l)
		return m != nil && !placeholder(m[1])
	})
}

// netrc has words, on one line or on many.
func netrc(data []byte, found func(int)) {
	n, next := 0, false
	for line := range bytes.Lines(data) {
		n++
		for _, w := range strings.Fields(string(line[:min(len(line), 4096)])) {
			if strings.HasPrefix(w, "#") {
				break
			}
			if next && !placeholder(w) {
				found(n)
			}
			next = w == "password" && !next
		}
	}
}

func docker(data []byte, found func(int)) {
	var c struct {
		Auths map[string]struct {
			Auth          string `json:"auth"`
			Password      string `json:"password"`
			IdentityToken string `json:"identitytoken"`
		} `json:"auths"`
	}
	if json.Unmarshal(data, &c) != nil {
		return
	}
	for _, a := range c.Auths {
		raw, err := base64.StdEncoding.DecodeString(a.Auth)
		if err == nil && bytes.Contains(raw, []byte(":")) || a.Password != "" || a.IdentityToken != "" {
			found(1)
		}
	}
}

var des = regexp.MustCompile(`^[./0-9A-Za-z]{13}$`)

// usable tells whether somebody can log in with this field of a password file:
// locked ones begin with ! or *.
func usable(hash string) bool {
	return strings.HasPrefix(hash, "$") && strings.Count(hash, "$") >= 3 || strings.HasPrefix(hash, "{SHA}") || strings.HasPrefix(hash, "{SSHA}") || des.MatchString(hash)
}

// fields splits at a sign that a backslash may hide.
func fields(s string, sep byte) []string {
	out, cur := []string{}, strings.Builder{}
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			cur.WriteByte(s[i])
		case s[i] == sep:
			out = append(out, cur.String())
			cur.Reset()
		default:
			cur.WriteByte(s[i])
		}
	}
	return append(out, cur.String())
}
