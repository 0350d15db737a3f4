package cli

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
)

// live is a block of lines at the end of a terminal that is drawn again and
// again; other lines go above it.
type live struct {
	w     io.Writer
	size  func() (width, height int)
	lines []string // as they were drawn
}

// terminal gives a live block for a writer that is a terminal, nil for others.
func terminal(w io.Writer) *live {
	f, ok := w.(*os.File)
	if !ok || os.Getenv("TERM") == "dumb" {
		return nil
	}
	size := func() (int, int) {
		ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
		if err != nil || ws.Col == 0 || ws.Row == 0 {
			return 80, 24
		}
		return int(ws.Col), int(ws.Row)
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS); err != nil {
		return nil
	}
	return &live{w: w, size: size}
}

// wipe is what takes the block away: up to its first line, and clear from there.
func (l *live) wipe() string {
	if len(l.lines) == 0 {
		return ""
	}
	return fmt.Sprintf("\x1b[%dF\x1b[J", len(l.lines))
}

// draw puts other lines into the block. What does not fit is cut, so that the
// way back up is known.
func (l *live) draw(lines []string) {
	width, height := l.size()
	out := l.wipe()
	if most := max(height-1, 1); len(lines) > most {
		lines = append(append([]string{}, lines[:most-1]...), fmt.Sprintf("… and %d more", len(lines)-most+1))
	}
	l.lines = l.lines[:0]
	for _, s := range lines {
		s = clip(s, width-1)
		l.lines = append(l.lines, s)
		out += s + "\n"
	}
	io.WriteString(l.w, out)
}

// say prints a line that stays, above the block.
func (l *live) say(line string) {
	kept := append([]string{}, l.lines...)
	io.WriteString(l.w, l.wipe()+line+"\n")
	l.lines = l.lines[:0]
	l.draw(kept)
}

// clear takes the block away for good.
func (l *live) clear() {
	io.WriteString(l.w, l.wipe())
	l.lines = nil
}

// clip cuts to so many characters, and takes out what could move the cursor.
func clip(s string, width int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width-1, 0)]) + "…"
}

// bar is a share of so many characters.
func bar(done, all, width int) string {
	n := 0
	if all > 0 {
		n = done * width / all
	}
	return strings.Repeat("█", n) + strings.Repeat("░", width-n)
}

// grid shows instances as characters: healthy, launched, to come.
func grid(healthy, launched, size int) string {
	if size > 400 {
		return bar(healthy, size, 40)
	}
	launched = min(max(launched, healthy), size)
	return strings.Repeat("●", healthy) + strings.Repeat("◐", launched-healthy) + strings.Repeat("○", max(size-launched, 0))
}

// runBlock is a run as it goes.
func runBlock(r pipeline.Run, now time.Time) []string {
	out := []string{fmt.Sprintf("%s  %s", r.Name, now.Sub(r.Created).Round(time.Second))}
	for _, s := range r.Stages {
		state := string(s.Result)
		if state == "" {
			state = string(s.Phase)
		}
		done, all := 0, 0
		for _, u := range r.Suites {
			if u.Stage == s.Name {
				all++
				if u.Result != "" {
					done++
				}
			}
		}
		switch {
		case all > 0:
			out = append(out, fmt.Sprintf("  %-16s %s %d/%d %s", s.Name, bar(done, all, 20), done, all, state))
		case s.Gate != nil:
			out = append(out, fmt.Sprintf("  %-16s gate: %s", s.Name, state))
		case s.Deploy != nil:
			out = append(out, fmt.Sprintf("  %-16s deploy of %s: %s", s.Name, s.Deploy.Purpose, state))
		}
		if s.Phase != pipeline.Running {
			continue
		}
		for _, u := range r.Suites {
			if u.Stage == s.Name && u.Result == "" {
				out = append(out, fmt.Sprintf("    %-20s %-9s %s", u.Name, u.Phase, u.Waits))
			}
		}
	}
	if r.Blocker != nil {
		out = append(out, "  waits: "+r.Blocker.Message)
		if r.Blocker.Action != "" {
			out = append(out, "  do:    "+r.Blocker.Action)
		}
	}
	return out
}

// deployBlock is a deploy as it goes; g is its generation, where there is one.
func deployBlock(e environment.Environment, g *environment.Generation, now time.Time) []string {
	out := []string{e.Name + "  " + string(e.Phase)}
	if g != nil {
		out[0] += "  " + now.Sub(g.Created).Round(time.Second).String()
		out = append(out,
			fmt.Sprintf("  generation %d  %s %d/%d healthy", g.Number, bar(g.Healthy, g.Size, 20), g.Healthy, g.Size),
			"  "+grid(g.Healthy, g.Launched-g.Lost, g.Size))
	}
	if e.Blocker != nil {
		out = append(out, "  waits: "+e.Blocker.Message)
	}
	return out
}

// bakeBlock is a bake as it goes.
func bakeBlock(b bake.Bake) []string {
	steps := []bake.Step{bake.Inputs, bake.Builder, bake.Online, bake.Fetch, bake.Install, bake.Converge, bake.Seal, bake.Stop, bake.Snapshot, bake.Launch, bake.Verify}
	n := slices.Index(steps, b.Step)
	if n < 0 {
		n = len(steps)
	}
	return []string{fmt.Sprintf("bake %s", b.Name), fmt.Sprintf("  %s %d/%d %s", bar(n, len(steps), 22), n, len(steps), b.Step), "  " + b.Sentence}
}
