package control

import (
	"fmt"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/blocker"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// reserve is the space that new work may not touch: what is under way needs it
// to write down what it does, so that nothing is lost and all can end.
const reserve = 64 << 20

// freeSpace is what is free on the disk of a folder, in bytes.
func freeSpace(dir string) (int64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return int64(s.Bavail) * s.Bsize, nil
}

// low says that the disk of the server's folder is nearly full, nil otherwise.
func (c *Control) low() *blocker.Blocker {
	look := c.cfg.free
	if look == nil {
		look = freeSpace
	}
	free, err := look(c.cfg.Dir)
	if err != nil || free >= reserve {
		c.full.Store(nil)
		return nil // who cannot look does not know, and the database says so when it is full
	}
	b := blocker.Carry(c.full.Load(), blocker.Blocker{
		Rule: "disk-nearly-full", On: "folder/" + c.cfg.Dir, Since: c.clock.Now(), Action: "free space there",
		Message: fmt.Sprintf("%d MiB are free and new work begins with %d: what is under way goes on", free>>20, reserve>>20),
	})
	c.full.Store(b)
	return b
}

// room refuses new work while the disk is nearly full.
func (c *Control) room(op string) error {
	b := c.low()
	if b == nil {
		return nil
	}
	return &fault.Error{Kind: fault.Unavailable, Op: op, Object: filepath.Clean(c.cfg.Dir), Code: store.CodeFull, Message: "the server's disk is nearly full: " + b.Message, Hint: "free space there; nothing is lost"}
}

// whyAll are the reasons that concern everybody: a disk that is full, an account
// that is asked too much. Of the latter the server that owns the work knows.
func (c *Control) whyAll() []server.Reason {
	out := []server.Reason{}
	if b := c.low(); b != nil {
		out = append(out, server.Reason{Object: "server", Phase: "no new work", Sentence: b.Sentence(c.clock.Now())})
	}
	if c.limiter != nil {
		for _, b := range c.limiter.Blockers() {
			out = append(out, server.Reason{Object: "server", Phase: "the cloud limits requests", Sentence: b.Sentence(c.clock.Now())})
		}
	}
	return out
}
