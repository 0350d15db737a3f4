package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// bare is the peer that does no more than it must: see bareclone.
type bare struct {
	s       *session
	program string
	bridge  string
	gateway netip.Prefix
	dir     string
}

// bareLimit is how long the bare clones alone may take, in seconds: 0.3 to 0.7
// were measured on two cores. A slower peer would flatter us, so nothing is
// reported then.
const bareLimit = 1.5

func newBare(ctx context.Context, s *session) (*bare, error) {
	b := &bare{s: s, program: filepath.Join(s.dir, "bareclone"), dir: filepath.Join(s.dir, "bare")}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", b.program, "./bench/bareclone")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build bareclone: %w: %s", err, out)
	}
	var err error
	b.bridge, b.gateway, err = s.addBridge(ctx, "bare")
	return b, err
}

// first is the address of the first copy.
func (b *bare) first() netip.Prefix {
	a := b.gateway.Addr().As4()
	a[3] = 10
	return netip.PrefixFrom(netip.AddrFrom4(a), b.gateway.Bits())
}

// launch runs n copies, with argv in each or with nothing, returns when they
// are there and, with argv, have answered; then it ends them.
func (b *bare) launch(ctx context.Context, n int, lowers, env, argv []string) (up, down time.Duration, err error) {
	if err := os.MkdirAll(b.dir, 0o700); err != nil {
		return 0, 0, err
	}
	// The copies of the run before had these addresses and other hardware ones:
	// this host must not believe in them for seconds.
	if _, err := run(ctx, "ip", "neigh", "flush", "dev", b.bridge); err != nil {
		return 0, 0, err
	}
	args := []string{"--lower", strings.Join(lowers, ":"), "--dir", b.dir, "--bridge", b.bridge, "--first", b.first().String(), "--count", fmt.Sprint(n)}
	cmd := command(context.Background(), b.program, append(append(args, "--"), argv...)...)
	cmd.Env = env
	var said strings.Builder
	cmd.Stderr = &said
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	lines := bufio.NewReader(out)
	line, err := lines.ReadString('\n')
	if err == nil && len(argv) > 0 {
		var addresses []string
		a := b.first().Addr()
		for range n {
			addresses = append(addresses, "http://"+a.String()+":8080")
			a = a.Next()
		}
		// It ends by itself when a copy does.
		alive, ended := context.WithCancel(ctx)
		go func() { _, _ = lines.ReadString('\n'); ended() }()
		err = answered(alive, addresses)
		ended()
	}
	up = time.Since(began)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("bareclone said %q", line)
	}
	began = time.Now()
	_ = in.Close()
	if e := cmd.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("bareclone: %w: %s", e, said.String()))
	}
	return up, time.Since(began), err
}
