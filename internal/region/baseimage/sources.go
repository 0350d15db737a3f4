package baseimage

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// sources are where packages come from while an image is made.
type sources struct {
	lines   []string // of a sources.list
	options []string // apt's own, such as a proxy
}

// hostSources are this host's mirrors and proxies if it is a Debian of the
// same suite, since those are what its administrator wants used.
func hostSources() sources {
	s := sources{lines: strings.Split(strings.TrimSpace(inside), "\n")}
	release, err := os.ReadFile("/etc/os-release")
	if err != nil || !isSuite(string(release)) {
		return s
	}
	if l := readSources("/etc/apt"); slices.ContainsFunc(l, func(l string) bool { return strings.Contains(l, " "+suite+" main") }) {
		s.lines = l
	}
	if out, err := exec.Command("apt-config", "dump").Output(); err == nil {
		s.options = aptOptions(string(out))
	}
	return s
}

func isSuite(release string) bool {
	id, codename := false, false
	for l := range strings.Lines(release) {
		switch strings.TrimSpace(l) {
		case "ID=debian":
			id = true
		case "VERSION_CODENAME=" + suite:
			codename = true
		}
	}
	return id && codename
}

// readSources returns the main component of the suite and of its updates and
// security suites from sources.list and sources.list.d, in both formats.
func readSources(apt string) []string {
	var lines []string
	add := func(uri, dist string) {
		if !slices.Contains([]string{suite, suite + "-updates", suite + "-security"}, dist) || !strings.Contains(uri, "://") {
			return
		}
		if l := "deb " + uri + " " + dist + " main"; !slices.Contains(lines, l) {
			lines = append(lines, l)
		}
	}
	files := []string{filepath.Join(apt, "sources.list")}
	more, _ := filepath.Glob(filepath.Join(apt, "sources.list.d", "*"))
	for _, f := range append(files, more...) {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		switch filepath.Ext(f) {
		case ".list":
			oneLine(string(b), add)
		case ".sources":
			deb822(string(b), add)
		}
	}
	return lines
}

// oneLine reads "deb [options] URI suite components".
func oneLine(text string, add func(uri, dist string)) {
	for l := range strings.Lines(text) {
		l, _, _ = strings.Cut(l, "#")
		if a, rest, ok := strings.Cut(l, "["); ok {
			if _, b, ok := strings.Cut(rest, "]"); ok {
				l = a + b
			}
		}
		if f := strings.Fields(l); len(f) >= 4 && f[0] == "deb" && slices.Contains(f[3:], "main") {
			add(f[1], f[2])
		}
	}
}

// deb822 reads stanzas of fields.
func deb822(text string, add func(uri, dist string)) {
	fields := map[string]string{}
	last := ""
	flush := func() {
		if slices.Contains(strings.Fields(fields["types"]), "deb") && slices.Contains(strings.Fields(fields["components"]), "main") && strings.TrimSpace(fields["enabled"]) != "no" {
			for uri := range strings.FieldsSeq(fields["uris"]) {
				for dist := range strings.FieldsSeq(fields["suites"]) {
					add(uri, dist)
				}
			}
		}
		clear(fields)
	}
	s := bufio.NewScanner(strings.NewReader(text))
	for s.Scan() {
		l := s.Text()
		switch {
		case strings.HasPrefix(l, "#"):
		case strings.TrimSpace(l) == "":
			flush()
		case l[0] == ' ' || l[0] == '\t':
			fields[last] += " " + l
		default:
			if k, v, ok := strings.Cut(l, ":"); ok {
				last = strings.ToLower(strings.TrimSpace(k))
				fields[last] = v
			}
		}
	}
	flush()
}

// aptOptions picks from "apt-config dump" what it takes to reach the mirrors.
func aptOptions(dump string) []string {
	var list []string
	for l := range strings.Lines(dump) {
		l = strings.TrimSuffix(strings.TrimSpace(l), ";")
		key, value, ok := strings.Cut(l, " ")
		if !ok || value == `""` {
			continue
		}
		for _, p := range []string{"Acquire::http::Proxy", "Acquire::https::Proxy", "Acquire::https::CaInfo", "Acquire::Check-Valid-Until", "Acquire::Check-Date"} {
			if key == p || strings.HasPrefix(key, p+"::") {
				list = append(list, l)
			}
		}
	}
	return list
}
