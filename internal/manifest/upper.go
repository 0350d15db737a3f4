package manifest

import (
	"bufio"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Upper finds the folder that has all that this machine wrote to its root file
// system, and nothing else: on overlayfs that is the upper folder, where whoever
// runs the machine shows it inside. On other file systems, such as AWS's, there
// is none, and everything has to be looked at. proof is a file that this machine
// wrote: it must be in there as it is.
//
// It is "" as well where a mount lies over protected files, since the upper folder
// knows nothing of those, and where the overlay may have folders in it that
// were renamed with what is below them left in the image.
func Upper(proof string) string {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	defer f.Close()
	var all []mount
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if m, ok := parseMount(lines.Text()); ok {
			all = append(all, m)
		}
	}
	for _, dir := range uppers(all) {
		if same(proof, filepath.Join(dir, proof)) {
			return dir
		}
	}
	return ""
}

// mount is a line of mountinfo, see proc(5).
type mount struct {
	root    string // of the mount in its file system
	at      string
	kind    string
	options []string // of the file system
}

func parseMount(line string) (m mount, ok bool) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 6 || len(r) < 3 {
		return m, false
	}
	return mount{root: unescape.Replace(l[3]), at: unescape.Replace(l[4]), kind: r[0], options: strings.Split(r[2], ",")}, true
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// uppers are the folders that may be the root's upper one.
func uppers(all []mount) []string {
	upper := ""
	for _, m := range all {
		switch {
		case m.at == "/": // the last one is what is seen
			upper = ""
			if m.kind != "overlay" || slices.Contains(m.options, "redirect_dir=on") {
				continue
			}
			for _, o := range m.options {
				if dir, ok := strings.CutPrefix(o, "upperdir="); ok {
					upper = filepath.Clean(unescape.Replace(dir))
				}
			}
		case slices.ContainsFunc(Protected, func(p string) bool { return m.at == p || strings.HasPrefix(m.at, p+"/") }) && !own(m.at):
			return nil
		}
	}
	if upper == "" {
		return nil
	}
	var out []string
	for _, m := range all {
		// The same path, or what of it is below the mount of its file system.
		if m.at != "/" && m.root != "/" && m.kind != "overlay" && strings.HasSuffix(upper, m.root) {
			out = append(out, m.at)
		}
	}
	return out
}

// same tells whether two paths are the same file, through the overlay and below
// it, where a file that was made there keeps its inode's number and times.
func same(a, b string) bool {
	var x, y unix.Stat_t
	if unix.Lstat(a, &x) != nil || unix.Lstat(b, &y) != nil {
		return false
	}
	return x.Mode == y.Mode && x.Mode&unix.S_IFMT == unix.S_IFREG && x.Ino == y.Ino && x.Size == y.Size && x.Mtim == y.Mtim && x.Ctim == y.Ctim
}
