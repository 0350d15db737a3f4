// Package secrets looks for keys, tokens and passwords in files: it knows their
// formats, and tells placeholders and package's own files from them. What it
// finds is named by path, line and kind, never by value. It must not know
// images or how it came to the machine.
package secrets

import (
	"bytes"
	"math"
	"path"
	"regexp"
	"strings"
)

// Finding is one secret that is where none may be.
type Finding struct {
	Path string `json:"path"`
	Line int    `json:"line,omitempty"` // from 1; 0 = the whole file
	Kind string `json:"kind"`
}

// form is a format that tells a secret by itself.
type form struct {
	kind string
	re   *regexp.Regexp
	good func(match []byte) bool // nil: every match is one
}

var forms = []form{
	{"private key", regexp.MustCompile(`-----BEGIN (?:RSA |DSA |EC |OPENSSH |ENCRYPTED |PGP )?PRIVATE KEY(?: BLOCK)?-----`), nil},
	{"PuTTY private key", regexp.MustCompile(`^PuTTY-User-Key-File-[23]:`), nil},
	{"age secret key", regexp.MustCompile(`AGE-SECRET-KEY-1[0-9A-Z]{58}`), nil},
	{"AWS access key", regexp.MustCompile(`\b(?:AKIA|ASIA)[0-9A-Z]{16}\b`), func(m []byte) bool { return !bytes.HasSuffix(m, []byte("EXAMPLE")) && varied(m[4:]) }},
	{"AWS secret key", regexp.MustCompile(`(?i)aws_?secret_?(?:access_?)?key["']?\s*[:=]\s*["']?([A-Za-z0-9/+]{40})\b`), last(func(v []byte) bool { return !bytes.HasSuffix(v, []byte("EXAMPLEKEY")) && entropy(v) > 3.5 })},
	{"GitHub token", regexp.MustCompile(`\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b`), varied},
	{"GitLab token", regexp.MustCompile(`\bgl(?:pat|dt|rt|ptt)-[A-Za-z0-9_-]{20,}`), varied},
	{"Slack token", regexp.MustCompile(`\bxox[abprs]-[A-Za-z0-9-]{20,}`), varied},
	{"Slack webhook", regexp.MustCompile(`hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,}`), varied},
	{"Google API key", regexp.MustCompile(`\bAIza[0-9A-Za-z_-]{35}\b`), varied},
	{"Stripe key", regexp.MustCompile(`\b[sr]k_live_[0-9A-Za-z]{20,}\b`), varied},
	{"npm token", regexp.MustCompile(`\bnpm_[A-Za-z0-9]{36}\b`), varied},
	{"PyPI token", regexp.MustCompile(`\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{20,}`), nil},
	{"Dayfly token", regexp.MustCompile(`\bdfl_[A-Za-z0-9_-]{20,}`), varied},
	{"JSON web token", regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}`), nil},
	{"password in an address", regexp.MustCompile(`\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@"'<>]{1,64}:([^\s:/@"'<>]{4,128})@[A-Za-z0-9]`), last(value)},
	{"npm registry login", regexp.MustCompile(`(?i)_(?:authToken|auth|password)\s*=\s*([^\s"']{8,})`), last(value)},
	{"password", regexp.MustCompile(`(?i)(?:^|[\s"'_.-])(?:password|passwd|passphrase|secret|api[_-]?key|auth[_-]?token|access[_-]?token|client[_-]?secret)["']?\s*(?:=>|[:=])\s*["']?([^\s"'#;,]{8,200})`), last(value)},
}

func last(f func([]byte) bool) func([]byte) bool { return f } // of the match's last group

// value tells a password from a placeholder, a reference or a word.
func value(v []byte) bool {
	s := string(v)
	low := strings.ToLower(s)
	for _, p := range []string{"${", "{{", "<%", "%{", "$(", "$", "<", "%", "@", "/", "file:", "env:", "vault:", "lookup(", "hiera(", "enc[", "sensitive("} {
		if strings.HasPrefix(low, p) {
			return false
		}
	}
	for _, p := range []string{"example", "changeme", "change_me", "placeholder", "xxxx", "****", "....", "dummy", "insert", "your", "none", "null", "true", "false", "default", "disabled", "enabled", "required", "optional", "prompt", "secret", "password"} {
		if strings.Contains(low, p) {
			return false
		}
	}
	if strings.ContainsAny(s, "()[]{}<>\\|") { // code
		return false
	}
	digits, letters, signs := 0, 0, 0
	for _, c := range s {
		switch {
		case c >= '0' && c <= '9':
			digits++
		case c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z':
			letters++
		default:
			signs++
		}
	}
	// A word, an option or a name of something is no password.
	return digits > 0 && letters > 0 && entropy(v) > 2.8 && (signs == 0 || digits+letters > 2*signs) && !strings.Contains(s, "::")
}

func varied(v []byte) bool { return entropy(v) > 2.5 }

// entropy of v in bits a byte.
func entropy(v []byte) float64 {
	var n [256]int
	for _, b := range v {
		n[b]++
	}
	e := 0.0
	for _, c := range n {
		if c > 0 {
			p := float64(c) / float64(len(v))
			e -= p * math.Log2(p)
		}
	}
	return e
}

// whole are files that hold secrets by what they are.
var whole = []struct {
	kind string
	re   *regexp.Regexp
	need *regexp.Regexp // in the content; nil = not empty
}{
	{"Puppet's private key", regexp.MustCompile(`/ssl/(?:private_keys|private)/[^/]+\.pem$`), nil},
	{"certificate request attributes with a token", regexp.MustCompile(`/csr_attributes\.yaml$`), nil},
	{"SSH key", regexp.MustCompile(`/\.ssh/id_[a-z0-9]+$`), nil},
	{"SSH login", regexp.MustCompile(`/authorized_keys2?$`), regexp.MustCompile(`(?m)^\s*(?:[a-z].* )?(?:ssh-|ecdsa-|sk-)`)},
	{"netrc login", regexp.MustCompile(`/\.netrc$`), regexp.MustCompile(`password\s+\S`)},
	{"PostgreSQL login", regexp.MustCompile(`/\.pgpass$`), regexp.MustCompile(`(?m)^[^#\s]+:[^:]*:[^:]*:[^:]*:.`)},
	{"AWS credentials", regexp.MustCompile(`/\.aws/credentials$`), regexp.MustCompile(`(?i)aws_secret_access_key\s*=\s*\S`)},
	{"Docker login", regexp.MustCompile(`/(?:\.docker/config\.json|\.dockercfg)$`), regexp.MustCompile(`"(?:auth|password|identitytoken)"\s*:\s*"[^"]`)},
	{"Kubernetes login", regexp.MustCompile(`/\.kube/config$`), regexp.MustCompile(`(?m)(?:client-key-data|token|password):\s*\S`)},
	{"Google credentials", regexp.MustCompile(`application_default_credentials\.json$`), nil},
	{"Git login", regexp.MustCompile(`/\.git-credentials$`), nil},
	{"PyPI login", regexp.MustCompile(`/\.pypirc$`), regexp.MustCompile(`(?m)^\s*password\s*[:=]\s*\S`)},
	{"shell history", regexp.MustCompile(`/\.(?:bash|zsh|sh|ash|psql|mysql|python)_history$`), nil},
	{"login with a password", regexp.MustCompile(`^/etc/shadow-?$`), regexp.MustCompile(`(?m)^[^:]+:\$[0-9a-z]+\$`)},
	{"web password file", regexp.MustCompile(`/\.?htpasswd$`), regexp.MustCompile(`(?m)^[^:#\s]+:(?:\$|\{SHA\})`)},
}

// Match looks through one file. p is its path on the machine; most findings of
// one file are enough to know.
func Match(p string, body []byte) []Finding {
	const most = 10
	var out []Finding
	for _, w := range whole {
		if w.re.MatchString(p) && len(bytes.TrimSpace(body)) > 0 && (w.need == nil || w.need.Match(body)) {
			out = append(out, Finding{Path: p, Kind: w.kind})
		}
	}
	if len(out) > 0 || binary(body) && !bytes.Contains(body, []byte("PRIVATE KEY-----")) {
		return out
	}
	line := 0
	for rest := body; len(rest) > 0 && len(out) < most; {
		var l []byte
		l, rest, _ = bytes.Cut(rest, []byte("\n"))
		line++
		if len(l) > 4096 {
			l = l[:4096]
		}
		if comment(l, p) {
			continue
		}
		for _, f := range forms {
			m := f.re.FindSubmatch(l)
			if m == nil || f.good != nil && !f.good(m[len(m)-1]) {
				continue
			}
			if f.kind == "private key" && !key(rest) {
				continue
			}
			out = append(out, Finding{Path: p, Line: line, Kind: f.kind})
			break
		}
	}
	return out
}

// key tells whether what follows the first line of a private key is one, and not
// a manual's picture of it.
func key(rest []byte) bool {
	n := 0
	for l := range bytes.Lines(rest) {
		l = bytes.TrimSpace(l)
		switch {
		case bytes.HasPrefix(l, []byte("-----")):
			return n >= 40
		case bytes.Contains(l, []byte(": ")) || len(l) == 0: // headers
			continue
		case entropy(l) < 3 && len(l) > 8 || bytes.ContainsAny(l, " .<>"):
			return false
		}
		if n += len(l); n >= 200 {
			return true
		}
	}
	return n >= 40
}

func binary(b []byte) bool { return bytes.IndexByte(b[:min(len(b), 2048)], 0) >= 0 }

// comment tells lines that configure nothing. Keys in comments are keys all the
// same, so those with a key's first line are looked at.
func comment(l []byte, p string) bool {
	t := bytes.TrimSpace(l)
	if bytes.Contains(t, []byte("PRIVATE KEY-----")) {
		return false
	}
	if len(t) == 0 || t[0] == '#' || bytes.HasPrefix(t, []byte("//")) && path.Base(p) != ".npmrc" || bytes.HasPrefix(t, []byte("--")) {
		return true
	}
	return t[0] == ';' && path.Ext(p) != ".sql"
}
