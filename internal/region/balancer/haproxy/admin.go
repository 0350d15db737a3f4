package haproxy

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

func socketPath(dir string) string { return filepath.Join(dir, "admin.sock") }

// A line of commands must fit the process's buffer with room to spare.
const maxLine = 8 << 10

// admin sends one line and returns what comes back.
func admin(dir, line string) (string, error) {
	c, err := net.DialTimeout("unix", socketPath(dir), 2*time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(c, line+"\n"); err != nil {
		return "", err
	}
	out, err := io.ReadAll(io.LimitReader(c, 64<<20))
	return string(out), err
}

// The words with which the process refuses a command.
var refusals = []string{"No such", "Unknown command", "Invalid", "Permission denied", "require", "expects", "missing", "not found", "can't", "cannot", "error"}

// order sends commands, many in a line, and fails if one was refused.
func order(dir string, commands []string) error {
	for len(commands) > 0 {
		line := commands[0]
		k := 1
		for ; k < len(commands) && len(line)+len(commands[k])+1 < maxLine; k++ {
			line += ";" + commands[k]
		}
		out, err := admin(dir, line)
		if err != nil {
			return fmt.Errorf("admin socket: %w", err)
		}
		for l := range strings.Lines(out) {
			if slices.ContainsFunc(refusals, func(w string) bool { return strings.Contains(l, w) }) {
				return fmt.Errorf("admin socket: %s", strings.TrimSpace(l))
			}
		}
		commands = commands[k:]
	}
	return nil
}

// column is one of those of "show stat" that are read here, out of a hundred.
type column int

const (
	pxname column = iota
	svname
	status
	scur
	checkStatus
	checkCode
	lastChk
	stot
	reqTot
	hrsp2xx
	hrsp3xx
	hrsp4xx
	hrsp5xx
	econ
	rtime
	columns
)

var columnNames = map[string]column{
	"pxname": pxname, "svname": svname, "status": status, "scur": scur, "check_status": checkStatus, "check_code": checkCode, "last_chk": lastChk,
	"stot": stot, "req_tot": reqTot, "hrsp_2xx": hrsp2xx, "hrsp_3xx": hrsp3xx, "hrsp_4xx": hrsp4xx, "hrsp_5xx": hrsp5xx, "econ": econ, "rtime": rtime,
}

// stat is a row of "show stat".
type stat [columns]string

func (s *stat) int(c column) int64 {
	n, _ := strconv.ParseInt(s[c], 10, 64)
	return n
}

// stats reads the rows of servers (kind 4) or backends (kind 2). Servers in
// maintenance, which is what slots are that nobody uses, are left out: there are
// more of them than of others, and each row has a hundred columns.
func stats(dir string, kind int) ([]stat, error) {
	out, err := admin(dir, fmt.Sprintf("show stat -1 %d -1 no-maint", kind))
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	return parseStats(out)
}

func parseStats(out string) ([]stat, error) {
	head, rest, _ := strings.Cut(out, "\n")
	head, ok := strings.CutPrefix(head, "# ")
	if !ok {
		return nil, fmt.Errorf("admin socket: statistics: %.80q", out)
	}
	var at []column // of each column of the answer
	for name := range strings.SplitSeq(head, ",") {
		c, ok := columnNames[name]
		if !ok {
			c = columns
		}
		at = append(at, c)
	}
	var all []stat
	for line := range strings.Lines(rest) {
		line = strings.TrimRight(line, "\n")
		if line == "" {
			continue
		}
		var s stat
		for _, c := range at {
			var field string
			field, line = cutField(line)
			if c < columns {
				s[c] = field
			}
		}
		all = append(all, s)
	}
	return all, nil
}

// cutField takes the first field off a line of CSV.
func cutField(line string) (field, rest string) {
	if !strings.HasPrefix(line, `"`) {
		field, rest, _ = strings.Cut(line, ",")
		return field, rest
	}
	for i := 1; i < len(line); i++ {
		if line[i] != '"' {
			continue
		}
		if i+1 < len(line) && line[i+1] == '"' {
			i++
			continue
		}
		return strings.ReplaceAll(line[1:i], `""`, `"`), strings.TrimPrefix(line[i+1:], ",")
	}
	return line[1:], ""
}

// server is a row of "show servers state".
type server struct {
	up bool
}

// servers reads the state of a backend's servers, by name.
func servers(dir, backend string) (map[string]server, error) {
	out, err := admin(dir, "show servers state "+backend)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	all := map[string]server{}
	name, state := -1, -1 // where these are in a line
	for l := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(l, "# "); ok {
			head := strings.Fields(rest)
			name, state = slices.Index(head, "srv_name"), slices.Index(head, "srv_op_state")
			continue
		}
		if fields := strings.Fields(l); name >= 0 && len(fields) > max(name, state, 9) {
			all[fields[name]] = server{up: fields[state] == "2"}
		}
	}
	if name < 0 || state < 0 {
		return nil, fmt.Errorf("admin socket: %s", strings.TrimSpace(out))
	}
	return all, nil
}

// busy reads how many connections a backend's servers have in use, by name.
func busy(dir, backend string) (map[string]int, error) {
	out, err := admin(dir, "show servers conn "+backend)
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	all := map[string]int{}
	for l := range strings.Lines(out) {
		f := strings.Fields(l)
		if len(f) < 7 || strings.HasPrefix(l, "#") {
			continue
		}
		_, name, ok := strings.Cut(f[0], "/")
		n, err := strconv.Atoi(f[6])
		if ok && err == nil {
			all[name] = n
		}
	}
	return all, nil
}
