// Package git is a box that is a git repository: a release is the archive of
// one commit. Instances cannot read it: they take its releases from the mirror.
// It must not know what is in the repository.
//
// Credentials are those that git itself finds for the server's user: a
// credential helper, or a key of ssh. None is ever asked for.
package git

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"net/netip"
	"net/url"
	"os"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/box"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

const (
	// Prefix comes before the repository's own address.
	Prefix = "git+"
	// most is the longest that one command to a repository may take: a fetch of
	// one commit of a large repository over a slow line.
	most = 15 * time.Minute
	// maxComplaint is what is kept of git's own words, in bytes.
	maxComplaint = 2 << 10
	// short is how many digits of a commit are in an artifact's name.
	short = 12
)

var commit = regexp.MustCompile(`^[0-9a-f]{40}([0-9a-f]{24})?$`)

// Guard says where a repository's host is, of the addresses that may be asked;
// none leaves it to git.
type Guard func(ctx context.Context, repository *url.URL) ([]netip.Addr, error)

// Box is a repository.
type Box struct {
	address string // as git takes it
	tmp     string
	guard   Guard
}

// New returns the box at an address such as git+https://git.corp.example/shop.git.
// Fetched commits lie below tmp while they are read; "" is the system's folder.
func New(address, tmp string, guard Guard) *Box {
	return &Box{strings.TrimPrefix(address, Prefix), tmp, guard}
}

// guarded are git's options that keep it from asking anybody else than the
// guard lets it: it takes the addresses that were looked at instead of resolving
// the name again, and follows no redirect.
func (b *Box) guarded(ctx context.Context, op string) ([]string, error) {
	opts := []string{"-c", "http.followRedirects=false"}
	u, err := url.Parse(b.address)
	if err != nil || (u.Scheme != "https" && u.Scheme != "ssh") {
		return opts, nil // git+file://; all else is refused by GIT_ALLOW_PROTOCOL or before
	}
	ips, err := b.guard(ctx, u)
	switch {
	case fault.KindOf(err) == fault.Denied:
		return nil, &fault.Error{Kind: fault.Denied, Op: op, Object: b.address, Message: "the server may not ask this repository", Hint: fault.HintOf(err), Err: err}
	case err != nil && u.Scheme == "ssh":
		return opts, nil // a name of ssh's own configuration
	case err != nil:
		return nil, &fault.Error{Kind: fault.Unavailable, Op: op, Object: b.address, Message: "the repository's host is not found", Hint: "a proxy that resolves names is set by HTTPS_PROXY", Err: err}
	}
	if u.Scheme == "https" && len(ips) > 0 {
		var at []string
		for _, ip := range ips {
			at = append(at, ip.String())
		}
		opts = append(opts, "-c", "http.curloptResolve="+u.Hostname()+":"+cmp.Or(u.Port(), "443")+":"+strings.Join(at, ","))
	}
	return opts, nil
}

// Resolve implements box.Box: "latest" is the head of the default branch, all
// else a branch, a tag or a whole commit.
func (b *Box) Resolve(ctx context.Context, follow string) (box.Artifact, error) {
	const op = "resolve the release"
	id := follow
	if !commit.MatchString(follow) {
		names := []string{"refs/heads/" + follow, "refs/tags/" + follow, "refs/tags/" + follow + "^{}"}
		if follow == "" || follow == "latest" {
			names = []string{"HEAD"}
		}
		opts, err := b.guarded(ctx, op)
		if err != nil {
			return box.Artifact{}, err
		}
		out, err := b.git(ctx, op, "", slices.Concat(opts, []string{"ls-remote", "--", b.address}, names)...)
		if err != nil {
			return box.Artifact{}, err
		}
		if id = pick(out, names); id == "" {
			return box.Artifact{}, &fault.Error{Kind: fault.NotFound, Op: op, Object: b.address, Message: "the repository has no branch and no tag " + strings.Join(names[:1], ""), Hint: "git ls-remote " + b.address + " lists what it has"}
		}
	}
	return box.Artifact{Name: b.name() + "-" + id[:short] + ".tar.gz", URL: Prefix + b.address + "#" + id}, nil
}

// pick takes the commit of the first name that is there; a tag's own object
// gives way to the commit that it is for.
func pick(listing []byte, names []string) string {
	at := map[string]string{}
	for line := range strings.Lines(string(listing)) {
		id, ref, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if ok && commit.MatchString(id) {
			at[ref] = id
		}
	}
	for i, n := range names {
		if id := at[n]; id != "" {
			if i+1 < len(names) && names[i+1] == n+"^{}" && at[n+"^{}"] != "" {
				return at[n+"^{}"]
			}
			return id
		}
	}
	return ""
}

func (b *Box) name() string {
	n := strings.TrimSuffix(path.Base(strings.TrimRight(b.address, "/")), ".git")
	n = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_' || r == '.' {
			return r
		}
		return '-'
	}, n)
	if n = strings.TrimLeft(n, "-._"); n == "" {
		return "release"
	}
	return n[:min(len(n), 100)]
}

// Open implements box.Box.
func (b *Box) Open(ctx context.Context, a box.Artifact) (io.ReadCloser, error) {
	const op = "fetch the release"
	_, id, _ := strings.Cut(a.URL, "#")
	if !commit.MatchString(id) {
		return nil, &fault.Error{Kind: fault.NotFound, Op: op, Object: b.address, Message: "the repository has no " + a.Name}
	}
	dir, err := os.MkdirTemp(b.tmp, "release-git-")
	if err != nil {
		return nil, err
	}
	r, err := b.archive(ctx, op, dir, id)
	if err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return r, nil
}

func (b *Box) archive(ctx context.Context, op, dir, id string) (io.ReadCloser, error) {
	opts, err := b.guarded(ctx, op)
	if err != nil {
		return nil, err
	}
	if _, err := b.git(ctx, op, "", "init", "--quiet", "--bare", "--", dir); err != nil {
		return nil, err
	}
	if _, err := b.git(ctx, op, dir, append(opts, "fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--", b.address, id)...); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	r := &reader{box: b, op: op, dir: dir, cancel: cancel}
	r.cmd = b.command(ctx, dir, "archive", "--format=tar.gz", id)
	r.cmd.Stderr = &r.complaint
	if r.ReadCloser, err = r.cmd.StdoutPipe(); err == nil {
		err = r.cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, b.failed(op, err, nil)
	}
	return r, nil
}

// reader is an archive under way. Its end is the end of git: an archive that
// broke off is an error and never a short release.
type reader struct {
	io.ReadCloser
	box       *Box
	op, dir   string
	cmd       *exec.Cmd
	complaint tail
	cancel    context.CancelFunc
	waited    bool
}

func (r *reader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) && !r.waited {
		r.waited = true
		if werr := r.cmd.Wait(); werr != nil {
			return n, r.box.failed(r.op, werr, r.complaint)
		}
	}
	return n, err
}

func (r *reader) Close() error {
	r.cancel()
	r.ReadCloser.Close()
	if !r.waited {
		r.waited = true
		_ = r.cmd.Wait() // it was told to end
	}
	return os.RemoveAll(r.dir)
}

func (b *Box) git(ctx context.Context, op, dir string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	var out bytes.Buffer
	var complaint tail
	cmd := b.command(ctx, dir, args...)
	cmd.Stdout, cmd.Stderr = &limited{w: &out, left: box.MaxIndex}, &complaint
	if err := cmd.Run(); err != nil {
		return nil, b.failed(op, err, complaint)
	}
	return out.Bytes(), nil
}

func (b *Box) command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	if dir != "" {
		args = append([]string{"--git-dir", dir}, args...)
	}
	cmd := exec.CommandContext(ctx, "git", args...)
	cmd.Env = append(os.Environ(), "GIT_TERMINAL_PROMPT=0", "GIT_ALLOW_PROTOCOL=https:http:ssh:git:file", "LC_ALL=C")
	if os.Getenv("GIT_SSH_COMMAND") == "" {
		cmd.Env = append(cmd.Env, "GIT_SSH_COMMAND=ssh -o BatchMode=yes -o ConnectTimeout=15")
	}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

func (b *Box) failed(op string, err error, complaint tail) error {
	e := &fault.Error{Kind: fault.Unavailable, Op: op, Object: b.address, Message: "git failed: " + strings.TrimSpace(string(complaint)), Hint: "as the server's user: git ls-remote " + b.address, Err: err}
	if errors.Is(err, exec.ErrNotFound) {
		e.Message, e.Hint = "git is not installed on the server's machine", "apt-get install git"
	}
	return e
}

// tail keeps the last of what is written to it.
type tail []byte

func (t *tail) Write(p []byte) (int, error) {
	*t = append(*t, p...)
	if n := len(*t) - maxComplaint; n > 0 {
		*t = append((*t)[:0], (*t)[n:]...)
	}
	return len(p), nil
}

// limited ends a command that says more than anybody reads.
type limited struct {
	w    io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	if l.left -= len(p); l.left < 0 {
		return 0, errors.New("the repository's list of references is too long")
	}
	return l.w.Write(p)
}
