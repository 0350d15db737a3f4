package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The unit is one that systemd takes, and has no secret.
func TestUnit(t *testing.T) {
	var out bytes.Buffer
	a := &app{root: &root{}, out: &out, err: &out}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &serverUnitCmd{User: "root", EnvFile: "/etc/dayfly/server.env", Binary: self, listenFlags: listenFlags{Listen: "127.0.0.1:8080", Cert: "/etc/a b%c.pem"}}
	if err := c.Run(a); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), `server run --listen 127.0.0.1:8080 --tls-cert "/etc/a b%%c.pem"`+"\n") {
		t.Errorf("the command line is wrong:\n%s", out.String())
	}
	c.Database = "postgres://dayfly:secret@db/dayfly"
	if err := c.Run(a); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("a password is taken: %v", err)
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd-analyze")
	}
	file := filepath.Join(t.TempDir(), "dayfly.service")
	if err := os.WriteFile(file, out.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	said, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput()
	if err != nil || strings.Contains(string(said), file) {
		t.Errorf("systemd-analyze verify: %v\n%s", err, said)
	}
}
