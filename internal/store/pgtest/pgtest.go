// Package pgtest runs a real PostgreSQL for tests: Debian's, in a temporary
// folder, on a unix socket, as an unprivileged user, until the test ends or its
// process dies.
package pgtest

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// Server is a running PostgreSQL.
type Server struct {
	Dir   string // of data and socket
	bin   string
	cred  *syscall.Credential
	cmd   *exec.Cmd
	stdin io.Closer
	n     int
}

// Bin is the folder of PostgreSQL's programs, "" where it is not installed.
func Bin() string {
	all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if len(all) == 0 {
		return ""
	}
	return filepath.Dir(all[len(all)-1])
}

// New starts a server that ends with t, and skips where there is none.
func New(t testing.TB) *Server {
	t.Helper()
	s, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	if s == nil {
		t.Skip("PostgreSQL is not installed: scripts/deps.sh test")
	}
	t.Cleanup(s.Remove)
	return s
}

// Start starts a server; it is nil where PostgreSQL is not installed.
func Start() (*Server, error) {
	s := &Server{bin: Bin()}
	if s.bin == "" {
		return nil, nil
	}
	dir, err := os.MkdirTemp("/tmp", "dayfly-pg-")
	if err != nil {
		return nil, err
	}
	s.Dir = dir
	if os.Geteuid() == 0 { // PostgreSQL refuses root
		u, err := user.Lookup("postgres")
		if err != nil {
			return nil, err
		}
		uid, _ := strconv.ParseUint(u.Uid, 10, 32)
		gid, _ := strconv.ParseUint(u.Gid, 10, 32)
		s.cred = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, int(uid), int(gid)); err != nil {
			return nil, err
		}
	}
	if out, err := s.run("initdb", "-D", filepath.Join(dir, "data"), "-U", "dayfly", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"); err != nil {
		os.RemoveAll(dir)
		return nil, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	if err := s.Up(); err != nil {
		s.Remove()
		return nil, err
	}
	return s, nil
}

func (s *Server) run(program string, args ...string) ([]byte, error) {
	c := exec.Command(filepath.Join(s.bin, program), args...)
	c.Dir = s.Dir
	c.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred}
	return c.CombinedOutput()
}

// Up starts the server's process and waits until it answers. It ends when its
// standard input does, so also when this process is killed.
func (s *Server) Up() error {
	log, err := os.OpenFile(filepath.Join(s.Dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	s.cmd = exec.Command("/bin/sh", "-c", `"$@" </dev/null & p=$!; cat >/dev/null; kill -QUIT $p; wait $p`, "sh",
		filepath.Join(s.bin, "postgres"), "-D", filepath.Join(s.Dir, "data"), "-k", s.Dir, "-c", "listen_addresses=", "-c", "fsync=off", "-c", "max_connections=90", "-c", "shared_buffers=32MB")
	s.cmd.Stdout, s.cmd.Stderr, s.cmd.Dir = log, log, s.Dir
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.cred, Setpgid: true}
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for until := time.Now().Add(30 * time.Second); ; {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		c, err := pgx.Connect(ctx, s.url("postgres"))
		if err == nil {
			c.Close(ctx)
			cancel()
			return nil
		}
		cancel()
		if time.Now().After(until) {
			raw, _ := os.ReadFile(filepath.Join(s.Dir, "log"))
			return fmt.Errorf("PostgreSQL does not answer: %w\n%s", err, raw)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// Down ends the server at once, as a crash does; its data stay.
func (s *Server) Down() {
	if s.cmd == nil {
		return
	}
	s.stdin.Close()
	s.cmd.Wait() // killed: its error says so
	s.cmd = nil
}

// Remove ends the server and removes its data.
func (s *Server) Remove() {
	s.Down()
	os.RemoveAll(s.Dir)
}

func (s *Server) url(database string) string {
	return "postgres:///" + database + "?" + url.Values{"host": {s.Dir}, "user": {"dayfly"}}.Encode()
}

// Exec runs statements in a database.
func (s *Server) Exec(t testing.TB, database, statements string) {
	t.Helper()
	ctx := context.Background()
	c, err := pgx.Connect(ctx, database)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(ctx)
	if _, err := c.Exec(ctx, statements, pgx.QueryExecModeSimpleProtocol); err != nil {
		t.Fatal(err)
	}
}

// Database makes an empty database and returns its connection string.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	s.n++
	name := "test" + strconv.Itoa(s.n)
	s.Exec(t, s.url("postgres"), "CREATE DATABASE "+name+" TEMPLATE template0")
	return s.url(name)
}

// Dump is all that a database holds, as text: to see that it was not touched.
func (s *Server) Dump(t testing.TB, database string) string {
	t.Helper()
	out, err := s.run("pg_dump", "--inserts", "--no-owner", "--no-privileges", database)
	if err != nil {
		t.Fatalf("pg_dump: %v\n%s", err, out)
	}
	var keep []string
	for _, l := range strings.Split(string(out), "\n") {
		if !strings.HasPrefix(l, `\restrict`) && !strings.HasPrefix(l, `\unrestrict`) { // random each time
			keep = append(keep, l)
		}
	}
	return strings.Join(keep, "\n")
}
