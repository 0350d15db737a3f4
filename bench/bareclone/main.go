// Command bareclone is a peer of the benchmark: the least that it takes to have
// N isolated copies of a root file system on this machine. It clones N
// processes with namespaces of their own (mount, pid, uts, ipc, net), each with
// an overlay over the same layers and a veth pair on one bridge, and runs a
// command in each. It has no image store, no records, no limits, no filters, no
// supervision and no API: nothing that launches instances can be much faster.
// It must not know Dayfly.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
)

const usage = `bareclone --lower DIR:DIR --dir DIR --bridge NAME --first ADDRESS/BITS [--count 45] [--at-once 8] [COMMAND ARG ...]

It prints "up SECONDS" when all copies are there, and ends them when its
standard input ends. Without a command the copies only wait. Each copy finds its
number in $COPY and has the address FIRST+COPY.
`

func main() {
	var err error
	if len(os.Args) == 5 && os.Args[0] == insideName {
		err = inside(os.Args[1], os.Args[2], os.Args[3], os.Args[4])
	} else {
		err = run()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bareclone:", err)
		os.Exit(1)
	}
}

type options struct {
	lower, dir    string
	bridge        int
	first         netip.Prefix
	count, atOnce int
	command       []string
	self          string
}

func parse() (options, error) {
	var o options
	var first, bridge string
	f := flag.NewFlagSet("bareclone", flag.ContinueOnError)
	f.Usage = func() { fmt.Fprint(os.Stderr, usage) }
	f.StringVar(&o.lower, "lower", "", "")
	f.StringVar(&o.dir, "dir", "", "")
	f.StringVar(&bridge, "bridge", "", "")
	f.StringVar(&first, "first", "", "")
	f.IntVar(&o.count, "count", 45, "")
	f.IntVar(&o.atOnce, "at-once", 8, "")
	if err := f.Parse(os.Args[1:]); err != nil {
		return o, err
	}
	o.command = f.Args()
	if o.lower == "" || o.dir == "" || bridge == "" || o.count < 1 || o.count > 200 || o.atOnce < 1 {
		f.Usage()
		return o, errors.New("a flag is missing or not valid")
	}
	var err error
	if o.first, err = netip.ParsePrefix(first); err != nil {
		return o, err
	}
	link, err := netlink.LinkByName(bridge)
	if err != nil {
		return o, fmt.Errorf("bridge %s: %w", bridge, err)
	}
	o.bridge = link.Attrs().Index
	o.self, err = os.Executable()
	return o, err
}

// run makes the copies and ends them.
func run() (err error) {
	began := time.Now()
	o, err := parse()
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	copies := make([]*clone, o.count)
	errs := make([]error, o.count)
	var wg sync.WaitGroup
	slots := make(chan struct{}, o.atOnce)
	for i := range copies {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			copies[i], errs[i] = start(o, i)
		})
	}
	wg.Wait()
	defer func() { err = errors.Join(err, end(copies)) }()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Printf("up %.3f\n", time.Since(began).Seconds())
	done := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(done)
	}()
	ended := make(chan *clone, len(copies))
	for _, c := range copies {
		go func() { <-c.ended; ended <- c }()
	}
	select {
	case <-done:
	case <-stop:
	case c := <-ended:
		text, _ := os.ReadFile(filepath.Join(c.dir, "log"))
		return fmt.Errorf("the copy in %s ended by itself: %s", c.dir, text)
	}
	return nil
}

// clone is one copy.
type clone struct {
	cmd   *exec.Cmd
	dir   string
	ended chan struct{}
}

// start makes one copy and returns when it is about to run its command.
func start(o options, i int) (*clone, error) {
	address := o.first.Addr()
	for range i {
		address = address.Next()
	}
	dir := filepath.Join(o.dir, strconv.Itoa(i))
	c := &clone{dir: dir, ended: make(chan struct{})}
	for _, d := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return c, err
		}
	}
	// The copy says on one pipe when it stands, and is told on the other when
	// its interface is there.
	said, say, err := os.Pipe()
	if err != nil {
		return c, err
	}
	defer said.Close()
	hear, tell, err := os.Pipe()
	if err != nil {
		say.Close()
		return c, err
	}
	log, err := os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		say.Close()
		hear.Close()
		tell.Close()
		return c, err
	}
	c.cmd = &exec.Cmd{
		Path: o.self, Args: []string{insideName, strconv.Itoa(i), dir, o.lower, netip.PrefixFrom(address, o.first.Bits()).String()},
		Env:    append(os.Environ(), "GOMAXPROCS=1", "COPY="+strconv.Itoa(i)),
		Stdout: log, Stderr: log, ExtraFiles: []*os.File{say, hear},
		SysProcAttr: &syscall.SysProcAttr{
			Setsid: true, Pdeathsig: syscall.SIGKILL,
			Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNET,
		},
	}
	err = c.cmd.Start()
	say.Close()
	hear.Close()
	log.Close()
	defer tell.Close()
	if err != nil {
		c.cmd = nil
		return c, err
	}
	go func() { _ = c.cmd.Wait(); close(c.ended) }()
	veth := &netlink.Veth{LinkAttrs: netlink.NewLinkAttrs(), PeerName: "eth0", PeerNamespace: netlink.NsPid(c.cmd.Process.Pid)}
	veth.Name = fmt.Sprintf("bare%d-%d", os.Getpid()%10000, i)
	veth.MasterIndex = o.bridge
	veth.Flags |= 1 // up
	if err := netlink.LinkAdd(veth); err != nil {
		return c, fmt.Errorf("veth %s: %w", veth.Name, err)
	}
	for _, arg := range o.command {
		if _, err := io.WriteString(tell, arg+"\x00"); err != nil {
			return c, err
		}
	}
	tell.Close()
	var b [1]byte
	if _, err := said.Read(b[:]); err != nil {
		text, _ := os.ReadFile(filepath.Join(dir, "log"))
		return c, fmt.Errorf("copy %d ended at once: %s", i, text)
	}
	return c, nil
}

// end kills all copies, with all that runs in them, and removes what they wrote.
func end(copies []*clone) error {
	for _, c := range copies {
		if c != nil && c.cmd != nil {
			_ = c.cmd.Process.Kill() // PID 1: the kernel ends the rest, mounts and veths go with it
		}
	}
	errs := make([]error, len(copies))
	var wg sync.WaitGroup
	for i, c := range copies {
		wg.Go(func() {
			if c == nil {
				return
			}
			if c.cmd != nil {
				<-c.ended
			}
			errs[i] = os.RemoveAll(c.dir)
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
