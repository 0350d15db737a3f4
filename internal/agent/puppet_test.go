package agent

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		codes []int // of runs, one after the other
		want  []verdict
	}{
		{[]int{0}, []verdict{goOn}},
		{[]int{2}, []verdict{goOn}},
		{[]int{1, 1, 1, 1, 1, 1, 0}, []verdict{retry, retry, retry, retry, retry, retry, goOn}},
		{[]int{4, 4, 4}, []verdict{retry, retry, giveUp}},
		{[]int{6, 4, 6}, []verdict{retry, retry, giveUp}},
		{[]int{4, 1, 6, 1, 2}, []verdict{retry, retry, retry, retry, goOn}},
		{[]int{4, 1, 6, 1, 4}, []verdict{retry, retry, retry, retry, giveUp}},
		{[]int{-1, 143, 0}, []verdict{retry, retry, goOn}}, // somebody ended it
	} {
		failed := 0
		var got []verdict
		for _, code := range c.codes {
			var v verdict
			v, failed = judge(code, failed)
			got = append(got, v)
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("exit codes %v: %v, want %v", c.codes, got, c.want)
		}
	}
}

func TestPause(t *testing.T) {
	last := time.Duration(0)
	for run := 1; run < 200; run++ {
		low, high := pause(run, 0), pause(run, 1)
		if low < last || high > time.Minute || low < time.Second || high <= low {
			t.Fatalf("after run %d: %s to %s; before it %s", run, low, high, last)
		}
		last = low
	}
}

// playedPuppet ends with the next of the exit codes, and notes what it was given.
const playedPuppet = `#!/bin/sh
here=%s
echo "$*" >>"$here/args"
conf=
for a in "$@"; do [ "$last" != --confdir ] || conf=$a; last=$a; done
cp "$conf/puppet.conf" "$here/puppet.conf"
cp "$conf/csr_attributes.yaml" "$here/csr" 2>/dev/null
echo "Error: /Stage[main]/Shop/Package[jq]/ensure: it is not to be had"
n=$(($(cat "$here/n" 2>/dev/null || echo 0) + 1))
echo $n >"$here/n"
touch "$here/puppeted"
code=$(echo %s | cut -d' ' -f$n)
exit ${code:-0}
`

func TestBootPuppet(t *testing.T) {
	for _, c := range []struct {
		what, codes string
		ok          bool
		runs, code  int
		reason      string
	}{
		{"changes", "2", true, 1, 2, ""},
		{"a server that comes late", "1 0", true, 2, 0, ""},
		{"resources that fail", "6 4 4 0", false, 3, 4, "Puppet's resources failed 3 times, exit code 4: /Stage[main]/Shop/Package[jq]/ensure"},
	} {
		t.Run(c.what, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.box = goodBox
			f.launch()
			root := armedRoot(t, fetchAll+"[ -e ../../../../puppeted ] || exit 9", handoff.Config{
				Service: "sleep 1000", Ready: "", Deadline: time.Minute,
				Puppet: &handoff.Puppet{Server: "puppet.corp.example", Port: "8140", Address: "192.0.2.7", Environment: "production", Role: "web", Fingerprint: "AB"},
			})
			if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(root, "usr/bin/puppet"), fmt.Appendf(nil, playedPuppet, root, c.codes), 0o755); err != nil {
				t.Fatal(err)
			}
			a, log := testAgent(t, f, root)
			start(t, a)
			eventually(t, "the report", func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				return f.objects["handoff/dev/1/i-0123456789abcdef0.json"] != nil
			})
			r := f.report(t)
			if r.OK != c.ok || !strings.Contains(r.Reason, c.reason) || r.Puppet == nil || r.Puppet.Runs != c.runs || r.Puppet.ExitCode != c.code || r.Puppet.Certname != "web.production.i-0123456789abcdef0" {
				t.Errorf("%+v, %+v\n%s", r, r.Puppet, log)
			}
			read := func(name string) string { raw, _ := os.ReadFile(filepath.Join(root, name)); return string(raw) }
			csr := read("csr")
			_, rest, _ := strings.Cut(csr, `1.2.840.113549.1.9.7: "`)
			word, _, _ := strings.Cut(rest, `"`)
			p, err := handoff.ParseProof(word)
			if err != nil || p.Host != strings.TrimPrefix(f.URL, "http://") || p.Token != "t" || strings.Contains(read("args"), word) {
				t.Errorf("the proof is %+v, %v, in\n%s", p, err, csr)
			}
			for _, want := range []string{`pp_instance_id: "i-0123456789abcdef0"`, `pp_image_name: "img"`, `pp_role: "web"`, `pp_environment: "production"`} {
				if !strings.Contains(csr, want) {
					t.Errorf("csr_attributes.yaml lacks %s:\n%s", want, csr)
				}
			}
			if conf := read("puppet.conf"); !strings.Contains(conf, "certname = web.production.i-0123456789abcdef0\n") || !strings.Contains(conf, "ca_fingerprint = AB\n") {
				t.Error(conf)
			}
			if _, err := os.Stat(filepath.Join(root, puppetDir, "conf/csr_attributes.yaml")); err == nil {
				t.Error("csr_attributes.yaml is there after the runs")
			}
			if !strings.Contains(read("etc/hosts"), "192.0.2.7 puppet.corp.example # dayfly\n") {
				t.Error(read("etc/hosts"))
			}
			eventually(t, "the hook", func() bool { return len(f.completions()) > 0 }) // a failure is reported first
			if done := f.completions(); c.ok && !slices.Equal(done, []string{"CONTINUE"}) || !c.ok && !slices.Equal(done, []string{"ABANDON"}) {
				t.Errorf("the launch hook got %v", done)
			}
		})
	}
}

// A server that never answers: the instance gives up at its deadline, and the
// deploy script was not run.
func TestBootPuppetDeadline(t *testing.T) {
	f := newFake(t)
	f.box = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }
	f.launch()
	root := armedRoot(t, "touch ../../../../deployed", handoff.Config{Deadline: 2 * time.Second, Puppet: &handoff.Puppet{Server: "p", Port: "1", Environment: "production", Role: "web"}})
	_ = os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755)
	if err := os.WriteFile(filepath.Join(root, "usr/bin/puppet"), []byte("#!/bin/sh\necho 'Error: Connection refused'\nexec sleep 100\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	a, _ := testAgent(t, f, root)
	start(t, a)
	eventually(t, "the report", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.objects["handoff/dev/1/i-0123456789abcdef0.json"] != nil
	})
	if r := f.report(t); r.OK || !strings.Contains(r.Reason, "before the deadline (2s)") || !strings.Contains(r.Reason, "Connection refused") {
		t.Errorf("%+v", r)
	}
	if _, err := os.Stat(filepath.Join(root, "deployed")); err == nil {
		t.Error("the deploy script ran")
	}
}
