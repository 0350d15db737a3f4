package control

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

var digestForm = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// files keeps the blueprints that were sent to the server, by digest. The
// packed ones are in the store, where every replica finds them; dir has those
// that this server used, packed and as folders, and may be emptied any time.
type files struct {
	dir   string
	store store.Store
	cloud objects

	mu  sync.Mutex
	got map[string]*blueprint.Blueprint
}

type objects interface {
	PutObject(ctx context.Context, in cloud.Intent, key string, body io.ReadSeeker, size int64) error
	Bucket() string
}

func (f *files) path(digest string) (string, error) {
	if !digestForm.MatchString(digest) {
		return "", &fault.Error{Kind: fault.Invalid, Op: "read a blueprint", Object: digest, Message: "a blueprint's digest is sha256: and 64 hex digits"}
	}
	return filepath.Join(f.dir, strings.TrimPrefix(digest, "sha256:")), nil
}

// Add stores a packed blueprint and returns its digest. What is there already
// is left alone.
func (f *files) Add(ctx context.Context, tar io.Reader) (string, error) {
	tmp, t, err := f.incoming()
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	defer t.Close()
	if _, err := io.Copy(t, tar); err != nil {
		return "", fmt.Errorf("receive the blueprint: %w", err)
	}
	if _, err := t.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	folder := filepath.Join(tmp, "folder")
	if err := blueprint.Unpack(t, folder); err != nil {
		return "", &fault.Error{Kind: fault.Invalid, Op: "receive the blueprint", Message: "it cannot be unpacked", Err: err}
	}
	// Packed again rather than taken as it came: the digest is then of the
	// content alone, whoever packed it.
	if err := t.Truncate(0); err != nil {
		return "", err
	}
	if _, err := t.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	digest, err := blueprint.Pack(os.DirFS(folder), t)
	if err != nil {
		return "", err
	}
	if _, err := t.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	if err := f.store.AddBlob(ctx, blobPrefix+digest, t); err != nil {
		return "", err
	}
	return digest, f.take(tmp, digest)
}

const blobPrefix = "blueprint/"

// incoming makes a folder for a blueprint that is on its way: its pack, and an
// empty folder for what the pack holds.
func (f *files) incoming() (tmp string, pack *os.File, err error) {
	if tmp, err = os.MkdirTemp(f.dir, "incoming-"); err != nil {
		return "", nil, err
	}
	if err = os.Mkdir(filepath.Join(tmp, "folder"), 0o755); err == nil {
		pack, err = os.Create(filepath.Join(tmp, "pack.tar"))
	}
	if err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(tmp))
	}
	return tmp, pack, nil
}

// take moves a folder that is complete to its place.
func (f *files) take(tmp, digest string) error {
	to, err := f.path(digest)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, to); err != nil && !errors.Is(err, fs.ErrExist) {
		if _, there := os.Stat(filepath.Join(to, "pack.tar")); there != nil {
			return err
		}
	}
	return nil
}

// local gives the folder of a blueprint, which another server may have got.
func (f *files) local(ctx context.Context, digest string) (string, error) {
	dir, err := f.path(digest)
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(filepath.Join(dir, "pack.tar")); err == nil {
		return dir, nil
	}
	r, err := f.store.Blob(ctx, blobPrefix+digest)
	if errors.Is(err, store.ErrNotFound) {
		return "", &fault.Error{Kind: fault.NotFound, Op: "read a blueprint", Object: digest, Message: "the server does not have it", Hint: "send it again: dayfly deploy and the like do so by themselves"}
	}
	if err != nil {
		return "", err
	}
	defer r.Close()
	tmp, t, err := f.incoming()
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	defer t.Close()
	sum := sha256.New()
	if _, err := io.Copy(io.MultiWriter(t, sum), r); err != nil {
		return "", err
	}
	if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != digest {
		return "", &fault.Error{Kind: fault.Internal, Op: "read a blueprint", Object: digest, Message: "what the database holds has the digest " + got}
	}
	if _, err := t.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	if err := blueprint.Unpack(t, filepath.Join(tmp, "folder")); err != nil {
		return "", err
	}
	return dir, f.take(tmp, digest)
}

// adopt puts what an earlier version had in dir alone into the store.
func (f *files) adopt(ctx context.Context) error {
	packs, err := filepath.Glob(filepath.Join(f.dir, "*", "pack.tar"))
	if err != nil {
		return err
	}
	for _, p := range packs {
		digest := "sha256:" + filepath.Base(filepath.Dir(p))
		if !digestForm.MatchString(digest) {
			continue // cut off while it came
		}
		t, err := os.Open(p)
		if err != nil {
			return err
		}
		err = f.store.AddBlob(ctx, blobPrefix+digest, t)
		t.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Blueprint gives the blueprint and its folder.
func (f *files) Blueprint(ctx context.Context, digest string) (*blueprint.Blueprint, fs.FS, error) {
	dir, err := f.local(ctx, digest)
	if err != nil {
		return nil, nil, err
	}
	fsys := os.DirFS(filepath.Join(dir, "folder"))
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := f.got[digest]; b != nil {
		return b, fsys, nil
	}
	b, ps, err := blueprint.Load(fsys)
	if err != nil {
		return nil, nil, err
	}
	if b == nil {
		return nil, nil, &fault.Error{Kind: fault.Invalid, Op: "read a blueprint", Object: digest, Message: ps[0].String(), Hint: "dayfly check shows all that is wrong"}
	}
	f.got[digest] = b
	return b, fsys, nil
}

// Publish puts the pack where instances can read it with their role.
func (f *files) Publish(ctx context.Context, object, digest string) (string, error) {
	dir, err := f.local(ctx, digest)
	if err != nil {
		return "", err
	}
	t, err := os.Open(filepath.Join(dir, "pack.tar"))
	if err != nil {
		return "", err
	}
	defer t.Close()
	st, err := t.Stat()
	if err != nil {
		return "", err
	}
	key := "blueprints/" + strings.TrimPrefix(digest, "sha256:") + ".tar"
	err = f.cloud.PutObject(ctx, cloud.Intent{ID: object + "/publish/" + digest, Object: object}, key, t, st.Size())
	return "s3://" + f.cloud.Bucket() + "/" + key, err
}
