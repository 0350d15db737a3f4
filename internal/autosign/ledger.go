package autosign

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Ledger is a folder with one file for each token that was used. A request is
// granted only after its file and the folder are on the disk.
type Ledger string

// Entry is one certificate that was granted.
type Entry struct {
	Token    string    `json:"token"` // SHA-256
	Certname string    `json:"certname"`
	Instance string    `json:"instance"`
	Role     string    `json:"role"`
	Image    string    `json:"image,omitempty"`
	Key      string    `json:"key"` // SHA-256 of the public key
	Signed   time.Time `json:"signed"`
	Cleaned  time.Time `json:"cleaned,omitzero"`
}

const (
	maxEntries = 100_000
	maxEntry   = 4 << 10
	// keep is how long an entry stays after its certificate was cleaned; its
	// instance is gone by then, so its token is worth nothing.
	keep = 24 * time.Hour
)

// lock keeps other processes of ours out.
func (l Ledger) lock() (func(), error) {
	f, err := os.OpenFile(filepath.Join(string(l), "lock"), os.O_CREATE|os.O_RDWR, 0o640)
	if err != nil {
		return nil, fmt.Errorf("the ledger cannot be used: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("the ledger cannot be locked: %w", err)
	}
	return func() { f.Close() }, nil
}

func (l Ledger) entries() ([]Entry, error) {
	names, err := filepath.Glob(filepath.Join(string(l), "*.json"))
	if err != nil || len(names) > maxEntries {
		return nil, fmt.Errorf("the ledger %s has too many entries, or cannot be read: %v", l, err)
	}
	var out []Entry
	for _, n := range names {
		st, err := os.Lstat(n)
		if err != nil {
			return nil, err
		}
		if !st.Mode().IsRegular() || st.Size() > maxEntry {
			return nil, fmt.Errorf("%s is not an entry of the ledger", n)
		}
		raw, err := os.ReadFile(n)
		if err != nil {
			return nil, err
		}
		var e Entry
		if err := json.Unmarshal(raw, &e); err != nil || e.Token+".json" != filepath.Base(n) {
			return nil, fmt.Errorf("%s is not an entry of the ledger", n)
		}
		out = append(out, e)
	}
	return out, nil
}

// add writes a new entry; one that is there is an error.
func (l Ledger) add(e Entry) error { return l.write(e, os.O_EXCL) }

// set replaces an entry.
func (l Ledger) set(e Entry) error { return l.write(e, 0) }

func (l Ledger) write(e Entry, exclusive int) error {
	raw, err := json.Marshal(e)
	if err != nil {
		return err
	}
	name := l.file(e)
	if exclusive != 0 {
		if _, err := os.Lstat(name); err == nil {
			return errors.New("the token was used already")
		}
	}
	tmp := strings.TrimSuffix(name, ".json") + ".new"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(append(raw, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, name)
	}
	if err == nil {
		err = l.sync()
	}
	if err != nil {
		return fmt.Errorf("the ledger cannot be written: %w", err)
	}
	return nil
}

func (l Ledger) file(e Entry) string { return filepath.Join(string(l), e.Token+".json") }

func (l Ledger) sync() error {
	d, err := os.Open(string(l))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// prune forgets entries whose certificates were cleaned long ago.
func (l Ledger) prune(now time.Time) error {
	es, err := l.entries()
	if err != nil {
		return err
	}
	for _, e := range es {
		if !e.Cleaned.IsZero() && now.Sub(e.Cleaned) > keep {
			if err := os.Remove(l.file(e)); err != nil {
				return err
			}
		}
	}
	return l.sync()
}
