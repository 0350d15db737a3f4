package oci

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestOrphanLayers(t *testing.T) {
	dir := t.TempDir()
	if got, err := OrphanLayers(dir); err != nil || got != nil {
		t.Fatal("an empty directory:", got, err)
	}
	for _, d := range []string{"images", "layers/sha256-aa", "layers/sha256-bb", "layers/sha256-cc", "layers/.import-x", "instances/i-1"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for f, body := range map[string]string{
		"images/ami-1.json": `{"id":"ami-1","layers":[{"digest":"sha256:aa","bytes":1}]}`,
		// Its image is gone; the layer stays as long as the instance does.
		"instances/i-1/instance.json": `{"layers":[{"digest":"sha256:bb","bytes":1}]}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	got, err := OrphanLayers(dir)
	if want := []string{".import-x", "sha256-cc"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	if err := os.WriteFile(filepath.Join(dir, "images/ami-2.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OrphanLayers(dir); err == nil {
		t.Error("an image that cannot be read was taken for none")
	}
}
