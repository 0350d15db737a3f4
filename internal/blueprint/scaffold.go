package blueprint

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/dayfly-infra/dayfly/examples"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

//go:embed scaffold
var scaffold embed.FS

// Scaffold writes a blueprint that works as it is, with a box and a first
// release in it, into a folder that does not exist or is empty.
func Scaffold(dir, name string) error {
	if !nameForm.MatchString(name) {
		return &fault.Error{Kind: fault.Invalid, Op: "make a blueprint", Object: dir, Message: fmt.Sprintf("%q cannot be a blueprint's name", name), Hint: "the folder's name must be 2 to 32 of a-z, 0-9 and -, beginning with a letter"}
	}
	es, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(es) > 0 {
		return &fault.Error{Kind: fault.Conflict, Op: "make a blueprint", Object: dir, Message: "the folder is not empty", Hint: "choose a new folder"}
	}
	release, err := firstRelease(name)
	if err != nil {
		return err
	}
	artifact := name + "-1.0.0.tar.gz"
	type file struct {
		path string
		body []byte
		mode fs.FileMode
	}
	files := []file{
		{"box/" + artifact, release, 0o644},
		{"box/SHA256SUMS", fmt.Appendf(nil, "%x  %s\n", sha256.Sum256(release), artifact), 0o644},
		{"box/LATEST", []byte(artifact + "\n"), 0o644},
		{"box/site/index.html", []byte(page(name)), 0o644},
	}
	// One pass, so that a path that holds one of the words stays as it is.
	fill := strings.NewReplacer("file://BOX", (&url.URL{Scheme: "file", Path: filepath.Join(dir, "box")}).String(), "NAME", name)
	for from, f := range map[string]file{
		"dayfly.yaml": {path: File, mode: 0o644}, "README.md": {path: "README.md", mode: 0o644},
		"site.pp": {path: "puppet/manifests/site.pp", mode: 0o644}, "deploy": {path: "deploy/deploy", mode: 0o755},
		"smoke-verify.sh": {path: "verify/smoke.sh", mode: 0o755}, "smoke-suite.sh": {path: "suites/smoke.sh", mode: 0o755},
		"release.sh": {path: "box/release.sh", mode: 0o755},
	} {
		raw, err := scaffold.ReadFile("scaffold/" + from)
		if err != nil {
			return err
		}
		files = append(files, file{f.path, []byte(fill.Replace(string(raw))), f.mode})
	}
	for _, shared := range []string{"foundation.yaml", "fleet.yaml", "suites/junit.sh"} {
		raw, err := examples.Shop.ReadFile("shop/" + shared)
		if err != nil {
			return err
		}
		files = append(files, file{shared, raw, 0o644})
	}
	for _, f := range files {
		to := filepath.Join(dir, f.path)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(to, f.body, f.mode); err != nil {
			return err
		}
	}
	return nil
}

func page(name string) string {
	return "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>" + name + "</title><h1>" + name + "</h1></html>\n"
}

// firstRelease is what box/release.sh would make of the same site.
func firstRelease(name string) ([]byte, error) {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	t := tar.NewWriter(z)
	for _, f := range [][2]string{{"www/healthz", "ok\n"}, {"www/index.html", page(name)}, {"www/version", "1.0.0\n"}} {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f[0], Mode: 0o644, Size: int64(len(f[1])), ModTime: epoch, Format: tar.FormatUSTAR}); err != nil {
			return nil, err
		}
		if _, err := t.Write([]byte(f[1])); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(t.Close(), z.Close()); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
