package guest

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"
)

// channel answers requests on a unix socket. Only root can connect: the
// socket is 0600 in a directory that is 0700. Raw system calls, because
// package net would cost every instance memory.
type channel struct {
	file  *os.File
	path  string
	cmds  *commands
	conns sync.WaitGroup
}

func listen(path string, cmds *commands) (*channel, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("guest channel: %w", err)
	}
	_ = os.Remove(path)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("guest channel: bind %s: %w", path, err)
	}
	if err := errors.Join(os.Chmod(path, 0o600), syscall.Listen(fd, 64)); err != nil {
		_ = syscall.Close(fd)
		return nil, fmt.Errorf("guest channel: %w", err)
	}
	return &channel{file: os.NewFile(uintptr(fd), path), path: path, cmds: cmds}, nil
}

// serve accepts until close.
func (c *channel) serve() {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return
	}
	for {
		var fd int
		var aerr error
		err := raw.Read(func(l uintptr) bool {
			fd, _, aerr = syscall.Accept4(int(l), syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK)
			return aerr != syscall.EAGAIN
		})
		if err != nil {
			return
		}
		if aerr != nil {
			// Out of descriptors or memory: those come back, a busy loop does not help.
			time.Sleep(50 * time.Millisecond)
			continue
		}
		conn := os.NewFile(uintptr(fd), "guest channel")
		c.conns.Go(func() {
			defer conn.Close()
			c.answer(conn)
		})
	}
}

func (c *channel) close() {
	_ = c.file.Close()
}

func (c *channel) answer(conn *os.File) {
	_ = conn.SetReadDeadline(time.Now().Add(30 * time.Second))
	var q Request
	if err := ReadFrame(conn, &q); err != nil {
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	reply := func(r Response) {
		r.Version = Version
		_ = conn.SetWriteDeadline(time.Now().Add(30 * time.Second))
		_ = WriteFrame(conn, r)
	}
	switch {
	case q.Version < 1 || q.Version > Version:
		reply(Response{Error: fmt.Sprintf("this guest speaks versions 1 to %d, not %d", Version, q.Version)})
	case q.Op == OpReady:
		reply(Response{})
	case q.Op == OpRun && q.Command != nil:
		k, err := c.cmds.begin(*q.Command)
		if err != nil {
			reply(Response{Error: err.Error()})
			return
		}
		reply(Response{Accepted: true})
		// The caller may go away and come back with the same id: the command
		// does not depend on this connection. Waiting for its end too means
		// that abandoned connections do not pile up behind a long command.
		gone := make(chan struct{})
		go func() {
			var b [1]byte
			_, _ = conn.Read(b[:])
			close(gone)
		}()
		select {
		case <-k.done:
			reply(Response{Result: &k.result})
		case <-gone:
		}
	default:
		reply(Response{Error: fmt.Sprintf("this guest does not know %q", q.Op)})
	}
}
