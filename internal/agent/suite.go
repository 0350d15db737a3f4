package agent

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

// Suite is a test suite to run on this instance.
type Suite struct {
	Files   string // s3://bucket/key of the packed blueprint
	Run     string // command in it
	Results string // s3://bucket/prefix
	Timeout time.Duration
	Dir     string // work folder, "" = a new one below /var/lib/dayfly
	// Credentials are NAME=PARAMETER: the command finds in the variable NAME a
	// file with the value of the SSM parameter.
	Credentials []string
}

// Limits of what a suite may bring and leave behind.
const (
	maxFiles     = 5000
	maxFileBytes = 64 << 20
	maxArtifacts = 100
	maxArtifact  = 16 << 20
	maxResults   = 64 << 20
	maxJUnit     = 8 << 20
	maxLog       = 4 << 20
	grace        = 5 * time.Second
	// While a command runs the end of its log is stored as often, where it has
	// grown.
	streamEvery = 2 * time.Second
	streamed    = 256 << 10
)

// RunSuite runs a suite and uploads junit.xml, log.txt and what else it left in
// $DAYFLY_RESULTS. passed is the verdict; err says that there is none.
func (a *Agent) RunSuite(ctx context.Context, s Suite) (passed bool, err error) {
	a.start()
	defer a.idle()
	if s.Dir == "" {
		if err := os.MkdirAll(a.path(handoff.StateDir), 0o755); err != nil {
			return false, err
		}
		if s.Dir, err = os.MkdirTemp(a.path(handoff.StateDir), "suite-"); err != nil {
			return false, err
		}
		defer os.RemoveAll(s.Dir)
	}
	files, left := filepath.Join(s.Dir, "files"), filepath.Join(s.Dir, "results")
	for _, d := range []string{files, left} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return false, err
		}
	}
	if err := a.unpack(ctx, s.Files, files); err != nil {
		return false, fmt.Errorf("the suite's files: %w", err)
	}
	secrets, forget, err := a.fetchCredentials(ctx, s.Credentials)
	defer forget()
	if err != nil {
		return false, err
	}
	began := time.Now()
	quiet := a.stream(ctx, s)
	code, timedOut, err := a.runSuite(ctx, s, files, left, secrets)
	quiet()
	if err != nil {
		return false, err
	}
	seconds := time.Since(began).Seconds()
	log := filepath.Join(s.Dir, "log.txt")
	failure := ""
	switch {
	case timedOut:
		failure = fmt.Sprintf("%s was still running after %s", s.Run, s.Timeout)
	case code != 0:
		failure = fmt.Sprintf("%s ended with exit code %d", s.Run, code)
	}
	r, err := gather(left)
	tail := tailFile(log, 16<<10)
	name := strings.TrimSuffix(path.Base(s.Run), path.Ext(s.Run))
	switch {
	case err != nil:
		r.one(name, "results", "its results cannot be read: "+err.Error(), tail, seconds)
	case r.passed+r.failed+r.skipped == 0:
		r.one(name, name, failure, tail, seconds)
	case failure != "" && r.failed == 0:
		r.one(name, "exit code", failure+", though no test case failed", tail, seconds)
	}
	passed = r.failed == 0 && r.passed > 0
	if err := a.upload(ctx, s, left, log, r.document()); err != nil {
		return passed, fmt.Errorf("the results cannot be stored: %w", err)
	}
	fmt.Fprintf(a.Log, "%s: %d passed, %d failed, %d skipped in %.1f s\n", s.Run, r.passed, r.failed, r.skipped, seconds)
	if !passed {
		fmt.Fprintln(a.Log, strings.TrimSpace(tailFile(log, 2<<10)))
	}
	return passed, nil
}

func (a *Agent) runSuite(ctx context.Context, s Suite, files, left string, secrets []string) (code int, timedOut bool, err error) {
	word, _, _ := strings.Cut(s.Run, " ")
	if _, err := os.Stat(filepath.Join(files, word)); err != nil || !fs.ValidPath(word) {
		return 0, false, fmt.Errorf("there is no %s in the suite's files", word)
	}
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "DAYFLY_RESULTS=") })
	env = append(append(env, "DAYFLY_RESULTS="+left), secrets...)
	out, err := os.OpenFile(filepath.Join(s.Dir, "log.txt"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
	if err != nil {
		return 0, false, err
	}
	defer out.Close()
	p, err := a.startProcess([]string{"/bin/sh", "-c", "exec ./" + s.Run}, env, files, out, nil)
	if err != nil {
		return 0, false, err
	}
	tctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	code, err = a.wait(tctx, p)
	a.end(p, grace) // also what it left running
	if err != nil {
		if ctx.Err() != nil {
			return 0, false, ctx.Err()
		}
		return -1, true, nil
	}
	return code, false, nil
}

// fetchCredentials puts each secret into a file of its own, in memory where
// /run is, and returns the variables that name them. forget removes them.
func (a *Agent) fetchCredentials(ctx context.Context, wanted []string) (env []string, forget func(), err error) {
	if len(wanted) == 0 {
		return nil, func() {}, nil
	}
	if err := os.MkdirAll(a.path(handoff.RunDir), 0o755); err != nil {
		return nil, func() {}, err
	}
	dir, err := os.MkdirTemp(a.path(handoff.RunDir), "credentials-") // mode 0700
	if err != nil {
		return nil, func() {}, err
	}
	forget = func() { os.RemoveAll(dir) }
	for _, w := range wanted {
		name, from, ok := strings.Cut(w, "=")
		if !ok || name == "" || strings.ContainsAny(name, "/\x00") {
			return nil, forget, fmt.Errorf("the credential %q is not NAME=PARAMETER", w)
		}
		value := ""
		err := a.aws.retry(ctx, 5, func() (err error) { value, err = a.aws.parameter(ctx, from); return err })
		if err != nil {
			return nil, forget, fmt.Errorf("the credential %s: %w", name, err)
		}
		to := filepath.Join(dir, name)
		if err := os.WriteFile(to, []byte(value), 0o400); err != nil {
			return nil, forget, err
		}
		env = append(env, name+"="+to)
	}
	return env, forget, nil
}

// stream stores the end of the command's log now and then, so that people can
// follow it; the returned function ends that, and waits for the last time.
func (a *Agent) stream(ctx context.Context, s Suite) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	to := strings.TrimSuffix(s.Results, "/") + "/log.txt"
	go func() {
		defer close(done)
		seen := int64(0)
		for {
			select {
			case <-ctx.Done():
				return
			case <-time.After(streamEvery):
			}
			p := filepath.Join(s.Dir, "log.txt")
			st, err := os.Stat(p)
			if err != nil || st.Size() == seen {
				continue
			}
			// What fails now is stored at the end.
			if a.aws.put(ctx, to, strings.NewReader(tailFile(p, streamed))) == nil {
				seen = st.Size()
			}
		}
	}()
	return func() { cancel(); <-done }
}

// unpack fetches and unpacks a packed blueprint.
func (a *Agent) unpack(ctx context.Context, address, dir string) error {
	body, _, err := a.aws.open(ctx, address)
	if err != nil {
		return err
	}
	defer body.Close()
	tr := tar.NewReader(body)
	files, bytes := 0, int64(0)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}
		files++
		bytes += h.Size
		if h.Typeflag != tar.TypeReg || !fs.ValidPath(h.Name) || files > maxFiles || bytes > maxFileBytes {
			return fmt.Errorf("%q: only plain files inside the folder, at most %d and %d MiB", h.Name, maxFiles, maxFileBytes>>20)
		}
		to := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := place(to, fs.FileMode(h.Mode)&0o755, tr); err != nil {
			return err
		}
	}
}

// place writes a file that may be run at once. No process may be started while
// it is open: the child would hold it open for writing until its own exec, and
// running the file then fails with "text file busy".
func place(to string, mode fs.FileMode, body io.Reader) error {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	return errors.Join(err, f.Close())
}

// gather reads every JUnit file that the suite left.
func gather(dir string) (*results, error) {
	r := &results{}
	var errs []error
	for p := range artifacts(dir, &errs) {
		if path.Ext(p) != ".xml" {
			continue
		}
		st, err := os.Stat(filepath.Join(dir, p))
		if err == nil && st.Size() > maxJUnit {
			err = fmt.Errorf("%s has more than %d MiB", p, maxJUnit>>20)
		}
		var doc []byte
		if err == nil {
			doc, err = os.ReadFile(filepath.Join(dir, p))
		}
		if err == nil {
			err = r.add(p, doc)
		}
		errs = append(errs, err)
	}
	return r, errors.Join(errs...)
}

// artifacts are the plain files below dir, by name.
func artifacts(dir string, errs *[]error) func(func(string) bool) {
	return func(yield func(string) bool) {
		err := fs.WalkDir(os.DirFS(dir), ".", func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.Type().IsRegular() && !yield(p) {
				return fs.SkipAll
			}
			return nil
		})
		*errs = append(*errs, err)
	}
}

func (a *Agent) upload(ctx context.Context, s Suite, left, log string, junit []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	to := strings.TrimSuffix(s.Results, "/") + "/"
	var errs []error
	n, bytes := 0, int64(0)
	for p := range artifacts(left, &errs) {
		st, err := os.Stat(filepath.Join(left, p))
		if err != nil || p == "junit.xml" {
			continue
		}
		if n, bytes = n+1, bytes+st.Size(); n > maxArtifacts || st.Size() > maxArtifact || bytes > maxResults {
			a.say("%s is left behind: a suite may leave %d files, %d MiB each, %d MiB in all", p, maxArtifacts, maxArtifact>>20, maxResults>>20)
			continue
		}
		errs = append(errs, a.putFile(ctx, to+"artifacts/"+p, filepath.Join(left, p)))
	}
	errs = append(errs, a.aws.put(ctx, to+"log.txt", strings.NewReader(tailFile(log, maxLog))))
	// The verdict comes last: who finds it finds the rest.
	errs = append(errs, a.aws.put(ctx, to+"junit.xml", strings.NewReader(string(junit))))
	return errors.Join(errs...)
}

func (a *Agent) putFile(ctx context.Context, to, p string) error {
	f, err := os.Open(p)
	if err != nil {
		return err
	}
	defer f.Close()
	return a.aws.put(ctx, to, f)
}

func tailFile(p string, limit int64) string { return (&Agent{}).tailOf(p, limit) }

// Fetch copies an S3 object to a file, at once or not at all.
func (a *Agent) Fetch(ctx context.Context, from, to string) error {
	a.start()
	defer a.idle()
	return a.aws.retry(ctx, 5, func() error {
		body, size, err := a.aws.open(ctx, from)
		if err != nil {
			return err
		}
		defer body.Close()
		f, err := os.CreateTemp(filepath.Dir(to), ".dayfly-fetch-*")
		if err != nil {
			return err
		}
		defer os.Remove(f.Name())
		n, err := io.Copy(f, body)
		if err == nil && size >= 0 && n != size {
			err = io.ErrUnexpectedEOF
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
		return os.Rename(f.Name(), to)
	})
}

// Put copies a file to an S3 object.
func (a *Agent) Put(ctx context.Context, from, to string) error {
	a.start()
	defer a.idle()
	return a.putFile(ctx, to, from)
}
