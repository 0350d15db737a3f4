package state

import (
	"errors"
	"path/filepath"
	"testing"
)

type thing struct{ N int }

func TestTableSurvivesReopenAndRollsBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "r.db")
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	tab, err := NewTable[thing](d, "thing")
	if err != nil {
		t.Fatal(err)
	}
	changed, stop := d.Watch()
	defer stop()
	if err := d.Update(func(tx *Tx) error { tab.Put(tx, "a", thing{1}); tab.Put(tx, "b", thing{2}); return nil }); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	default:
		t.Error("a committed change woke nobody")
	}
	boom := errors.New("boom")
	err = d.Update(func(tx *Tx) error {
		tab.Put(tx, "a", thing{9})
		tab.Put(tx, "a", thing{10})
		tab.Delete(tx, "b")
		tab.Put(tx, "c", thing{3})
		return boom
	})
	if !errors.Is(err, boom) {
		t.Fatalf("got %v", err)
	}
	check := func(tab *Table[thing], d *DB) {
		t.Helper()
		d.View(func(tx *Tx) {
			var got []string
			for id, v := range tab.All(tx) {
				got = append(got, id)
				if want := map[string]int{"a": 1, "b": 2}[id]; v.N != want {
					t.Errorf("%s = %d, want %d", id, v.N, want)
				}
			}
			if len(got) != 2 || got[0] != "a" {
				t.Errorf("ids %v, want [a b]", got)
			}
		})
	}
	check(tab, d)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = d.Update(func(tx *Tx) error { tab.Put(tx, "a", thing{7}); panic("x") })
	}()
	check(tab, d)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d, err = Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	tab, err = NewTable[thing](d, "thing")
	if err != nil {
		t.Fatal(err)
	}
	check(tab, d)
	if _, err := NewTable[thing](d, "thing"); err == nil {
		t.Error("a table declared twice was accepted")
	}
}
