// Package box is where the user's releases lie, on the company's premises: a
// port with one adapter per kind of address, and boxtest, the suite that each
// must pass. It must not know what a release is used for.
//
// A box is a folder: artifacts, beside them SHA256SUMS as coreutils' sha256sum
// writes it, and LATEST, a file with the name of the most recent artifact.
// Without LATEST the highest version in SHA256SUMS is the most recent one.
package box

import (
	"bufio"
	"cmp"
	"context"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Artifact is one file in a box.
type Artifact struct {
	Name   string
	URL    string // where instances fetch it
	Digest string // sha256:…, "" where the box does not say
}

// Box holds artifacts.
type Box interface {
	// Resolve finds the artifact of that name, or the most recent one for "latest".
	Resolve(ctx context.Context, follow string) (Artifact, error)
	// Open reads an artifact; the caller closes it.
	Open(ctx context.Context, a Artifact) (io.ReadCloser, error)
}

// Reader reads a small file of a box; ok is false where there is none.
type Reader func(ctx context.Context, name string) (body []byte, ok bool, err error)

// Files of a box that describe it.
const (
	Sums   = "SHA256SUMS"
	Latest = "LATEST"
	// MaxIndex is the most that is read of either, in bytes.
	MaxIndex = 4 << 20
)

var (
	sumLine  = regexp.MustCompile(`^\\?([0-9a-fA-F]{64}) [ *](.+)$`)
	nameForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._+~-]{0,199}$`)
)

// Find is Resolve over a reader: what every adapter shares. The URL is left to
// the adapter.
func Find(ctx context.Context, address, follow string, read Reader) (Artifact, error) {
	raw, haveSums, err := read(ctx, Sums)
	if err != nil {
		return Artifact{}, err
	}
	sums, names := parseSums(raw)
	name := follow
	if follow == "" || follow == "latest" {
		raw, ok, err := read(ctx, Latest)
		if err != nil {
			return Artifact{}, err
		}
		switch {
		case ok:
			name = strings.TrimSpace(string(raw))
		case len(names) > 0:
			name = slices.MaxFunc(names, CompareVersions)
		default:
			return Artifact{}, &fault.Error{Kind: fault.Invalid, Op: "resolve the release", Object: address, Message: "the box has neither LATEST nor SHA256SUMS, so nobody knows what the most recent release is", Hint: "in the box: sha256sum *.tar.gz > SHA256SUMS"}
		}
	}
	if !nameForm.MatchString(name) {
		return Artifact{}, &fault.Error{Kind: fault.Invalid, Op: "resolve the release", Object: address, Message: strconv.Quote(name) + " is not the name of an artifact", Hint: "LATEST holds one file name"}
	}
	a := Artifact{Name: name, Digest: sums[name]}
	if haveSums && a.Digest == "" {
		return Artifact{}, &fault.Error{Kind: fault.NotFound, Op: "resolve the release", Object: address, Message: "SHA256SUMS does not list " + name, Hint: "in the box: sha256sum *.tar.gz > SHA256SUMS"}
	}
	return a, nil
}

func parseSums(raw []byte) (map[string]string, []string) {
	sums := map[string]string{}
	var names []string
	s := bufio.NewScanner(strings.NewReader(string(raw)))
	for s.Scan() {
		m := sumLine.FindStringSubmatch(strings.TrimRight(s.Text(), "\r"))
		if m == nil || !nameForm.MatchString(strings.TrimPrefix(m[2], "./")) {
			continue
		}
		n := strings.TrimPrefix(m[2], "./")
		if _, twice := sums[n]; !twice {
			names = append(names, n)
		}
		sums[n] = "sha256:" + strings.ToLower(m[1])
	}
	return sums, names
}

// CompareVersions orders names as people order versions: runs of digits by
// value, all else by bytes, and ~ before everything.
func CompareVersions(a, b string) int {
	for a != "" && b != "" {
		if isDigit(a[0]) && isDigit(b[0]) {
			x, y := digits(a), digits(b)
			a, b = a[len(x):], b[len(y):]
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
				return c
			}
			continue
		}
		if a[0] != b[0] {
			if a[0] == '~' {
				return -1
			}
			if b[0] == '~' {
				return 1
			}
			return cmp.Compare(a[0], b[0])
		}
		a, b = a[1:], b[1:]
	}
	switch {
	case strings.HasPrefix(a, "~"):
		return -1
	case strings.HasPrefix(b, "~"):
		return 1
	}
	return cmp.Compare(len(a), len(b))
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func digits(s string) string {
	i := 0
	for i < len(s) && isDigit(s[i]) {
		i++
	}
	return s[:i]
}
