package dir

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/box"
	"github.com/dayfly-infra/dayfly/internal/box/boxtest"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

func TestBox(t *testing.T) {
	boxtest.Run(t, func(t *testing.T, files map[string]string) box.Box {
		d := t.TempDir()
		for n, body := range files {
			if err := os.WriteFile(filepath.Join(d, n), []byte(body), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return New(d)
	})
	if _, err := New("/nowhere").Resolve(t.Context(), "latest"); fault.KindOf(err) != fault.Unavailable {
		t.Error(err)
	}
}
