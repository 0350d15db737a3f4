package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/cloud"
	"github.com/dayfly-infra/dayfly/internal/cloud/cloudtest"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/puppet"
	"github.com/dayfly-infra/dayfly/internal/server"
)

func serverDescription(more string) string {
	return strings.Replace(description, "puppet: { code: puppet/ }", "puppet: { server: puppet.corp.example, address: 192.0.2.7, role: web"+more+" }", 1)
}

// TestServerBake follows the one-time token: the hash reaches the builder's
// stack, the token itself the bucket alone, and each attempt has another one.
func TestServerBake(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.files = w.pack(serverDescription(""))
		var claims []puppet.Claim
		w.cloud.Plan = func(s cloud.StackInput) cloudtest.Plan {
			if c, err := puppet.ParseClaim(s.Tags[puppet.ClaimTag]); err != nil {
				t.Errorf("the builder's stack has %q: %v", s.Tags[puppet.ClaimTag], err)
			} else if n := len(claims); n == 0 || claims[n-1] != c {
				claims = append(claims, c)
			}
			return cloudtest.Plan{}
		}
		token, script := "", ""
		exec := w.cloud.Exec
		w.cloud.Exec = func(c *cloudtest.Cloud, cmd cloud.Command) (cloud.CommandResult, time.Duration) {
			if strings.HasSuffix(cmd.Comment, " puppet") {
				script = cmd.Script
			}
			return exec(c, cmd)
		}
		w.fail["puppet"] = "Error: the server has no role for it"
		defer w.start(w.store)()
		b, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files})
		if err != nil {
			t.Fatal(err)
		}
		w.wait("the token is in the bucket", func() bool {
			r := get[bake.Bake](w, bake.Kind, b.Name)
			if r.TokenKey != "" && token == "" {
				raw, err := w.api.cloud.Object(t.Context(), r.TokenKey, 1000)
				if err == nil {
					token = string(raw)
				}
			}
			return token != ""
		})
		first := w.bake()
		if first.FailedAt != bake.Converge {
			t.Fatalf("%+v", first)
		}
		w.nothingLeft()
		delete(w.fail, "puppet")
		if _, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files}); err != nil {
			t.Fatal(err)
		}
		second := w.bake()
		if second.Error != "" || second.Image == "" {
			t.Fatalf("%+v", second)
		}
		if len(claims) != 2 || claims[0].Token != puppet.HashToken(token) || claims[0].Token == claims[1].Token || claims[0].Certname == claims[1].Certname || claims[0].Role != "web" {
			t.Errorf("the claims are %+v", claims)
		}
		for _, want := range []string{"SERVER='puppet.corp.example'", "PORT='8140'", "ADDRESS='192.0.2.7'", "CERTNAME='" + claims[1].Certname + "'"} {
			if !strings.Contains(script, want) {
				t.Errorf("the builder's script lacks %s", want)
			}
		}
		records, err := json.Marshal([]bake.Bake{first, second})
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(string(records), token) || strings.Contains(script, token) {
			t.Error("the token is in a record or in a script")
		}
		w.nothingLeft()
	})
}

type fakeVersions struct {
	v   string
	err error
}

func (f *fakeVersions) Version(context.Context, string) (string, error) { return f.v, f.err }

func TestServerVersion(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.files = w.pack(serverDescription(", version_url: 'http://box.example/control/VERSION'"))
		v := &fakeVersions{v: "1.0.0"}
		w.api.bakes.Versions = v
		name := func() string {
			b, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files})
			if err != nil {
				t.Fatal(err)
			}
			return b.Name
		}
		first := name()
		if name() != first {
			t.Error("the same version is another bake")
		}
		if r := get[bake.Bake](w, bake.Kind, first); r.Wanted != "1.0.0" {
			t.Errorf("the record has the version %q", r.Wanted)
		}
		v.v = "1.1.0"
		if name() == first {
			t.Error("another version is the same bake")
		}
		for _, bad := range []fakeVersions{{err: errors.New("no route to host")}, {v: "<html>"}, {v: ""}} {
			*v = bad
			if _, err := w.api.Bake(t.Context(), server.StartBake{Files: w.files}); fault.KindOf(err) != fault.Unavailable {
				t.Errorf("%+v: %v", bad, err)
			}
		}
	})
}

func TestVersions(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/VERSION" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, " 1.0.0 \nmore\n")
	}))
	defer srv.Close()
	v := versions{srv.Client()}
	if got, err := v.Version(t.Context(), srv.URL+"/VERSION"); got != "1.0.0" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := v.Version(t.Context(), srv.URL+"/else"); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("%v", err)
	}
}
