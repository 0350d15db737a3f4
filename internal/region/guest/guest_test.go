package guest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	signal.Ignore(syscall.SIGPIPE)
	os.Exit(m.Run())
}

// inside makes a guest with directories of its own, as if it had booted there.
func inside(t *testing.T, boot Boot) *system {
	t.Helper()
	top := t.TempDir()
	for _, d := range []string{"host", "scripts", "rc", "service"} {
		if err := os.Mkdir(filepath.Join(top, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	boot.Version = Version
	b, err := json.Marshal(boot)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(top, "host", BootName), string(b), 0o600)
	s, err := newSystem(filepath.Join(top, "host"), filepath.Join(top, "scripts"), filepath.Join(top, "rc"), filepath.Join(top, "service"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.channel.close(); s.procs.close() })
	return s
}

func write(t *testing.T, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
}

func (s *system) text(t *testing.T) string {
	b, err := os.ReadFile(filepath.Join(s.hostDir, ConsoleName))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("never: ", what)
		}
	}
}

func TestBootAndStop(t *testing.T) {
	s := inside(t, Boot{Env: map[string]string{"COLOUR": "green"}, UserData: []byte("#!/bin/sh\necho user data is $COLOUR\n")})
	write(t, filepath.Join(s.rcDir, "S02second"), "#!/bin/sh\necho second $1 $RUNLEVEL\n", 0o700)
	write(t, filepath.Join(s.rcDir, "S01first"), "#!/bin/sh\necho first $1; sleep 0.1; exit 3\n", 0o700)
	write(t, filepath.Join(s.rcDir, "K01not"), "#!/bin/sh\necho must not run\n", 0o700)
	write(t, filepath.Join(s.serviceDir, "one", "run"), "#!/bin/sh\necho one runs $COLOUR in $PWD\ntrap 'echo one was asked; exit' TERM\nwhile :; do sleep 0.02; done\n", 0o700)
	write(t, filepath.Join(s.serviceDir, "dies", "run"), "#!/bin/sh\necho dies\nexit 4\n", 0o700)
	write(t, filepath.Join(s.serviceDir, "off", "run"), "#!/bin/sh\necho must not run\n", 0o700)
	write(t, filepath.Join(s.serviceDir, "off", "down"), "", 0o600)
	stop := make(chan os.Signal, 1)
	ended := make(chan error, 1)
	go func() { ended <- s.run(stop) }()
	eventually(t, "user data", func() bool { return strings.Contains(s.text(t), "user data is green\n") })
	eventually(t, "services", func() bool { return strings.Contains(s.text(t), "one runs green in "+s.serviceDir+"/one\n") })
	eventually(t, "a restart", func() bool { return strings.Count(s.text(t), "dies\n") >= 2 })
	write(t, filepath.Join(s.serviceDir, "later", "run"), "#!/bin/sh\necho later runs\nexec sleep 100\n", 0o700)
	eventually(t, "a service that appears", func() bool { return strings.Contains(s.text(t), "later runs\n") })
	if err := os.RemoveAll(filepath.Join(s.serviceDir, "later")); err != nil {
		t.Fatal(err)
	}
	stop <- syscall.SIGTERM
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the pipe's last line", func() bool { return strings.Contains(s.text(t), "one was asked\n") })
	out := s.text(t)
	last := -1
	for _, want := range []string{"boot\n", "first start\n", "S01first start: exited 3\n", "second start 2\n"} {
		at := strings.Index(out, want)
		if at <= last {
			t.Errorf("%q is not in its place in\n%s", want, out)
		}
		last = at
	}
	if strings.Contains(out, "must not run") {
		t.Error(out)
	}
	if !s.procs.reap() {
		t.Error("children are left")
	}
	s.userData()
	if out := s.text(t); strings.Count(out, "user data is green") != 1 {
		t.Error("user data ran twice")
	}
}

// What user data says last is on the console when userData returns: under
// systemd its process ends then.
func TestUserDataIsCopiedWhole(t *testing.T) {
	for range 20 {
		// One at a time: each reaps all children of this process.
		t.Run("", func(t *testing.T) {
			s := inside(t, Boot{UserData: []byte("#!/bin/sh\nseq 2000\necho the last line\n")})
			s.userData()
			if out := s.text(t); !strings.Contains(out, "\n2000\nthe last line\ndayfly-guest: user data ended") {
				t.Errorf("the console ends with %q", out[max(0, len(out)-100):])
			}
		})
	}
}

func TestCommandsKeepResults(t *testing.T) {
	s := inside(t, Boot{})
	do := func(id, script string, limit time.Duration) Result {
		t.Helper()
		k, err := s.cmds.begin(Command{ID: id, Script: []byte(script), Timeout: limit})
		if err != nil {
			t.Fatal(err)
		}
		<-k.done
		return k.result
	}
	for k := range keepOutputs + 3 {
		if r := do(fmt.Sprint("c", k), "head -c 9000 /dev/zero", 0); len(r.Stdout) != 9000 {
			t.Fatal(len(r.Stdout), string(r.Stderr))
		}
	}
	count := func(id string) int { return len(do(id, "exit 9", 0).Stdout) }
	if a, b := count("c0"), count(fmt.Sprint("c", keepOutputs+2)); a != trimmedTo || b != 9000 {
		t.Error(a, b)
	}
	// Another guest in the same directory: as behind a restart.
	again, err := newCommands(s.procs, s.cmds.dir, s.cmds.scripts, nil, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(s.cmds.dir, fileOf("cut")+".begun"), "", 0o600)
	for id, want := range map[string]int{"c1": 0, "cut": 255} {
		k, err := again.begin(Command{ID: id, Script: []byte("exit 9")})
		if err != nil {
			t.Fatal(err)
		}
		<-k.done
		if k.result.ExitCode != want {
			t.Errorf("%s: %+v", id, k.result)
		}
	}
	for name, c := range map[string]Command{"no id": {}, "long": {ID: "x", Script: make([]byte, ScriptLimit+1)}} {
		if _, err := s.cmds.begin(c); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	if r := do("dir", "pwd", 0); r.ExitCode != 0 {
		t.Errorf("%+v", r)
	}
	begun := time.Now()
	// The whole group ends, also what ignores SIGTERM.
	r := do("slow", "trap '' TERM; sh -c 'trap \"\" TERM; echo $$; sleep 100' & wait", 300*time.Millisecond)
	if !r.TimedOut || r.ExitCode != 137 || time.Since(begun) > 5*time.Second {
		t.Errorf("%+v after %s", r, time.Since(begun))
	}
	var pid int
	if _, err := fmt.Sscan(string(r.Stdout), &pid); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the end of the group", func() bool { return syscall.Kill(pid, 0) != nil })
}

func TestChannel(t *testing.T) {
	s := inside(t, Boot{})
	path := filepath.Join(s.hostDir, SocketName)
	if i, err := os.Stat(path); err != nil || i.Mode().Perm() != 0o600 {
		t.Error(i.Mode(), err)
	}
	ask := func(q any) (r Response) {
		t.Helper()
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := WriteFrame(c, q); err != nil {
			t.Fatal(err)
		}
		if err := ReadFrame(c, &r); err != nil {
			t.Fatal(err)
		}
		if r.Accepted {
			err = ReadFrame(c, &r)
		}
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	if r := ask(Request{Version: 1, Op: OpReady}); r.Error != "" || r.Version != Version {
		t.Errorf("%+v", r)
	}
	if r := ask(Request{Version: 1, Op: OpRun, Command: &Command{ID: "c", Script: []byte("echo hi")}}); r.Result == nil || string(r.Result.Stdout) != "hi\n" {
		t.Errorf("%+v", r)
	}
	for _, q := range []Request{{}, {Version: Version + 1, Op: OpReady}, {Version: 1, Op: "format"}, {Version: 1, Op: OpRun}, {Version: 1, Op: OpRun, Command: &Command{}}} {
		if r := ask(q); r.Error == "" {
			t.Errorf("%+v is accepted: %+v", q, r)
		}
	}
	for _, raw := range []string{"", "\x00", "\xff\xff\xff\xff", "\x00\x00\x00\x05hello", "\x00\x00\x00\x09short"} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, raw)
		c.(*net.UnixConn).CloseWrite()
		if b, err := io.ReadAll(c); len(b) > 0 && err == nil {
			t.Errorf("%q is answered with %q", raw, b)
		}
		c.Close()
	}
	if r := ask(Request{Version: 1, Op: OpReady}); r.Error != "" {
		t.Errorf("%+v", r)
	}
}

func FuzzReadFrame(f *testing.F) {
	var b bytes.Buffer
	WriteFrame(&b, Request{Version: 1, Op: OpRun, Command: &Command{ID: "c", Script: []byte("x")}})
	f.Add(b.Bytes())
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, in []byte) {
		var q Request
		if ReadFrame(bytes.NewReader(in), &q) != nil {
			return
		}
		var out bytes.Buffer
		if err := WriteFrame(&out, q); err != nil {
			t.Fatal(err)
		}
		var again Request
		if err := ReadFrame(&out, &again); err != nil {
			t.Fatal(err)
		}
	})
}

func TestTail(t *testing.T) {
	for limit := 1; limit < 9; limit++ {
		w := &tail{limit: limit}
		all := ""
		for k := range 40 {
			part := strings.Repeat(string(rune('a'+k%26)), k%7)
			w.Write([]byte(part))
			all += part
			if got, want := string(w.bytes()), all[max(0, len(all)-limit):]; got != want {
				t.Fatalf("limit %d: %q, want %q", limit, got, want)
			}
		}
	}
}

func TestConsoleLimit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	c, err := openConsole(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for k := range 1000 {
		fmt.Fprintf(c, "line %d\n", k)
		if i, _ := os.Stat(path); i.Size() > 1000 {
			t.Fatal(i.Size())
		}
	}
	if b, _ := os.ReadFile(path); !strings.HasSuffix(string(b), "line 998\nline 999\n") || len(b) < 400 {
		t.Errorf("%q", b)
	}
}

func TestUnits(t *testing.T) {
	dir := t.TempDir()
	env := map[string]string{"A": `quote " and \ and 100%`, "B": "two\nlines", "C": "grün"}
	for range 2 { // again is no error
		if err := writeUnits(dir, Boot{Env: env, UserData: []byte("#!/bin/sh\n")}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "system.conf.d/50-dayfly.conf"))
	want := "[Manager]\nDefaultEnvironment=\"A=quote \\\" and \\\\ and 100%%\"\nDefaultEnvironment=\"B=two\\x0alines\"\nDefaultEnvironment=\"C=grün\"\n"
	if err != nil || string(b) != want {
		t.Errorf("%s %v", b, err)
	}
	for _, l := range []string{"sysinit.target.wants/dayfly-guest.service", "multi-user.target.wants/dayfly-user-data.service"} {
		if _, err := os.Stat(filepath.Join(dir, "system", l)); err != nil {
			t.Error(err)
		}
	}
	plain := t.TempDir()
	if err := writeUnits(plain, Boot{UserData: []byte("#cloud-config\n")}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(plain, "system/multi-user.target.wants")); err == nil {
		t.Error("user data that is no script would run")
	}
}
