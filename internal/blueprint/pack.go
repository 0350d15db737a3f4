package blueprint

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// Limits of a packed blueprint.
const (
	maxPackFiles = 5000
	maxPackBytes = 64 << 20
)

// epoch is the modification time of every packed file: content alone decides
// the digest.
var epoch = time.Unix(0, 0).UTC()

// Pack writes the folder as a deterministic tar and returns its digest
// (sha256:…). Hidden files and folders (.git, editors' leavings) stay out.
func Pack(fsys fs.FS, w io.Writer) (string, error) {
	h := sha256.New()
	tw := tar.NewWriter(io.MultiWriter(w, h))
	files, bytes := 0, int64(0)
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if p == "." {
			return nil
		}
		if strings.HasPrefix(d.Name(), ".") {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if d.IsDir() {
			return nil
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		if !st.Mode().IsRegular() {
			return fmt.Errorf("%s: a blueprint holds files and folders only, and this is %s", p, st.Mode().Type())
		}
		files++
		bytes += st.Size()
		if files > maxPackFiles || bytes > maxPackBytes {
			return fmt.Errorf("the folder has more than %d files or %d MiB; keep builds and data out of it", maxPackFiles, maxPackBytes>>20)
		}
		mode := int64(0o644)
		if st.Mode()&0o111 != 0 {
			mode = 0o755
		}
		body, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: p, Mode: mode, Size: int64(len(body)), ModTime: epoch, Format: tar.FormatUSTAR}); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		_, err = tw.Write(body)
		return err
	})
	if err == nil {
		err = tw.Close()
	}
	if err != nil {
		return "", fmt.Errorf("pack the blueprint: %w", err)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// Unpack writes a packed blueprint below dir, which must exist. It refuses
// paths that lead out of dir, and anything but files.
func Unpack(r io.Reader, dir string) error {
	tr := tar.NewReader(r)
	files, bytes := 0, int64(0)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unpack the blueprint: %w", err)
		}
		files++
		bytes += h.Size
		if h.Typeflag != tar.TypeReg || !fs.ValidPath(h.Name) || path.Clean(h.Name) != h.Name {
			return fmt.Errorf("unpack the blueprint: %q is not a plain file inside the folder", h.Name)
		}
		if files > maxPackFiles || bytes > maxPackBytes {
			return fmt.Errorf("unpack the blueprint: more than %d files or %d MiB", maxPackFiles, maxPackBytes>>20)
		}
		to := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		f, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, fs.FileMode(h.Mode)&0o755)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, tr); err != nil {
			f.Close()
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
}
