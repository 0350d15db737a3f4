package debian

import (
	"bytes"
	"context"
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/inventory/sbom"
)

func md5sum(s string) string { h := md5.Sum([]byte(s)); return hex.EncodeToString(h[:]) }

func TestRead(t *testing.T) {
	root := t.TempDir()
	for p, body := range map[string]string{
		"etc/os-release":                        "PRETTY_NAME=\"Debian GNU/Linux 12\"\nID=debian\nVERSION_ID=\"12\"\n",
		"var/lib/dpkg/status":                   "Package: cron\nStatus: install ok installed\nArchitecture: amd64\nSource: cron-src (1)\nVersion: 3.0pl1-1+b1\nConffiles:\n /etc/crontab " + md5sum("as it came") + "\n /etc/default/cron " + md5sum("as it came") + "\nDescription: x\n more\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
		"var/lib/dpkg/info/cron.list":           "/.\n/usr/sbin/cron\n/bin/tool\n/etc/crontab\n/etc/default/cron\n",
		"var/lib/dpkg/info/cron.md5sums":        md5sum("program") + "  usr/sbin/cron\n" + md5sum("tool") + "  bin/tool\n",
		"usr/share/doc/cron/copyright":          "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nLicense: ISC\n",
		"var/lib/dpkg/info/doc.list":            "/usr/share/doc/cron/copyright\n/etc/os-release\n",
		"usr/sbin/cron":                         "program",
		"usr/bin/tool":                          "not the tool",
		"etc/crontab":                           "changed",
		"etc/default/cron":                      "as it came",
		"etc/motd":                              "lives for a day",
		"etc/hostname":                          "its own",
		"srv/app/__pycache__/x.cpython-311.pyc": "byte code",
	} {
		at := filepath.Join(root, p)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(body), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/usr/share/zoneinfo/UTC", filepath.Join(root, "etc/localtime")); err != nil {
		t.Fatal(err)
	}
	v, err := Read(context.Background(), root)
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Packages) != 1 || v.Packages[0].Name != "cron" || v.Packages[0].Version != "3.0pl1-1+b1" || v.Packages[0].Source != "cron-src" || v.Packages[0].License != "ISC" || v.Distro != "debian-12" {
		t.Errorf("%+v of %s", v.Packages, v.Distro)
	}
	var paths []string
	for _, f := range v.Files {
		paths = append(paths, f.Path)
	}
	if want := []string{"/etc/crontab", "/etc/localtime", "/etc/motd", "/usr/bin/tool"}; !slices.Equal(paths, want) {
		t.Errorf("files %q, want %q", paths, want)
	}
	var b bytes.Buffer
	if err := sbom.Write(&b, v, "shop-1"); err != nil {
		t.Fatal(err)
	}
	var doc struct {
		BOMFormat, SpecVersion string
		Components             []struct{ Type, Name, Purl string }
	}
	if err := json.Unmarshal(b.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	if doc.BOMFormat != "CycloneDX" || doc.SpecVersion != "1.6" || len(doc.Components) != 5 || doc.Components[1].Purl != "pkg:deb/debian/cron@3.0pl1-1%2Bb1?arch=amd64&distro=debian-12" {
		t.Errorf("%+v", doc)
	}
	if _, err := Read(context.Background(), t.TempDir()); err == nil {
		t.Error("a machine without a package database has an inventory")
	}
}
