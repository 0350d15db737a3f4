package control

import (
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/server"
)

// An environment that follows a channel gets what somebody promoted, whatever
// was baked since.
func TestChannels(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		defer w.start(w.store)()
		ctx := access.With(t.Context(), access.Principal{Name: "ann", Role: access.Deployer})
		follows := strings.Replace(description, "dev: { size: 3, lease: 24h }", "dev: { size: 3, lease: 24h, image: shop/stable }", 1)
		w.files = w.pack(follows)
		if err := w.deploy("dev"); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "points to no image yet") {
			t.Fatalf("a channel that is not there: %v", err)
		}
		bake := func(description string) string {
			b, err := w.api.Bake(ctx, server.StartBake{Files: w.pack(description)})
			if err != nil {
				t.Fatal(err)
			}
			return w.baked(b.Name).Image
		}
		first := bake(follows)
		second := bake(strings.Replace(follows, "/srv/shop", "/srv/other", 1))
		if first == second {
			t.Fatal("one image")
		}
		promote := func(im, why string) error {
			_, err := w.api.Promote(ctx, im, server.Promote{Channel: "stable", Why: why})
			return err
		}
		if err := promote(first, "ran in staging"); err != nil {
			t.Fatal(err)
		}
		if err := promote(first, "again"); fault.KindOf(err) != fault.Conflict {
			t.Errorf("promoted twice: %v", err)
		}
		w.mustDeploy()
		w.serves(1)
		if got := w.env().Image; got != first || get[image.Image](w, image.Kind, first).State != image.Verified {
			t.Errorf("it runs %s, promoted was %s", got, first)
		}
		if err := promote(second, "newer libraries"); err != nil {
			t.Fatal(err)
		}
		ch := get[image.Channel](w, image.ChannelKind, "shop/stable")
		if ch.Image != second || ch.By != "ann" || ch.Why != "newer libraries" || len(ch.Before) != 1 || ch.Before[0].Image != first || ch.Before[0].Why != "ran in staging" {
			t.Errorf("%+v", ch)
		}
		w.serves(2) // by itself
		l, err := w.api.Lineage(ctx, first)
		if err != nil || len(l.Channels) != 0 || len(l.Was) != 2 || len(l.Runs) > 1 || l.Parent != "ami-base" || len(l.GoBack) != 1 {
			t.Errorf("%+v %v", l, err)
		}
		if _, err := w.api.Quarantine(ctx, second, server.Quarantine{Quarantined: true, Why: "CVE-2026-1"}); err != nil {
			t.Fatal(err)
		}
		if err := w.deploy("dev"); fault.KindOf(err) != fault.Conflict || !strings.Contains(err.Error(), "CVE-2026-1") {
			t.Errorf("a quarantined image in the channel: %v", err)
		}
		if err := promote(first, "back"); err != nil {
			t.Fatal(err)
		}
		w.serves(3)
		if got := w.env().Image; got != first {
			t.Errorf("it runs %s, promoted was %s", got, first)
		}
		w.destroy()
		w.nothingLeft()
	})
}
