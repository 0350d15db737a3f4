package guest

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	keepOutputs = 64      // so many results keep their whole outputs
	trimmedTo   = 4 << 10 // what older ones keep of each
	pipeGrace   = time.Second
)

// commands runs scripts, each id at most once in the life of the instance:
// the marker and the result are files in the shared directory, which outlives
// reboots but is not part of the disk.
type commands struct {
	procs   *processes
	dir     string // results
	scripts string
	env     []string
	now     func() time.Time

	mu      sync.Mutex
	running map[string]*call
	kept    []string // files of results with whole outputs, oldest first
}

type call struct {
	done   chan struct{}
	result Result
}

func newCommands(p *processes, dir, scripts string, env []string, now func() time.Time) (*commands, error) {
	for _, d := range []string{dir, scripts} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	c := &commands{procs: p, dir: dir, scripts: scripts, env: env, now: now, running: map[string]*call{}}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	type aged struct {
		name string
		at   time.Time
	}
	var found []aged
	for _, e := range entries {
		if i, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), ".json") {
			found = append(found, aged{e.Name(), i.ModTime()})
		}
	}
	slices.SortFunc(found, func(a, b aged) int { return cmp.Or(a.at.Compare(b.at), strings.Compare(a.name, b.name)) })
	for _, f := range found {
		c.kept = append(c.kept, f.name)
	}
	return c, nil
}

func fileOf(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:16])
}

// begin starts the command, or attaches to it when its id was seen before.
// The call is done when its result is there; an error means: not begun.
func (c *commands) begin(cmd Command) (*call, error) {
	switch {
	case cmd.ID == "":
		return nil, errors.New("a command needs an id")
	case len(cmd.Script) > ScriptLimit:
		return nil, fmt.Errorf("the script has %d bytes, the limit is %d", len(cmd.Script), ScriptLimit)
	}
	name := fileOf(cmd.ID)
	c.mu.Lock()
	defer c.mu.Unlock()
	if k, ok := c.running[name]; ok {
		return k, nil
	}
	if r, ok, err := c.load(name); err != nil {
		return nil, err
	} else if ok {
		return finished(r), nil
	}
	k := &call{done: make(chan struct{})}
	// The marker comes first: whatever happens now, the id never runs again.
	f, err := os.OpenFile(filepath.Join(c.dir, name+".begun"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return finished(Result{ExitCode: 255, Stderr: []byte("interrupted: the instance or its guest ended while this command ran\n")}), nil
	}
	if err != nil {
		return nil, err
	}
	_ = f.Close()
	c.running[name] = k
	go func() {
		k.result = c.run(name, cmd)
		if err := c.save(name, k.result); err != nil {
			k.result.Stderr = append(k.result.Stderr, fmt.Sprintf("\nthe guest cannot keep this result: %v\n", err)...)
		}
		c.mu.Lock()
		delete(c.running, name)
		c.mu.Unlock()
		close(k.done)
	}()
	return k, nil
}

func finished(r Result) *call {
	k := &call{done: make(chan struct{}), result: r}
	close(k.done)
	return k
}

func (c *commands) load(name string) (Result, bool, error) {
	var r Result
	b, err := os.ReadFile(filepath.Join(c.dir, name+".json"))
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &r)
	}
	return r, err == nil, err
}

func (c *commands) save(name string, r Result) error {
	if err := c.write(name+".json", r); err != nil {
		return err
	}
	_ = os.Remove(filepath.Join(c.dir, name+".begun"))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, name+".json")
	for len(c.kept) > keepOutputs {
		old := c.kept[0]
		c.kept = c.kept[1:]
		if r, ok, err := c.load(strings.TrimSuffix(old, ".json")); err == nil && ok {
			r.Stdout, r.Stderr = last(r.Stdout, trimmedTo), last(r.Stderr, trimmedTo)
			_ = c.write(old, r)
		}
	}
	return nil
}

func (c *commands) write(file string, r Result) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	path := filepath.Join(c.dir, file)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func last(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

func (c *commands) run(name string, cmd Command) Result {
	r := Result{Started: c.now()}
	fail := func(err error) Result {
		r.ExitCode, r.Stderr, r.Ended = 126, append(r.Stderr, err.Error()+"\n"...), c.now()
		return r
	}
	path := filepath.Join(c.scripts, name)
	defer os.Remove(path)
	var out [2]*tail
	var readers sync.WaitGroup
	var ends []*os.File
	files := [3]*os.File{}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fail(err)
	}
	defer null.Close()
	files[0] = null
	for i := range out {
		pr, pw, err := os.Pipe()
		if err != nil {
			return fail(err)
		}
		defer pr.Close()
		defer pw.Close()
		out[i] = &tail{limit: OutputLimit}
		files[i+1] = pw
		ends = append(ends, pr)
	}
	pid, done, err := c.procs.script(path, cmd.Script, c.env, cmd.Dir, files)
	if err != nil {
		return fail(err)
	}
	for i, pr := range ends {
		files[i+1].Close()
		readers.Go(func() { _, _ = io.Copy(out[i], pr) })
	}
	var expired <-chan time.Time
	if cmd.Timeout > 0 {
		t := time.NewTimer(cmd.Timeout)
		defer t.Stop()
		expired = t.C
	}
	var ws syscall.WaitStatus
	select {
	case ws = <-done:
	case <-expired:
		r.TimedOut = true
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		ws = <-done
	}
	// A daemon that the script left behind may hold the pipes for ever.
	for _, pr := range ends {
		_ = pr.SetReadDeadline(time.Now().Add(pipeGrace))
	}
	readers.Wait()
	r.ExitCode, r.Stdout, r.Stderr, r.Ended = code(ws), out[0].bytes(), out[1].bytes(), c.now()
	return r
}

// script writes a script and starts it: by its own first line if that begins
// with "#!", else by /bin/sh.
func (p *processes) script(path string, script []byte, env []string, dir string, files [3]*os.File) (int, <-chan syscall.WaitStatus, error) {
	if err := p.writeScript(path, script); err != nil {
		return 0, nil, err
	}
	argv := []string{path}
	if !bytes.HasPrefix(script, []byte("#!")) {
		argv = []string{"/bin/sh", path}
	}
	if dir == "" {
		dir = "/root"
		if _, err := os.Stat(dir); err != nil {
			dir = "/"
		}
	}
	if i, err := os.Stat(dir); err != nil {
		return 0, nil, err
	} else if !i.IsDir() {
		return 0, nil, fmt.Errorf("%s is not a directory", dir)
	}
	return p.start(argv, env, dir, files)
}
