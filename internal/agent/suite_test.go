package agent

import (
	"archive/tar"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

func pack(t *testing.T, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for n, s := range files {
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: n, Mode: 0o755, Size: int64(len(s))}); err != nil {
			t.Fatal(err)
		}
		w.Write([]byte(s))
	}
	w.Close()
	return b.Bytes()
}

func TestSuite(t *testing.T) {
	const good = `<testsuite name="a"><testcase name="1"/><testcase name="2"><skipped/></testcase></testsuite>`
	for _, c := range []struct {
		name, script string
		passed       bool
		junit        []string
		artifact     string
	}{
		{"exit code 0", "echo hello", true, []string{`tests="1" failures="0"`, `name="api"`}, ""},
		{"exit code 1", "echo '<broken> & more'; exit 1", false, []string{`failures="1"`, "api.sh ended with exit code 1", "&lt;broken&gt; &amp; more"}, ""},
		{"junit", `echo '` + good + `' > $DAYFLY_RESULTS/a.xml; mkdir $DAYFLY_RESULTS/x; echo shot > $DAYFLY_RESULTS/x/shot.png; test -n "$PATH"`, true, []string{`tests="2" failures="0" skipped="1"`}, "x/shot.png"},
		{"two files", `echo '<?xml version="1.0"?><testsuites>` + good + `</testsuites>' > $DAYFLY_RESULTS/a.xml; echo '<testsuite><testcase name="3"><failure message="no"/></testcase></testsuite>' > $DAYFLY_RESULTS/b.xml; exit 1`,
			false, []string{`tests="3" failures="1" skipped="1"`}, ""},
		{"all pass, exit code 3", `echo '` + good + `' > $DAYFLY_RESULTS/a.xml; exit 3`, false, []string{"exit code 3, though no test case failed"}, ""},
		{"not JUnit", `echo '<html/>' > $DAYFLY_RESULTS/a.xml`, false, []string{"results cannot be read"}, ""},
		{"cut JUnit", `echo '<testsuite><testcase>' > $DAYFLY_RESULTS/a.xml`, false, []string{"results cannot be read"}, ""},
		{"hangs", `echo begun; sleep 100`, false, []string{"still running after 500ms", "begun"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFake(t)
			f.objects["blueprints/x.tar"] = pack(t, map[string]string{"suites/api.sh": "#!/bin/sh\n" + c.script + "\n", "suites/lib.sh": "x"})
			a, log := testAgent(t, f, t.TempDir())
			timeout := time.Minute
			if c.name == "hangs" {
				timeout = 500 * time.Millisecond
			}
			passed, err := a.RunSuite(t.Context(), Suite{Files: "s3://bucket/blueprints/x.tar", Run: "suites/api.sh", Results: "s3://bucket/results/r1/api", Timeout: timeout})
			if err != nil || passed != c.passed {
				t.Fatalf("passed %v, %v\n%s", passed, err, log)
			}
			doc := string(f.objects["results/r1/api/junit.xml"])
			for _, want := range c.junit {
				if !strings.Contains(doc, want) {
					t.Errorf("junit.xml lacks %q:\n%s", want, doc)
				}
			}
			if _, ok := f.objects["results/r1/api/log.txt"]; !ok {
				t.Error("no log")
			}
			if c.artifact != "" && f.objects["results/r1/api/artifacts/"+c.artifact] == nil {
				t.Error("no artifact")
			}
		})
	}
}

// A command gets secrets by files, and nothing of them stays; its log can be
// followed.
func TestSuiteCredentialsAndLog(t *testing.T) {
	f := newFake(t)
	f.secrets = map[string]string{"/shop/token": "tiger"}
	followed := make(chan struct{})
	var once sync.Once
	f.on = func(call string) {
		if call == "PUT /bucket/r/log.txt" {
			once.Do(func() { close(followed) })
		}
	}
	dir := t.TempDir()
	f.objects["p.tar"] = pack(t, map[string]string{"s.sh": `#!/bin/sh
echo begun
test "$(cat $TOKEN)" = tiger && test "$(stat -c %a $TOKEN)" = 400 || exit 7
while [ ! -e ` + dir + `/go ]; do sleep 0.1; done
! env | grep tiger
`})
	a, _ := testAgent(t, f, dir)
	go func() {
		<-followed
		os.WriteFile(dir+"/go", nil, 0o600)
	}()
	passed, err := a.RunSuite(t.Context(), Suite{Files: "s3://bucket/p.tar", Run: "s.sh", Results: "s3://bucket/r", Timeout: time.Minute, Credentials: []string{"TOKEN=/shop/token"}})
	if err != nil || !passed {
		t.Errorf("%v %v %s", passed, err, f.objects["r/junit.xml"])
	}
	left, _ := filepath.Glob(dir + handoff.RunDir + "/credentials-*")
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
	_, err = a.RunSuite(t.Context(), Suite{Files: "s3://bucket/p.tar", Run: "s.sh", Results: "s3://bucket/r", Timeout: time.Minute, Credentials: []string{"TOKEN=/other"}})
	if err == nil || !strings.Contains(err.Error(), "TOKEN: ssm:GetParameter /other: ParameterNotFound") {
		t.Error(err)
	}
}

func TestSuiteRefuses(t *testing.T) {
	for name, c := range map[string]struct{ file, run, want string }{
		"path out":   {"../x", "suites/api.sh", "only plain files inside the folder"},
		"no command": {"suites/x", "suites/api.sh", "there is no suites/api.sh"},
		"absolute":   {"suites/x", "/bin/sh", "there is no /bin/sh"},
	} {
		f := newFake(t)
		f.objects["p.tar"] = pack(t, map[string]string{c.file: "x"})
		a, _ := testAgent(t, f, t.TempDir())
		if _, err := a.RunSuite(t.Context(), Suite{Files: "s3://bucket/p.tar", Run: c.run, Results: "s3://bucket/r", Timeout: time.Minute}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestFetch(t *testing.T) {
	f := newFake(t)
	f.objects["k"] = []byte("body")
	a, _ := testAgent(t, f, t.TempDir())
	to := t.TempDir() + "/file"
	if err := a.Fetch(t.Context(), "s3://bucket/k", to); err != nil || tailFile(to, 10) != "body" {
		t.Error(err)
	}
	if err := a.Fetch(t.Context(), "s3://bucket/none", to); err == nil || !strings.Contains(err.Error(), "NoSuchKey: it is not there") {
		t.Error(err)
	}
	if err := a.Put(t.Context(), to, "s3://bucket/put"); err != nil || string(f.objects["put"]) != "body" {
		t.Error(err)
	}
}

func TestHostname(t *testing.T) {
	for _, c := range [][3]string{
		{"shop-dev", "i-0123456789abcdef0", "shop-dev-0123456789abcdef0"},
		{"Shop_Dev.", "i-0", "shop-dev-0"},
		{"", "i-0", "i-0"},
		{strings.Repeat("x", 80), "i-0123456789abcdef0", strings.Repeat("x", 45) + "-0123456789abcdef0"},
	} {
		if got := hostname(c[0], c[1]); got != c[2] || len(got) > 63 {
			t.Errorf("%q: %q, want %q", c[0], got, c[2])
		}
	}
}
