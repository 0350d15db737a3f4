package handoff

import (
	"strings"
	"testing"
)

const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestParseLaunch(t *testing.T) {
	for _, c := range []struct {
		name, in, err string
		fires         bool
	}{
		{"nothing", "", "", false},
		{"cloud-init's", "#cloud-config\npackages: [x]\n", "", false},
		{"a script", "#!/bin/sh\nDAYFLY_RELEASE_URL=x\n", "", false},
		{"canary", "#dayfly\nDAYFLY_ENVIRONMENT=\n", "", false},
		{"whole", "#dayfly\r\nDAYFLY_RELEASE_URL=http://box/shop-1.tar.gz\nDAYFLY_RELEASE_DIGEST=" + digest + "\nDAYFLY_ENVIRONMENT=dev\nDAYFLY_GENERATION=3\n# note\nOTHER=1\n", "", true},
		{"mirror only", "#dayfly\nDAYFLY_RELEASE_MIRROR=s3://b/k\nDAYFLY_RELEASE_DIGEST=" + digest, "", true},
		{"no digest", "#dayfly\nDAYFLY_RELEASE_URL=http://box/x\n", "DAYFLY_RELEASE_DIGEST must be", true},
		{"digest alone", "#dayfly\nDAYFLY_RELEASE_DIGEST=" + digest, "neither", true},
		{"bad mirror", "#dayfly\nDAYFLY_RELEASE_MIRROR=http://b/k\nDAYFLY_RELEASE_DIGEST=" + digest, "not s3://", true},
		{"path in a name", "#dayfly\nDAYFLY_ENVIRONMENT=../../x\n", "letters, digits", false},
		{"no key", "#dayfly\nhello\n", `line 2: "hello" is not KEY=VALUE`, false},
		{"too long", "#dayfly\n" + strings.Repeat("#", 17<<10), "limit", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, err := ParseLaunch(c.in)
			if (err == nil) != (c.err == "") || (err != nil && !strings.Contains(err.Error(), c.err)) {
				t.Fatalf("error %v, want %q", err, c.err)
			}
			if err == nil && l.Fires() != c.fires {
				t.Errorf("fires %v", l.Fires())
			}
			if l.Hook == "" {
				t.Error("no default hook")
			}
		})
	}
	l, err := ParseLaunch("#dayfly\r\nDAYFLY_RELEASE_URL=http://box/a/shop-1.tar.gz?x=1\r\nDAYFLY_RELEASE_DIGEST=" + digest + "\r\n")
	if err != nil || l.File() != "shop-1.tar.gz" {
		t.Errorf("%v %q", err, l.File())
	}
}

func TestParseConfig(t *testing.T) {
	if _, err := ParseConfig([]byte(`{"run":"deploy"}`)); err == nil {
		t.Error("a relative script was taken")
	}
	c, err := ParseConfig([]byte(`{"run":"/usr/lib/dayfly/handoff/deploy"}`))
	if err != nil || c.User != "root" || c.Deadline == 0 {
		t.Errorf("%+v %v", c, err)
	}
}

func FuzzParseLaunch(f *testing.F) {
	f.Add("#dayfly\nDAYFLY_ENVIRONMENT=dev\n")
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLaunch(s)
		if err == nil && strings.ContainsAny(ReportKey(l.Environment, l.Generation, "i-1"), "\n ") {
			t.Errorf("%q gives a key with white space", s)
		}
	})
}

func TestForms(t *testing.T) {
	digest := "sha256:" + strings.Repeat("0f", 32)
	for s, want := range map[string]bool{digest: true, digest[:70]: false, digest + "0": false, strings.ToUpper(digest): false, digest[7:]: false, "": false, digest[:40] + "g" + digest[41:]: false, digest[:40] + "\n" + digest[41:]: false} {
		if isDigest(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
	for s, want := range map[string]bool{"a": true, "Z9._-": true, "": false, "-a": false, ".": false, "_a": false, "a/b": false, "a b": false, "a\n": false, "ä": false, strings.Repeat("a", 255): true, strings.Repeat("a", 256): false} {
		if isWord(s) != want {
			t.Errorf("%q: %v", s, !want)
		}
	}
}

func TestFired(t *testing.T) {
	for _, c := range []struct {
		r    Report
		want bool
	}{
		{Report{}, false},
		{Report{Phases: []Phase{{Name: "metadata"}, {Name: "details"}, {Name: "puppet"}}}, false},
		{Report{Phases: []Phase{{Name: "metadata"}, {Name: "details"}, {Name: "deploy"}}}, true},
		{Report{Phases: []Phase{{Name: "deploy"}, {Name: "ready"}}}, true},
		{Report{OK: true}, true}, // after a restart of the agent
	} {
		if c.r.Fired() != c.want {
			t.Errorf("%+v", c.r)
		}
	}
}
