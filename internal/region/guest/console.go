package guest

import (
	"fmt"
	"io"
	"os"
	"sync"
)

// console is the file that the hypervisor shows as the instance's console. It
// is a file, not a pipe, so that it works with nobody at the other end, and
// the guest keeps it below its limit.
type console struct {
	mu    sync.Mutex
	f     *os.File
	limit int64
}

func openConsole(path string, limit int64) (*console, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	return &console{f: f, limit: limit}, nil
}

// Write appends p; over the limit, the older half goes first.
func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if i, err := c.f.Stat(); err == nil && i.Size()+int64(len(p)) > c.limit {
		c.shrink(i.Size())
	}
	return c.f.Write(p)
}

func (c *console) shrink(size int64) {
	keep := make([]byte, min(size, c.limit/2))
	n, _ := c.f.ReadAt(keep, size-int64(len(keep)))
	if c.f.Truncate(0) == nil {
		_, _ = c.f.Write(keep[:n])
	}
}

func (c *console) printf(format string, args ...any) {
	fmt.Fprintf(c, "dayfly-guest: "+format+"\n", args...)
}

// pipe returns a file for children to write to; what they write is copied to
// the console until the last of them has closed it, and then copied is closed.
func (c *console) pipe() (w *os.File, copied <-chan struct{}, err error) {
	pr, pw, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer pr.Close()
		_, _ = io.CopyBuffer(struct{ io.Writer }{c}, struct{ io.Reader }{pr}, make([]byte, 4<<10))
	}()
	return pw, done, nil
}
