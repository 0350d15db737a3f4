// Package boxtest is the suite that every box must pass.
package boxtest

import (
	"io"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/box"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

const one, two = "c7be1ed902fb8dd4d48997c6452f5d7e509fbcdbe2808b16bcf4edce4c07d14e", "2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6"

// Run makes boxes with open, which gets the files of a box, and tries them.
func Run(t *testing.T, open func(t *testing.T, files map[string]string) box.Box) {
	sums := one + "  shop-1.9.0.tar.gz\n" + two + " *shop-1.10.0.tar.gz\n# a comment\n" + two + "  ../evil\n"
	files := func(extra ...string) map[string]string {
		m := map[string]string{"shop-1.9.0.tar.gz": "this is test", "shop-1.10.0.tar.gz": "c", box.Sums: sums}
		for i := 0; i < len(extra); i += 2 {
			m[extra[i]] = extra[i+1]
		}
		return m
	}
	for _, c := range []struct {
		name   string
		files  map[string]string
		follow string
		want   string
		digest string
		kind   fault.Kind
	}{
		{"highest version", files(), "latest", "shop-1.10.0.tar.gz", "sha256:" + two, ""},
		{"LATEST decides", files(box.Latest, "shop-1.9.0.tar.gz\n"), "latest", "shop-1.9.0.tar.gz", "sha256:" + one, ""},
		{"by name", files(), "shop-1.9.0.tar.gz", "shop-1.9.0.tar.gz", "sha256:" + one, ""},
		{"not listed", files(), "shop-2.tar.gz", "", "", fault.NotFound},
		{"LATEST leads out", files(box.Latest, "../../etc/passwd"), "latest", "", "", fault.Invalid},
		{"no sums", map[string]string{box.Latest: "a.tar", "a.tar": "x"}, "latest", "a.tar", "", ""},
		{"nothing", map[string]string{"a.tar": "x"}, "latest", "", "", fault.Invalid},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := open(t, c.files)
			a, err := b.Resolve(t.Context(), c.follow)
			if c.kind != "" {
				if fault.KindOf(err) != c.kind || fault.HintOf(err) == "" {
					t.Fatalf("got %v (%s), want %s with a hint", err, fault.KindOf(err), c.kind)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if a.Name != c.want || a.Digest != c.digest || !strings.HasSuffix(a.URL, c.want) {
				t.Errorf("got %+v", a)
			}
			r, err := b.Open(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			raw, err := io.ReadAll(r)
			if err != nil || string(raw) != c.files[c.want] {
				t.Errorf("read %q: %v", raw, err)
			}
			if _, err := b.Open(t.Context(), box.Artifact{Name: "missing"}); fault.KindOf(err) != fault.NotFound {
				t.Errorf("a missing artifact gave %v", err)
			}
		})
	}
}
