package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

// pty opens a pseudoterminal of that size.
func pty(t *testing.T, width, height int) (master, slave *os.File) {
	t.Helper()
	m, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no pseudoterminals here: ", err)
	}
	t.Cleanup(func() { m.Close() })
	if err := unix.IoctlSetPointerInt(int(m.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(m.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	s, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	if err := unix.IoctlSetWinsize(int(s.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: uint16(width), Row: uint16(height)}); err != nil {
		t.Fatal(err)
	}
	return m, s
}

// screen plays what a terminal does with the few sequences that we use.
func screen(out string) []string {
	lines, at := []string{""}, 0
	for out != "" {
		var n int
		switch {
		case strings.HasPrefix(out, "\x1b[J"):
			lines = append(lines[:at], "")
			out = out[3:]
		case strings.HasPrefix(out, "\x1b["):
			if _, err := fmt.Sscanf(out, "\x1b[%dF", &n); err != nil {
				return []string{"an unknown sequence: " + out}
			}
			at = max(at-n, 0)
			out = out[strings.IndexByte(out, 'F')+1:]
		case out[0] == '\r':
			out = out[1:]
		case out[0] == '\n':
			if at++; at == len(lines) {
				lines = append(lines, "")
			}
			out = out[1:]
		default:
			end := strings.IndexAny(out, "\r\n\x1b")
			if end < 0 {
				end = len(out)
			}
			lines[at] += out[:end]
			out = out[end:]
		}
	}
	return lines[:len(lines)-1]
}

func TestLiveOnTerminal(t *testing.T) {
	master, slave := pty(t, 40, 8)
	p := (&app{root: &root{}, err: slave}).progress()
	if p.live == nil {
		t.Fatal("a terminal is not seen")
	}
	now := time.Now()
	r := pipeline.Run{Name: "shop-r1", Created: now, Blocker: &blocker.Blocker{Message: "1 of 2 suites have no result yet, and this sentence goes on and on"},
		Stages: []pipeline.Stage{{Name: "check", Phase: pipeline.Running}, {Name: "go", Phase: pipeline.Pending, Gate: &pipeline.Gate{}}},
		Suites: []pipeline.Suite{{Name: "api", Stage: "check", Result: pipeline.Passed}, {Name: "web", Stage: "check", Phase: pipeline.Running, Waits: "evil \x1b[2J\r\n waits"}}}
	p.show(runBlock(r, now), "")
	p.say("suite api passed")
	p.show(runBlock(r, now), "")
	fmt.Fprintln(slave, "END")
	var got bytes.Buffer
	for !strings.Contains(got.String(), "END") {
		b := make([]byte, 4096)
		n, err := master.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		got.Write(b[:n])
	}
	lines := screen(got.String())
	if !strings.HasSuffix(lines[0], "suite api passed") || !strings.HasPrefix(lines[1], "shop-r1") || lines[2] != "  check            ██████████░░░░░░░░░…" || lines[len(lines)-1] != "END" {
		t.Errorf("the terminal shows\n%s", strings.Join(lines, "\n"))
	}
	for _, l := range lines {
		if n := len([]rune(l)); n > 39 {
			t.Errorf("%d characters: %s", n, l)
		}
	}
	// A block higher than the terminal is cut; and it goes.
	var b bytes.Buffer
	l := &live{w: &b, size: func() (int, int) { return 20, 4 }}
	l.draw([]string{"1", "2", "3", "4", "5"})
	if got := screen(b.String()); !slices.Equal(got, []string{"1", "2", "… and 3 more"}) {
		t.Errorf("%q", got)
	}
	l.clear()
	if got := screen(b.String()); len(got) != 0 {
		t.Errorf("left: %q", got)
	}
}

func TestLiveElsewhere(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, w := range []io.Writer{&bytes.Buffer{}, null} {
		if terminal(w) != nil {
			t.Errorf("%T is a terminal", w)
		}
	}
	var b bytes.Buffer
	p := (&app{root: &root{}, err: &b}).progress()
	p.show([]string{"a block"}, "a line")
	p.end()
	if !strings.HasSuffix(b.String(), "  a line\n") || strings.Contains(b.String(), "\x1b") {
		t.Errorf("%q", b.String())
	}
}

func TestCandidates(t *testing.T) {
	k, err := kong.New(&root{}, kong.Name("dayfly"), kong.Vars{"state": "x", "region": "x"})
	if err != nil {
		t.Fatal(err)
	}
	names := func(kind string) []string { return []string{kind + "-1"} }
	for _, c := range []struct{ words, want string }{
		{"com", "completion"},
		{"run appr", "approve"},
		{"runs appr", "approve"},
		{"run show ", "run-1"},
		{"env destroy e", "env-1"},
		{"completion ", "bash fish zsh"},
		{"test --ju", "--junit"},
		{"--output ", "json text"},
		{"run approve r1 go --ov", "--override"},
		{"complete-w", ""},
	} {
		if got := strings.Join(candidates(k.Model.Node, strings.Split(c.words, " "), names), " "); got != c.want {
			t.Errorf("%q: %q, want %q", c.words, got, c.want)
		}
	}
}
