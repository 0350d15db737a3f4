package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/soak/load"
)

// TestDeploysUnderLoad moves real traffic between generations while requests
// come at a constant rate: what is planned fails none of them.
func TestDeploysUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("takes minutes")
	}
	if os.Geteuid() != 0 {
		t.Skip("real instances need root")
	}
	w := setup(t)
	w.edit(t, "dayfly.yaml", "small: { size: 3, lease: 2h }", "small: { size: 3, lease: standing, image: shop/stable, replace: { strategy: blue-green, steps: [10, 50, 100], pause: 3s, check: deploy/check }, soak: 8s }")
	check := "#!/bin/sh\nset -eu\ncurl -fsS -X POST -d '{\"item\": \"lamp\", \"count\": 1}' http://127.0.0.1:8080/orders\n"
	if err := os.WriteFile(filepath.Join(w.shop, "deploy/check"), []byte(check), 0o755); err != nil {
		t.Fatal(err)
	}
	w.must(t, "bake", w.shop)
	first := w.newest(t)
	w.must(t, "image", "promote", first, "stable", "--why", "to begin with")
	w.must(t, "deploy", w.shop, "small")
	w.serves(t, "1.0.0")
	settled := func() { t.Helper(); w.until(t, time.Minute, w.alone(t)) }
	settled()
	l, err := load.Start(w.show(t).Address, 100)
	if err != nil {
		t.Fatal(err)
	}
	ended := sync.OnceFunc(func() { t.Log(l.End()) })
	defer ended()
	none := func(what string, since time.Time) {
		t.Helper()
		if bad := l.Since(since); len(bad) > 0 {
			t.Errorf("%d requests failed while %s:\n  %v", len(bad), what, bad[:min(5, len(bad))])
		}
	}

	begun := time.Now()
	w.release(t, "1.1.0", "true", true)
	w.must(t, "deploy", w.shop, "small")
	settled()
	w.serves(t, "1.1.0")
	none("a good release was deployed", begun)
	t.Logf("a good release: %s until the old generation is gone", time.Since(begun).Round(time.Second))

	// Within the soak going back is a switch.
	begun = time.Now()
	w.edit(t, "dayfly.yaml", "soak: 8s", "soak: 5m")
	w.release(t, "1.2.0", "true", true)
	w.must(t, "deploy", w.shop, "small")
	w.serves(t, "1.2.0")
	clicked := time.Now()
	w.must(t, "rollback", "shop-small", "--why", "orders are slow")
	took := time.Since(clicked)
	w.serves(t, "1.1.0")
	t.Logf("all traffic is back after %s", took.Round(time.Millisecond))
	if took > 2*time.Second {
		t.Errorf("going back took %s", took)
	}
	none("somebody went back", begun)

	// A release that starts and takes no orders: a tenth of the requests meets it
	// until the check has said so.
	w.until(t, 2*time.Minute, w.alone(t))
	w.release(t, "1.3.0", "rm -rf /srv/shop/data; touch /srv/shop/data", true)
	before := time.Now()
	out, err := w.try("deploy", w.shop, "small")
	if err == nil || !strings.Contains(out, "its check deploy/check ended with Failed") {
		t.Fatalf("the deploy of a bad release ended with %v: %s", err, out)
	}
	// What was sent to it before ends.
	time.Sleep(load.Slowly + time.Second)
	back := time.Now()
	w.serves(t, "1.1.0")
	met := len(l.Since(before))
	settled()
	none("a bad release was left", back)
	t.Logf("%d requests met the bad release", met)
	if met > 60 {
		t.Errorf("%d requests met the bad release: more than a tenth of those of a few seconds", met)
	}

	// The same without a check: the load balancer's figures say it. Every fifth
	// request is an order.
	w.edit(t, "dayfly.yaml", "check: deploy/check", "max_error_rate: 1%")
	w.release(t, "1.4.0", "rm -rf /srv/shop/data; touch /srv/shop/data", true)
	before = time.Now()
	out, err = w.try("deploy", w.shop, "small")
	if err == nil || !strings.Contains(out, "of its") || !strings.Contains(out, "requests were answered with 5xx (max_error_rate: 1 %)") {
		t.Fatalf("the deploy of a release that takes no orders ended with %v: %s", err, out)
	}
	time.Sleep(load.Slowly + time.Second)
	back = time.Now()
	w.serves(t, "1.1.0")
	if e := w.show(t); e.Serving != e.Want || !strings.Contains(e.Error, "were answered with 5xx") {
		t.Errorf("%+v", e)
	}
	none("a release was left for its errors", back)
	t.Logf("%d requests met the release that takes no orders; it was left %s after the deploy began", len(l.Since(before)), back.Sub(before).Round(time.Second))

	// One whose answers are right, and slow: most of the time it stands still.
	w.edit(t, "dayfly.yaml", "max_error_rate: 1%", "max_latency: 300ms")
	w.release(t, "1.5.0", `mv bin/shop bin/shop.real
printf '%s\n' '#!/bin/sh' '"$0.real" &' 'p=$!' 'while sleep 0.2 && kill -STOP $p; do sleep 1.2; kill -CONT $p; done' >bin/shop
chmod 755 bin/shop`, true)
	before = time.Now()
	out, err = w.try("deploy", w.shop, "small")
	if err == nil || !strings.Contains(out, "on average (max_latency: 300ms)") {
		t.Fatalf("the deploy of a slow release ended with %v: %s", err, out)
	}
	w.serves(t, "1.1.0")
	t.Logf("the slow release was left %s after the deploy began: %s", time.Since(before).Round(time.Second), w.show(t).Error)

	// A promoted image comes by itself, with the release that serves and not with
	// the bad one in the box; revoked in its soak, it is left by a switch.
	w.edit(t, "puppet/modules/shop/manifests/init.pp", "  service { 'cron':", "  file { '/etc/shop-note': content => 'newer' }\n  service { 'cron':")
	w.must(t, "bake", w.shop)
	second := w.newest(t)
	runs := func(image string) func() error {
		return func() error {
			var v struct{ Environment struct{ Image string } }
			if w.json(t, &v, "env", "show", "shop-small"); v.Environment.Image != image {
				return fmt.Errorf("it runs %s, not %s", v.Environment.Image, image)
			}
			return nil
		}
	}
	begun = time.Now()
	w.must(t, "image", "promote", second, "stable", "--why", "it has the note")
	w.until(t, 2*time.Minute, runs(second))
	t.Logf("a promoted image serves after %s", time.Since(begun).Round(time.Second))
	w.serves(t, "1.1.0")
	clicked = time.Now()
	if out := w.must(t, "image", "revoke", second, "--why", "CVE-2026-1"); !strings.Contains(out, "stable points to "+first+" again") || !strings.Contains(out, "shop-small") {
		t.Error(out)
	}
	w.until(t, time.Minute, runs(first))
	t.Logf("a revoked image is left after %s", time.Since(clicked).Round(time.Millisecond))
	w.serves(t, "1.1.0")
	settled()
	none("an image was promoted and revoked", begun)
	if out := w.must(t, "image", "currency"); !strings.Contains(out, "current") || strings.Contains(out, second) {
		t.Error(out)
	}
	ended()
	w.must(t, "env", "destroy", "shop-small")
}

// newest is the image that was baked last.
func (w *world) newest(t *testing.T) string {
	t.Helper()
	var ch struct{ Image string }
	w.json(t, &ch, "image", "channels", "shop/candidate")
	return ch.Image
}

// alone tells that one generation serves and nothing else is there.
func (w *world) alone(t *testing.T) func() error {
	return func() error {
		var v struct {
			Environment struct{ Shift *struct{} }
			Generations []struct {
				Number int
				Phase  string
			}
		}
		w.json(t, &v, "env", "show", "shop-small")
		live := 0
		for _, g := range v.Generations {
			if g.Phase != "gone" {
				live++
			}
		}
		if v.Environment.Shift != nil || live != 1 {
			return fmt.Errorf("%+v", v)
		}
		return nil
	}
}
