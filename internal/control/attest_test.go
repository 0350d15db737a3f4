package control

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/attest"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/verify"
)

// An image's making is signed, and where that is required nothing else is
// launched or promoted.
func TestAttestation(t *testing.T) {
	key := filepath.Join(t.TempDir(), "key")
	if out, err := exec.CommandContext(t.Context(), "openssl", "genpkey", "-algorithm", "ed25519", "-out", key).CombinedOutput(); err != nil {
		t.Skipf("no key: %v: %s", err, out)
	}
	inWorld(t, func(t *testing.T, w *world) {
		ctx := access.With(t.Context(), access.Principal{Name: "ann", Role: access.Deployer})
		bake := func(description string) image.Image {
			b, err := w.api.Bake(ctx, server.StartBake{Files: w.pack(description)})
			if err != nil {
				t.Fatal(err)
			}
			w.cloud.Put("reports/"+b.Name+"/"+verify.Inventory, []byte(`{"packages":[]}`))
			return get[image.Image](w, image.Kind, w.baked(b.Name).Image)
		}
		stop := w.start(w.store)
		before := bake(description)
		stop()
		if before.Attestation != "" {
			t.Fatalf("signed without a key: %s", before.Attestation)
		}
		// From now on a statement is required.
		w.signs = Attestation{Key: key, Require: true}
		w.api = w.control(w.store)
		stop = w.start(w.store)
		defer func() { stop() }()
		_, err := w.api.Promote(ctx, before.Name, server.Promote{Channel: "stable", Why: "x"})
		if fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "it has none") {
			t.Errorf("promoted without a statement: %v", err)
		}
		if _, err := w.api.bakes.AMI(ctx, before.Name); fault.KindOf(err) != fault.Denied {
			t.Errorf("launched without a statement: %v", err)
		}
		im := bake(strings.Replace(description, "/srv/shop", "/srv/other", 1))
		raw, err := w.api.Attestation(ctx, im.Name)
		if err != nil {
			t.Fatal(err)
		}
		k, err := attest.ReadKey(key)
		if err != nil {
			t.Fatal(err)
		}
		s, _, err := k.Trusted().Open(ctx, raw)
		if err != nil || s.About(im, w.api.cloud.Region()) != nil {
			t.Fatal(err, s)
		}
		if s.Beside(attest.Inventory) == "" || s.Beside(attest.SBOM) != "" || len(s.Predicate.Run.Checks) == 0 {
			t.Errorf("%+v", s.Predicate.Run)
		}
		if _, err := w.api.Promote(ctx, im.Name, server.Promote{Channel: "stable", Why: "x"}); err != nil {
			t.Error(err)
		}
		// Somebody writes another statement into the bucket.
		w.cloud.Put(im.Attestation, []byte(strings.Replace(string(raw), "payload\":\"e", "payload\":\"f", 1)))
		if _, err := w.api.bakes.AMI(ctx, im.Name); fault.KindOf(err) != fault.Denied || !strings.Contains(err.Error(), "not valid") {
			t.Errorf("launched with another statement: %v", err)
		}
	})
}
