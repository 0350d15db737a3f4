package haproxy

import (
	"encoding/csv"
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

// stat is a row of "show stat".
type stat map[string]string

func (s stat) int(field string) int64 {
	n, _ := strconv.ParseInt(s[field], 10, 64)
	return n
}

// stats reads the rows of servers (kind 4) or backends (kind 2).
func stats(dir string, kind int) ([]stat, error) {
	out, err := admin(dir, fmt.Sprintf("show stat -1 %d -1", kind))
	if err != nil {
		return nil, fmt.Errorf("admin socket: %w", err)
	}
	r := csv.NewReader(strings.NewReader(strings.TrimPrefix(out, "# ")))
	r.FieldsPerRecord = -1
	rows, err := r.ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, fmt.Errorf("admin socket: statistics: %v", err)
	}
	var all []stat
	for _, row := range rows[1:] {
		s := stat{}
		for i, name := range rows[0] {
			if i < len(row) {
				s[name] = row[i]
			}
		}
		all = append(all, s)
	}
	return all, nil
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
	var columns []string
	for l := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(l, "# "); ok {
			columns = strings.Fields(rest)
			continue
		}
		fields := strings.Fields(l)
		if len(fields) < 10 || len(columns) == 0 {
			continue
		}
		get := func(name string) string {
			if i := slices.Index(columns, name); i >= 0 && i < len(fields) {
				return fields[i]
			}
			return ""
		}
		all[get("srv_name")] = server{up: get("srv_op_state") == "2"}
	}
	if len(columns) == 0 {
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
