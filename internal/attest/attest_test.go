package attest_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/attest"
	"github.com/dayfly-infra/dayfly/internal/image"
)

// pair writes a key and its public half.
func pair(t *testing.T, seed byte) (private, public string) {
	t.Helper()
	k := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
	put := func(name, kind string, der []byte, err error, mode os.FileMode) string {
		if err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(p, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	private = put("key", "PRIVATE KEY", der, err, 0o600)
	der, err = x509.MarshalPKIXPublicKey(k.Public())
	return private, put("key.pub", "PUBLIC KEY", der, err, 0o644)
}

func made() attest.Made {
	return attest.Made{
		Image: image.Image{Name: "shop-1", Blueprint: "shop", Inputs: "sha256:aa", AMI: "ami-1", Parent: "ami-0", Base: "debian-12", Role: "web", Bake: "shop-1",
			Checks: []image.Check{{Name: "ports", Passed: true, Output: "secret: no output is signed"}}},
		Region: "eu-1", Builder: "owner", Files: "sha256:bb", Started: time.Unix(1, 0), Finished: time.Unix(60, 0),
		Beside: map[string]string{attest.Inventory: "cc", attest.SBOM: "dd"},
	}
}

func sign(t *testing.T, private string) []byte {
	t.Helper()
	k, err := attest.ReadKey(private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := k.Sign(t.Context(), attest.Describe(made()))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestSignedAndBelieved(t *testing.T) {
	private, public := pair(t, 1)
	raw := sign(t, private)
	if again := sign(t, private); !bytes.Equal(raw, again) {
		t.Error("the same statement is signed in another way")
	}
	_, old := pair(t, 2)
	var keys attest.Trusted // a key of the past stays beside today's
	for _, f := range []string{old, public} {
		more, err := attest.ReadTrusted(f)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, more...)
	}
	s, key, err := keys.Open(t.Context(), raw)
	if err != nil || !strings.HasPrefix(key, "sha256:") {
		t.Fatal(key, err)
	}
	if err := s.About(made().Image, "eu-1"); err != nil {
		t.Error(err)
	}
	if s.Beside(attest.SBOM) != "dd" || s.Beside(attest.Report) != "" {
		t.Errorf("%+v", s.Predicate.Run.Byproducts)
	}
	if strings.Contains(string(mustBody(t, raw)), "secret") {
		t.Error("a check's output is in the statement")
	}
	for what, change := range map[string]func(*image.Image){
		"another AMI":    func(i *image.Image) { i.AMI = "ami-2" },
		"another name":   func(i *image.Image) { i.Name = "shop-2" },
		"other inputs":   func(i *image.Image) { i.Inputs = "sha256:ab" },
		"without inputs": func(i *image.Image) { i.Inputs = "" },
	} {
		i := made().Image
		change(&i)
		if err := s.About(i, "eu-1"); err == nil {
			t.Errorf("%s: believed", what)
		}
	}
	if err := s.About(made().Image, "us-1"); err == nil {
		t.Error("the same AMI in another region: believed")
	}
}

func mustBody(t *testing.T, raw []byte) []byte {
	t.Helper()
	var e struct{ Payload string }
	if err := json.Unmarshal(raw, &e); err != nil {
		t.Fatal(err)
	}
	body, err := base64.StdEncoding.DecodeString(e.Payload)
	if err != nil {
		t.Fatal(err)
	}
	return body
}

func TestNotBelieved(t *testing.T) {
	private, public := pair(t, 1)
	raw := sign(t, private)
	keys, err := attest.ReadTrusted(public)
	if err != nil {
		t.Fatal(err)
	}
	var e map[string]any
	change := func(f func()) []byte {
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatal(err)
		}
		f()
		out, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	other := bytes.Replace(mustBody(t, raw), []byte("ami-1"), []byte("ami-2"), 1)
	for what, envelope := range map[string][]byte{
		"other bytes":        change(func() { e["payload"] = base64.StdEncoding.EncodeToString(other) }),
		"another type":       change(func() { e["payloadType"] = "text/plain" }),
		"no signature":       change(func() { e["signatures"] = []any{} }),
		"a broken signature": change(func() { e["signatures"] = []any{map[string]any{"keyid": "x", "sig": "!"}} }),
		"nothing":            nil,
		"no JSON":            []byte("MII"),
		"too much":           append(bytes.Clone(raw), make([]byte, attest.Limit)...),
	} {
		if _, _, err := keys.Open(context.Background(), envelope); err == nil {
			t.Errorf("%s: believed", what)
		}
	}
	_, stranger := pair(t, 9)
	if keys, err = attest.ReadTrusted(stranger); err != nil {
		t.Fatal(err)
	}
	if _, _, err := keys.Open(t.Context(), raw); err == nil || !strings.Contains(err.Error(), "sha256:") {
		t.Errorf("by a stranger's key: %v", err)
	}
	if _, _, err := attest.Trusted(nil).Open(t.Context(), raw); err == nil {
		t.Error("believed without any key")
	}
}

func TestKeysThatAreRefused(t *testing.T) {
	private, public := pair(t, 1)
	write := func(text string, mode os.FileMode) string {
		p := filepath.Join(t.TempDir(), "k")
		if err := os.WriteFile(p, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return p
	}
	raw, err := os.ReadFile(private)
	if err != nil {
		t.Fatal(err)
	}
	for what, f := range map[string]string{"readable by others": write(string(raw), 0o640), "the public half": public, "no PEM": write("x", 0o600), "absent": "/nowhere/key"} {
		_, err := attest.ReadKey(f)
		if err == nil {
			t.Errorf("%s: taken", what)
		} else if line := strings.Split(string(raw), "\n")[1]; strings.Contains(err.Error(), line) {
			t.Errorf("%s: the error has the key in it", what)
		}
	}
	for what, f := range map[string]string{"the private key": private, "no PEM": write("x", 0o600), "something behind it": write("-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\nx", 0o600)} {
		if _, err := attest.ReadTrusted(f); err == nil {
			t.Errorf("%s: taken", what)
		}
	}
}

// What the documentation tells people to run makes keys that are taken.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl")
	}
	dir := t.TempDir()
	key, pub := filepath.Join(dir, "k"), filepath.Join(dir, "k.pub")
	for _, args := range [][]string{{"genpkey", "-algorithm", "ed25519", "-out", key}, {"pkey", "-in", key, "-pubout", "-out", pub}} {
		if out, err := exec.CommandContext(t.Context(), openssl, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := attest.ReadTrusted(pub)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := keys.Open(t.Context(), sign(t, key)); err != nil {
		t.Error(err)
	}
}

func FuzzOpen(f *testing.F) {
	k := attest.Trusted{}
	f.Add([]byte(`{"payloadType":"application/vnd.in-toto+json","payload":"e30=","signatures":[{"keyid":"","sig":"AA=="}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, _, err := k.Open(t.Context(), raw); err == nil {
			t.Error("believed")
		}
	})
}
