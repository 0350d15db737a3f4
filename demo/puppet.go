package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
)

const stage = "examples/puppetserver/stage.sh"

// sh runs a script of the examples.
func (d *demo) sh(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	fmt.Print("$")
	for _, a := range args {
		if rel, err := filepath.Rel(d.dir, a); err == nil && filepath.IsLocal(rel) {
			a = filepath.Join("build/demo", rel)
		}
		fmt.Print(" ", a)
	}
	fmt.Println()
	return cmd.Run()
}

// puppetImage bakes the image of the company's Puppet server from masterless
// code; the next demo finds it again.
func (d *demo) puppetImage(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(d.dir, "box/control"), 0o755); err != nil {
		return err
	}
	if err := d.sh(ctx, "examples/puppetserver/control/release.sh", "1.0.0", filepath.Join(d.dir, "box/control")); err != nil {
		return err
	}
	if err := d.sh(ctx, stage, "server", d.address, filepath.Join(d.dir, "puppetserver")); err != nil {
		return err
	}
	var b struct {
		Cached bool
		Image  string
		Checks []struct{ Name string }
	}
	if err := d.cli(ctx, &b, "bake", filepath.Join(d.dir, "puppetserver")); err != nil {
		return err
	}
	if !b.Cached {
		d.result.Launched += 3 // the builder and two canaries
	}
	fmt.Printf("image %s, %d checks passed, from the cache: %v\n", b.Image, len(b.Checks), b.Cached)
	return nil
}

// puppetServer starts it as an instance. It makes its CA now: identity is born
// at boot.
func (d *demo) puppetServer(ctx context.Context) error {
	fmt.Println("a Java program starts and makes a CA: some 40 seconds of processor time")
	var e env
	if err := d.cli(ctx, &e, "deploy", filepath.Join(d.dir, "puppetserver"), "ca"); err != nil {
		return err
	}
	d.result.Launched++
	host := e.Address
	if u, err := url.Parse(e.Address); err == nil && u.Host != "" {
		host = u.Host
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if host == "" {
		return errors.New("the Puppet server has no address")
	}
	d.puppet = host
	fmt.Printf("puppet.corp.example answers at %s:8140\n", d.puppet)
	return nil
}
