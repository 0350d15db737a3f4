// Package state is the region's embedded database: typed tables that live in
// memory and are written through to SQLite, so that reads cost nothing and a
// restart finds everything that was acknowledged. It must not know what the
// tables hold.
//
// Values are copied in and out, but slices, maps and pointers inside them are
// shared with readers: replace them, never change them in place.
package state

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"

	_ "modernc.org/sqlite" // the embedded database
)

// DB is a region's database. All methods are safe for concurrent use.
type DB struct {
	sql         *sql.DB
	put, remove *sql.Stmt

	mu     sync.RWMutex
	tables map[string]table
	rows   map[string]map[string]string // JSON rows read at Open, consumed by NewTable

	watchMu sync.Mutex
	watches map[chan struct{}]struct{}
}

type table interface {
	undo(id string, old any, had bool)
}

// Open opens or creates the database file; ":memory:" keeps nothing.
func Open(path string) (*DB, error) {
	dsn := "file:" + path + "?_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)&_pragma=busy_timeout(5000)"
	if path == ":memory:" {
		dsn = "file::memory:?cache=private"
	}
	s, err := sql.Open("sqlite", dsn)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s.SetMaxOpenConns(1)
	d := &DB{sql: s, tables: map[string]table{}, rows: map[string]map[string]string{}, watches: map[chan struct{}]struct{}{}}
	if err := d.load(); err != nil {
		s.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	// Parsed once: SQLite takes longer for that than for the writes.
	d.put, err = s.Prepare(`INSERT INTO object (kind, id, body) VALUES ($1, $2, $3) ON CONFLICT (kind, id) DO UPDATE SET body = excluded.body`)
	if err == nil {
		d.remove, err = s.Prepare(`DELETE FROM object WHERE kind = $1 AND id = $2`)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return d, nil
}

func (d *DB) load() error {
	if _, err := d.sql.Exec(`CREATE TABLE IF NOT EXISTS object (kind TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID`); err != nil {
		return err
	}
	rows, err := d.sql.Query(`SELECT kind, id, body FROM object`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var kind, id, body string
		if err := rows.Scan(&kind, &id, &body); err != nil {
			return err
		}
		if d.rows[kind] == nil {
			d.rows[kind] = map[string]string{}
		}
		d.rows[kind][id] = body
	}
	return rows.Err()
}

// Close closes the database file.
func (d *DB) Close() error { return d.sql.Close() }

// Tx is a transaction; it is valid only inside the function it was given to.
type Tx struct {
	db    *DB
	write bool
	dirty map[key]change
	order []key
}

type key struct{ kind, id string }

type change struct {
	old  any
	had  bool
	body string // JSON, "" = deleted
}

// View runs f with a consistent view; f must not write.
func (d *DB) View(f func(*Tx)) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	f(&Tx{db: d})
}

// Update runs f alone. When f returns an error nothing has happened; when
// Update returns nil everything is on disk.
func (d *DB) Update(f func(*Tx) error) error {
	d.mu.Lock()
	tx := &Tx{db: d, write: true, dirty: map[key]change{}}
	done := false
	defer func() { // a panic in f must not leave half a change or a held lock
		if !done {
			tx.rollback()
			d.mu.Unlock()
		}
	}()
	err := f(tx)
	if err == nil && len(tx.order) > 0 {
		err = tx.commit()
	}
	if err != nil {
		return err
	}
	done = true
	d.mu.Unlock()
	if len(tx.order) > 0 {
		d.wake()
	}
	return nil
}

func (tx *Tx) commit() error {
	c, err := tx.db.sql.BeginTx(context.Background(), nil)
	if err != nil {
		return err
	}
	defer c.Rollback() // after Commit this does nothing
	put, remove := c.Stmt(tx.db.put), c.Stmt(tx.db.remove)
	for _, k := range tx.order {
		ch := tx.dirty[k]
		if ch.body == "" {
			_, err = remove.Exec(k.kind, k.id)
		} else {
			_, err = put.Exec(k.kind, k.id, ch.body)
		}
		if err != nil {
			return fmt.Errorf("write %s %s: %w", k.kind, k.id, err)
		}
	}
	return c.Commit()
}

func (tx *Tx) rollback() {
	for _, k := range slices.Backward(tx.order) {
		ch := tx.dirty[k]
		tx.db.tables[k.kind].undo(k.id, ch.old, ch.had)
	}
}

// Watch returns a channel that receives after changes were committed (several
// changes may give one value) until stop is called.
func (d *DB) Watch() (changed <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	d.watchMu.Lock()
	d.watches[c] = struct{}{}
	d.watchMu.Unlock()
	return c, func() {
		d.watchMu.Lock()
		delete(d.watches, c)
		d.watchMu.Unlock()
	}
}

func (d *DB) wake() {
	d.watchMu.Lock()
	defer d.watchMu.Unlock()
	for c := range d.watches {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

// Table is one kind of object by id.
type Table[T any] struct {
	kind string
	m    map[string]T
}

// NewTable declares a table and reads its rows; call it once per kind, at start.
func NewTable[T any](d *DB, kind string) (*Table[T], error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tables[kind] != nil {
		return nil, fmt.Errorf("table %s is declared twice", kind)
	}
	t := &Table[T]{kind: kind, m: map[string]T{}}
	for id, body := range d.rows[kind] {
		var v T
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			return nil, fmt.Errorf("row %s %s: %w", kind, id, err)
		}
		t.m[id] = v
	}
	delete(d.rows, kind)
	d.tables[kind] = t
	return t, nil
}

func (t *Table[T]) undo(id string, old any, had bool) {
	if had {
		t.m[id] = old.(T)
	} else {
		delete(t.m, id)
	}
}

// Get returns the object of that id.
func (t *Table[T]) Get(_ *Tx, id string) (T, bool) {
	v, ok := t.m[id]
	return v, ok
}

// Len returns the number of objects.
func (t *Table[T]) Len(*Tx) int { return len(t.m) }

// All yields the objects in the order of their ids.
func (t *Table[T]) All(*Tx) iter.Seq2[string, T] {
	return func(yield func(string, T) bool) {
		for _, id := range slices.Sorted(maps.Keys(t.m)) {
			if v, ok := t.m[id]; ok && !yield(id, v) {
				return
			}
		}
	}
}

// Put writes an object. It panics in a View and when T is not JSON.
func (t *Table[T]) Put(tx *Tx, id string, v T) {
	body, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("state: %s %s: %v", t.kind, id, err))
	}
	t.note(tx, id, string(body))
	t.m[id] = v
}

// Delete removes an object, if it is there.
func (t *Table[T]) Delete(tx *Tx, id string) {
	if _, ok := t.m[id]; ok {
		t.note(tx, id, "")
		delete(t.m, id)
	}
}

func (t *Table[T]) note(tx *Tx, id, body string) {
	if !tx.write {
		panic("state: write in a view of " + t.kind)
	}
	k := key{t.kind, id}
	ch, seen := tx.dirty[k]
	if !seen {
		old, had := t.m[id]
		ch = change{old: old, had: had}
		tx.order = append(tx.order, k)
	}
	ch.body = body
	tx.dirty[k] = ch
}
