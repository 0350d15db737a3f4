package storetest

import (
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/store"
)

// OldRecords is what a database of an older schema holds before it is upgraded:
// SQL for the tables that were there from the first schema on.
const OldRecords = `
INSERT INTO record (kind, name, version, revision, updated, body) VALUES ('environment', 'shop-dev', 3, 5, 1893456000000000000, '{"name":"shop-dev","it''s":"ü"}');
INSERT INTO record (kind, name, version, revision, updated, body) VALUES ('image', 'shop-1', 1, 2, 1893456000000000000, '{"n":1}');
INSERT INTO record (kind, name, version, revision, updated, body) VALUES ('image', 'shop-0', 4, 7, 1893456000000000000, NULL);
UPDATE ledger SET revision = 7, epoch = 5, holder = 'old', expires = 1893456000000000000;`

// Upgraded checks that a store which had OldRecords still has them, and works.
func Upgraded(t *testing.T, s store.Store) {
	ctx := t.Context()
	r, err := s.Get(ctx, "environment", "shop-dev")
	if err != nil || r.Version != 3 || r.Revision != 5 || r.Updated.Year() != 2030 || string(r.Body) != `{"name":"shop-dev","it's":"ü"}` {
		t.Errorf("%+v %s %v", r, r.Body, err)
	}
	if rs, err := s.List(ctx, "image", ""); err != nil || len(rs) != 1 {
		t.Errorf("%v %v", rs, err)
	}
	rs, err := s.Changes(ctx, 0, 10)
	if err != nil || len(rs) != 3 || rs[2].Body != nil {
		t.Errorf("changes %+v %v", rs, err)
	}
	put(t, s, "image", "shop-0", 0, 9) // deleted names go on counting
	if _, v := value(t, s, "image", "shop-0"); v != 5 {
		t.Errorf("its version is %d", v)
	}
	if rev, err := s.Revision(ctx); err != nil || rev != 8 {
		t.Errorf("revision %d %v", rev, err)
	}
	wantErr(t, s.Renew(ctx, "old", 4, patience), store.ErrFenced)
	if err := s.Renew(ctx, "old", 5, patience); err != nil {
		t.Error(err)
	}
	if epoch, ok, err := s.Acquire(ctx, "old", patience); err != nil || !ok || epoch != 6 {
		t.Errorf("epoch %d %v %v", epoch, ok, err)
	}
	if err := s.AddBlob(ctx, "x", strings.NewReader("hello")); err != nil {
		t.Error(err)
	}
	n := 0
	if err := s.Dump(ctx, func(store.Item) error { n++; return nil }); err != nil || n != 4 {
		t.Errorf("%d items, %v", n, err)
	}
}
