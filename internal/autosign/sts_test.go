package autosign

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/dayfly-infra/dayfly/internal/autosign/csrtest"
	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/puppet"
)

const node = "web.production." + id

func proof() handoff.Proof {
	return handoff.Proof{Host: "sts.local-1.amazonaws.com", Date: "20260102T030405Z", Authorization: "AWS4-HMAC-SHA256 Credential=A/x, SignedHeaders=content-type;host;x-amz-date;x-amz-dayfly-certname, Signature=00", Token: "session"}
}

// Who plays STS: the proof's token names the instance that made it.
func (m machines) Who(_ context.Context, p handoff.Proof, certname string) (string, error) {
	if p.Token == "expired" {
		return "", errors.New("STS refuses the proof: 403 Forbidden")
	}
	if i, ok := strings.CutPrefix(p.Token, "of "); ok {
		return i, nil
	}
	_, i, _ := strings.Cut(certname, ".i-")
	return "i-" + i, nil
}

func nodeRequest() csrtest.Request {
	r := good()
	r.CommonName, r.Token = node, proof().String()
	return r
}

func TestNode(t *testing.T) {
	fleet := func() Machine {
		m := machine()
		m.Tags[puppet.ClaimTag] = puppet.NodeClaim{Role: "web", Environment: "production"}.String()
		return m
	}
	for _, c := range []struct {
		what    string
		name    string
		request func(*csrtest.Request)
		machine func(*Machine)
		want    string // "" = granted
	}{
		{what: "the right one"},
		{what: "another instance's proof", request: func(r *csrtest.Request) { p := proof(); p.Token = "of i-0aaaaaaaaaaaaaaaa"; r.Token = p.String() }, want: "i-0aaaaaaaaaaaaaaaa asks in the name of " + id},
		{what: "a proof of yesterday", request: func(r *csrtest.Request) { p := proof(); p.Token = "expired"; r.Token = p.String() }, want: "is not proven"},
		{what: "a token", request: func(r *csrtest.Request) { r.Token = token }, want: "the proof in challengePassword cannot be read"},
		{what: "a proof that signs no name", request: func(r *csrtest.Request) {
			p := proof()
			p.Authorization = "AWS4-HMAC-SHA256 SignedHeaders=host"
			r.Token = p.String()
		}, want: "cannot be read"},
		{what: "another instance's name", name: "web.production.i-0bbbbbbbbbbbbbbbb", request: func(r *csrtest.Request) { r.CommonName = "web.production.i-0bbbbbbbbbbbbbbbb" }, want: "may have a certificate for " + node},
		{what: "another role's name", name: "db.production." + id, request: func(r *csrtest.Request) { r.CommonName = "db.production." + id }, want: "may have a certificate for " + node},
		{what: "another role", request: func(r *csrtest.Request) { r.Extensions["1.1.13"] = "db" }, want: "asks for pp_role db"},
		{what: "another environment", request: func(r *csrtest.Request) { r.Extensions["1.1.12"] = "testing" }, want: "asks for pp_environment testing"},
		{what: "a fleet without boot: puppet", machine: func(m *Machine) { m.Tags[puppet.ClaimTag] = "" }, want: "does not let a fleet's instances"},
		{what: "a builder", machine: func(m *Machine) { m.Tags[puppet.ClaimTag] = claim().String() }, want: "does not let a fleet's instances"},
		{what: "a foreign instance", machine: func(m *Machine) { m.Tags[tagOwner] = "them" }, want: "not of this installation"},
	} {
		t.Run(c.what, func(t *testing.T) {
			r, m := nodeRequest(), fleet()
			if c.request != nil {
				c.request(&r)
			}
			if c.machine != nil {
				c.machine(&m)
			}
			n := node
			if c.name != "" {
				n = c.name
			}
			j := judge(t, machines{id: m})
			err := j.Decide(t.Context(), n, r.PEM(t))
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				if err := j.Decide(t.Context(), n, r.PEM(t)); err == nil || !strings.Contains(err.Error(), "used already") {
					t.Errorf("a second time: %v", err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	t.Run("a builder's name with a proof", func(t *testing.T) {
		r := good()
		r.Token = proof().String()
		if err := judge(t, machines{id: machine()}).Decide(t.Context(), name, r.PEM(t)); err == nil || !strings.Contains(err.Error(), "no one-time token") {
			t.Error(err)
		}
	})
}

func TestWho(t *testing.T) {
	for _, c := range []struct {
		what, arn, account string
		status             int
		host               string
		want               string // an id, or words of an error
	}{
		{"an instance", "arn:aws:sts::123456789012:assumed-role/web/" + id, "123456789012", 200, "", id},
		{"another account", "arn:aws:sts::999999999999:assumed-role/web/" + id, "999999999999", 200, "", "of the account 999999999999"},
		{"a person", "arn:aws:iam::123456789012:user/" + id, "123456789012", 200, "", "no instance's role"},
		{"a person's role", "arn:aws:sts::123456789012:assumed-role/web/alice", "123456789012", 200, "", "no instance's role"},
		{"STS refuses", "", "", 403, "", "refuses the proof"},
		{"another address", "", "", 200, "evil.example", "the proof is for"},
	} {
		t.Run(c.what, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get(handoff.ProofHeader) != node || r.Header.Get("Authorization") != proof().Authorization || r.Header.Get("X-Amz-Security-Token") != "session" {
					t.Errorf("STS gets %v", r.Header)
				}
				w.WriteHeader(c.status)
				fmt.Fprintf(w, "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><GetCallerIdentityResult><Arn>%s</Arn><Account>%s</Account></GetCallerIdentityResult></GetCallerIdentityResponse>", c.arn, c.account)
			}))
			defer srv.Close()
			p := proof()
			if p.Host = strings.TrimPrefix(srv.URL, "http://"); c.host != "" {
				p.Host = c.host
			}
			got, err := who(t.Context(), srv.URL, false, p, node, "123456789012")
			if err == nil && got != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%q, %v; want %q", got, err, c.want)
			}
		})
	}
}
