package control

import (
	"os"
	"path/filepath"
	"testing"
)

func TestTidyRemovesWhatIsHalfReceived(t *testing.T) {
	dir := t.TempDir()
	for _, p := range []string{"tmp/artifact-1", "blueprints/incoming-7/pack.tar", "blueprints/abc/pack.tar", "dayfly.db"} {
		p = filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := tidy(dir); err != nil {
		t.Fatal(err)
	}
	for p, there := range map[string]bool{"tmp/artifact-1": false, "tmp": true, "blueprints/incoming-7": false, "blueprints/abc/pack.tar": true, "dayfly.db": true} {
		if _, err := os.Stat(filepath.Join(dir, p)); (err == nil) != there {
			t.Errorf("%s: %v", p, err)
		}
	}
}
