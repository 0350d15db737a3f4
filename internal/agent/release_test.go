package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

func TestRelease(t *testing.T) {
	half := func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "240000")
		w.Write(payload[:100000])
	}
	hang := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "240000")
		w.Write(payload[:100000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}
	other := func(w http.ResponseWriter, _ *http.Request) { w.Write(bytes.ToUpper(payload)) }
	down := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	for _, c := range []struct {
		name   string
		box    http.HandlerFunc
		mirror []byte
		tries  int
		ok     bool
		from   string
		broken string
	}{
		{"box", goodBox, nil, 1, true, "box", ""},
		{"box down", down, payload, 1, true, "mirror", ""},
		{"box breaks off", half, payload, 1, true, "mirror", ""},
		{"box goes silent", hang, payload, 1, true, "mirror", ""},
		{"box breaks off, no mirror", half, nil, 1, false, "", "broke off after 100000 bytes"},
		{"box has other bytes", other, payload, 1, false, "", "the box gave other bytes"},
		{"the second try goes to the mirror", other, payload, 2, true, "mirror", ""},
		{"both have other bytes", other, bytes.ToUpper(payload), 2, false, "", "the mirror gave other bytes"},
		{"box down, mirror short", down, payload[:100000], 1, false, "", "the mirror gave other bytes"},
		{"box breaks off, mirror shorter", half, payload[:1000], 1, false, "", "shorter than the box"},
		{"neither", down, []byte{}, 1, false, "", "the mirror has no answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			// The box has a lock of its own: a silent one would hold the fake.
			box := newFake(t)
			box.Config.Handler = c.box
			l := handoff.Launch{URL: box.URL + "/box/x", Digest: digestOf(payload)}
			if c.mirror != nil {
				l.Mirror = "s3://bucket/releases/x y+z"
				if len(c.mirror) > 0 {
					f.objects["releases/x y+z"] = c.mirror
				}
			}
			a, _ := testAgent(t, f, t.TempDir())
			a.start()
			s := &source{launch: l, client: a.web, aws: a.aws, say: a.say, stall: 300 * time.Millisecond, answer: time.Minute}
			address, err := s.listen()
			if err != nil {
				t.Fatal(err)
			}
			defer s.close()
			whole := false
			for range c.tries {
				res, err := http.Get(address)
				if err != nil {
					continue // broken off before the first byte
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if whole = err == nil && res.StatusCode == 200; whole && !bytes.Equal(got, payload) {
					t.Fatalf("a whole download of %d other bytes", len(got))
				}
			}
			ok, from, broken := s.result()
			if ok != c.ok || whole != c.ok || from != c.from {
				t.Errorf("ok %v, whole %v, from %q, broken %v", ok, whole, from, broken)
			}
			if c.broken != "" && (broken == nil || !strings.Contains(broken.Error(), c.broken)) {
				t.Errorf("broken %v, want %q", broken, c.broken)
			}
			a.idle()
		})
	}
}

// A box that takes the connection and never answers is left long before one
// that was sending: a deploy's deadline is still to be met.
func TestReleaseBoxHangs(t *testing.T) {
	f, box, over := newFake(t), newFake(t), make(chan struct{})
	box.Config.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-over:
		}
	})
	t.Cleanup(func() { close(over) }) // before the box closes
	f.objects["releases/x"] = payload
	a, _ := testAgent(t, f, t.TempDir())
	a.start()
	s := &source{launch: handoff.Launch{URL: box.URL + "/box/x", Mirror: "s3://bucket/releases/x", Digest: digestOf(payload)},
		client: a.web, aws: a.aws, say: a.say, stall: time.Hour, answer: 100 * time.Millisecond}
	address, err := s.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	c := http.Client{Timeout: 15 * time.Second} // less than the agent waits for headers anyway
	res, err := c.Get(address)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(got, payload) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if ok, from, broken := s.result(); !ok || from != mirror {
		t.Errorf("ok %v, from %q, broken %v", ok, from, broken)
	}
	a.idle()
}

func TestReleaseMethods(t *testing.T) {
	f := newFake(t)
	f.box = goodBox
	a, _ := testAgent(t, f, t.TempDir())
	a.start()
	s := &source{launch: handoff.Launch{URL: f.URL + "/box/x.tgz", Digest: digestOf(payload)}, client: a.web, aws: a.aws, say: a.say, stall: time.Second}
	address, err := s.listen()
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	for path, want := range map[string]int{"": 200, "/x.tgz": 200, "/y": 404} {
		res, err := http.Get(address + path)
		if err != nil || res.StatusCode != want {
			t.Errorf("GET %s: %v %v", path, res, err)
		}
		res.Body.Close()
	}
	res, err := http.Post(address, "text/plain", strings.NewReader("x"))
	if err != nil || res.StatusCode != 405 {
		t.Errorf("POST: %v %v", res, err)
	}
	res.Body.Close()
}

// The signature must be the SDK's, byte for byte.
func TestSign(t *testing.T) {
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	for _, c := range []struct{ service, method, path, token, body string }{
		{"autoscaling", "POST", "/", "token", "Action=X&Version=1"},
		{"autoscaling", "POST", "/", "", ""},
		{"s3", "PUT", "/bucket/handoff/dev/1/i-0.json", "t", "{}"},
		{"s3", "GET", "/bucket/releases/sp ace+plus=eq&~ü(1).tar.gz", "t", ""},
	} {
		sum := sha256.Sum256([]byte(c.body))
		payload := hex.EncodeToString(sum[:])
		make := func() *http.Request {
			r, err := http.NewRequest(c.method, "https://h.example:8443/", strings.NewReader(c.body))
			if err != nil {
				t.Fatal(err)
			}
			setPath(r.URL, c.path)
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded; charset=utf-8")
			r.ContentLength = 0 // which the SDK signs, and need not be
			return r
		}
		ours, theirs := make(), make()
		sign(ours, credentials{ID: "AKIA", Secret: "secret", Token: c.token}, c.service, "eu-central-1", payload, now)
		if c.service == "s3" {
			theirs.Header.Set("X-Amz-Content-Sha256", payload)
		}
		err := v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = c.service == "s3" }).SignHTTP(t.Context(),
			aws.Credentials{AccessKeyID: "AKIA", SecretAccessKey: "secret", SessionToken: c.token}, theirs, payload, c.service, "eu-central-1", now)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := ours.Header.Get("Authorization"), theirs.Header.Get("Authorization"); a != b {
			t.Errorf("%s %s:\n  %s\n  %s", c.service, c.path, a, b)
		}
		if ours.URL.EscapedPath() != ours.URL.RawPath && ours.URL.RawPath != ours.URL.Path {
			t.Errorf("path on the wire %q, signed %q", ours.URL.EscapedPath(), ours.URL.RawPath)
		}
	}
}
