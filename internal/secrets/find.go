// Package secrets looks for keys, tokens and passwords in files: it knows their
// formats, and files that are there to hold them, and tells placeholders and
// packages' own files from them. What it finds is named by path, line and kind,
// never by value. It must not know images or how it came to the machine.
package secrets

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Finding is one secret that is where none may be.
type Finding struct {
	Path string `json:"path"`
	Line int    `json:"line"` // from 1
	Kind string `json:"kind"`
}

// String is the finding for people, on one line whatever the path is.
func (f Finding) String() string {
	p := f.Path
	if strings.ContainsFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f || r == 0xfffd }) {
		p = fmt.Sprintf("%q", p)
	}
	return fmt.Sprintf("%s:%d: %s", p, f.Line, f.Kind)
}

// Find gives the secrets in one file's content: one of each kind and line, in
// the order of lines. It is pure.
func Find(p string, data []byte) []Finding {
	var out []Finding
	add := func(line int, kind string) {
		f := Finding{Path: p, Line: line, Kind: kind}
		if !slices.Contains(out, f) && len(out) < perFile {
			out = append(out, f)
		}
	}
	at := func(offset int) int { return 1 + bytes.Count(data[:offset], []byte("\n")) }
	for _, f := range formats {
		f.each(data, func(from, to int) {
			if f.real == nil || f.real(data[from:to], data[to:]) {
				add(at(from), f.kind)
			}
		})
	}
	for _, n := range named {
		if n.is(p) {
			n.find(data, func(line int) { add(line, n.kind) })
		}
	}
	if config(p) && text(data) {
		assignments(data, func(line int) { add(line, "password or token in a configuration") })
	}
	slices.SortStableFunc(out, func(a, b Finding) int { return a.Line - b.Line })
	return out
}

// perFile bounds the findings of one kind in one file: one is too many already.
const perFile = 20

// format is a secret that is known by how it looks, wherever it is.
type format struct {
	kind    string
	anchors []string // one of them is in every such secret
	form    *regexp.Regexp
	real    func(match, rest []byte) bool // nil: the form is enough
}

const (
	// before and behind an anchor are the bytes in which the form is looked for:
	// a form over whole binaries costs seconds.
	before, behind = 96, 8 << 10
	maxAnchors     = 20_000
)

// each calls f for what has the form, around the anchors.
func (f format) each(data []byte, found func(from, to int)) {
	for _, a := range f.anchors {
		done := 0 // bytes that a match has used
		for pos, n := 0, 0; n < maxAnchors; n++ {
			i := bytes.Index(data[pos:], []byte(a))
			if i < 0 {
				break
			}
			i += pos
			pos = i + len(a)
			if i < done {
				continue
			}
			start := max(done, i-before)
			if nl := bytes.LastIndexByte(data[start:i], '\n'); nl >= 0 {
				start += nl + 1
			}
			if m := f.form.FindIndex(data[start:min(len(data), i+behind)]); m != nil {
				done = start + m[1]
				found(start+m[0], done)
			}
		}
	}
}

var formats = []format{
	{"private key", []string{"PRIVATE KEY-----", "PRIVATE KEY BLOCK-----"}, regexp.MustCompile(`-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----`), keyFollows},
	{"private key", []string{"PRIVATE KEY ----"}, regexp.MustCompile(`---- BEGIN SSH2 (?:ENCRYPTED )?PRIVATE KEY ----`), keyFollows},
	{"private key", []string{"PuTTY-User-Key-File-"}, regexp.MustCompile(`PuTTY-User-Key-File-[23]: [a-z0-9-]+\r?\n`), nil},
	{"private key", []string{"AGE-SECRET-KEY-1"}, regexp.MustCompile(`AGE-SECRET-KEY-1[A-Z0-9]{58}\b`), varied},
	{"AWS access key", []string{"AKIA", "ASIA"}, regexp.MustCompile(`\b(?:AKIA|ASIA)[A-Z2-7]{16}\b`), varied},
	{"AWS secret key", []string{"ecret"}, regexp.MustCompile(`(?i)aws_?secret_?(?:access_?)?key["']?\s{0,4}[=:]\s{0,4}["']?[A-Za-z0-9/+]{40}\b`), varied},
	{"AWS secret key", []string{"SECRET"}, regexp.MustCompile(`AWS_SECRET_ACCESS_KEY["']?\s{0,4}[=:]\s{0,4}["']?[A-Za-z0-9/+]{40}\b`), varied},
	{"GitHub token", []string{"ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"}, regexp.MustCompile(`\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,})\b`), varied},
	{"GitLab token", []string{"glpat-", "glrt-", "gldt-", "glptt-"}, regexp.MustCompile(`\bgl(?:pat|rt|dt|ptt)-[A-Za-z0-9_-]{20,}`), varied},
	{"Slack token", []string{"xox", "hooks.slack.com"}, regexp.MustCompile(`\bxox[abeoprs]-[0-9A-Za-z-]{20,}|hooks\.slack\.com/services/T[A-Z0-9]{6,}/B[A-Z0-9]{6,}/[A-Za-z0-9]{20,}`), varied},
	{"Google key", []string{"AIza", "ya29."}, regexp.MustCompile(`\bAIza[0-9A-Za-z_-]{35}\b|\bya29\.[0-9A-Za-z_-]{40,}`), varied},
	{"Google key", []string{"GOCSPX-"}, regexp.MustCompile(`\bGOCSPX-[0-9A-Za-z_-]{28}\b`), varied},
	{"Stripe key", []string{"_live_"}, regexp.MustCompile(`\b[sr]k_live_[0-9A-Za-z]{20,}\b`), varied},
	{"npm token", []string{"npm_"}, regexp.MustCompile(`\bnpm_[A-Za-z0-9]{36}\b`), varied},
	{"PyPI token", []string{"pypi-AgE"}, regexp.MustCompile(`\bpypi-AgE[A-Za-z0-9_-]{50,}`), varied},
	{"Dayfly token", []string{"dfl_"}, regexp.MustCompile(`\bdfl_[A-Za-z0-9_-]{20,}`), varied},
	{"JSON web token", []string{"eyJ"}, regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{16,}`), webToken},
}

var keyBody = regexp.MustCompile(`^[A-Za-z0-9+/=]{32,}`)

// keyFollows tells a key from a text that speaks of one: behind the header, and
// lines such as Proc-Type, there is base64.
func keyFollows(_, rest []byte) bool {
	rest = rest[:min(len(rest), 600)]
	rest = bytes.ReplaceAll(rest, []byte(`\n`), []byte("\n")) // within JSON
	rest = bytes.ReplaceAll(rest, []byte(`\r`), nil)
	for line := range bytes.Lines(rest) {
		line = bytes.Trim(line, " \t\r\n\"'\\+,;")
		switch {
		case len(line) == 0:
		case bytes.HasPrefix(line, []byte("-----")), bytes.HasPrefix(line, []byte("---- ")):
			return false
		case keyBody.Match(line):
			return varied(line, nil)
		case bytes.Contains(line, []byte(": ")):
		default:
			return false
		}
	}
	return false
}

// varied tells a token from an example of one.
func varied(match, _ []byte) bool {
	s := string(match)
	return !strings.Contains(strings.ToUpper(s), "EXAMPLE") && !strings.Contains(strings.ToLower(s), "xxxx") && entropy(s) >= 3
}

func webToken(match, _ []byte) bool {
	head, _, _ := bytes.Cut(match, []byte("."))
	raw, err := base64.RawURLEncoding.DecodeString(string(head))
	if err != nil {
		return false
	}
	var h struct {
		Alg string `json:"alg"`
	}
	return json.Unmarshal(raw, &h) == nil && h.Alg != ""
}

// text tells a text from a binary by its beginning, as grep does.
func text(data []byte) bool { return !bytes.Contains(data[:min(len(data), 8<<10)], []byte{0}) }

// config tells whether a file is one that configures something.
func config(p string) bool {
	dir, base := path.Split(p)
	if strings.HasPrefix(base, ".env") || strings.HasSuffix(base, ".env") {
		return true
	}
	if strings.HasPrefix(p, "/etc/") && !strings.HasPrefix(p, "/etc/ssl/certs/") {
		switch path.Ext(base) {
		case ".pp", ".md", ".py", ".pl", ".rb", ".so", ".crt":
			return false
		}
		return true
	}
	if strings.HasPrefix(p, "/usr/share/") || strings.HasPrefix(p, "/usr/lib/") || strings.Contains(dir, "/doc/") {
		return false
	}
	switch path.Ext(base) {
	case ".conf", ".cnf", ".cfg", ".ini", ".yaml", ".yml", ".json", ".properties", ".toml", ".xml", ".tfvars", ".tfstate":
		return true
	}
	return false
}

var assignment = regexp.MustCompile(`(?i)\b([a-z0-9_.-]*(?:password|passwd|passphrase|pwd|secret|secret_?key|token|api_?key|access_?key|auth_?key|private_?key|credentials?))["']?\s{0,4}(?:=>|[:=])\s{0,4}("[^"]+"|'[^']+'|[^\s"',;#]+)`)

// address is a password within an address.
var address = regexp.MustCompile(`\b[a-z][a-z0-9+.-]*://[^\s:/@"']+:([^\s/@"']{3,})@[A-Za-z0-9\[]`)

// assignments finds lines that give a password or token a value that is no
// placeholder.
func assignments(data []byte, found func(line int)) {
	n := 0
	for line := range bytes.Lines(data) {
		n++
		if len(line) > 4096 {
			line = line[:4096]
		}
		if c := bytes.TrimLeft(line, " \t"); len(c) == 0 || c[0] == '#' || c[0] == ';' {
			continue // a comment
		}
		if !bytes.ContainsAny(line, ":=") {
			continue
		}
		if m := assignment.FindSubmatch(line); m != nil && secretValue(string(m[1]), string(m[2])) {
			found(n)
			continue
		}
		if bytes.Contains(line, []byte("://")) {
			if m := address.FindSubmatch(line); m != nil && !placeholder(string(m[1])) {
				found(n)
			}
		}
	}
}

var (
	words = []string{"changeme", "change_me", "change-me", "example", "placeholder", "redacted", "xxxx", "****", "your", "dummy", "notset", "not_set", "prompt", "required", "optional", "default", "insert", "replace", "undef", "secretsmanager", "arn:aws:", "vault:", "ssm:", "env:", "file:", "keyring", "keychain", "lookup", "hiera", "sealed"}
	// wordy is a name rather than a secret: lower-case words and their joints.
	wordy = regexp.MustCompile(`^(?:[a-z]+|[A-Z]+|[A-Z][a-z]+)(?:[_.\-/:][A-Za-z]+)*$`)
)

// placeholder tells a value that stands for another one.
func placeholder(v string) bool {
	low := strings.ToLower(v)
	if slices.ContainsFunc(words, func(w string) bool { return strings.Contains(low, w) }) {
		return true
	}
	return strings.ContainsAny(v, "<>{}()$%*[]") && (strings.ContainsAny(v[:1], "<{($%*[") || strings.Contains(v, "${") || strings.Contains(v, "{{") || strings.Contains(v, "$(") || strings.HasSuffix(v, ")"))
}

func secretValue(key, v string) bool {
	quoted := len(v) >= 2 && (v[0] == '"' || v[0] == '\'')
	if quoted {
		v = v[1 : len(v)-1]
	}
	low := strings.ToLower(key)
	switch {
	case len(v) < 8 || placeholder(v) || strings.Contains(v, "://") || strings.ContainsAny(v, " \t"):
		return false
	case strings.HasPrefix(v, "/") || strings.HasPrefix(v, "./") || strings.HasPrefix(v, "~"):
		return false // a file with it
	case strings.Contains(low, "public") || strings.HasSuffix(low, "_file") || strings.Contains(strings.ToLower(v), low):
		return false
	case wordy.MatchString(v) && len(v) < 24:
		return false
	}
	return entropy(v) >= 2.75
}

// entropy of a text's bytes, in bits each.
func entropy(s string) float64 {
	if s == "" {
		return 0
	}
	var n [256]int
	for i := range len(s) {
		n[s[i]]++
	}
	var h float64
	for _, c := range n {
		if c > 0 {
			p := float64(c) / float64(len(s))
			h -= p * math.Log2(p)
		}
	}
	return h
}
