// Command dayfly-probe looks at a fresh instance of an image, from inside: goss
// checks, secrets that are on the disk, what is installed. A bake sends it to
// its canaries; it is never part of an image.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/dayfly-infra/dayfly/internal/goss"
	"github.com/dayfly-infra/dayfly/internal/inventory"
	"github.com/dayfly-infra/dayfly/internal/inventory/debian"
	"github.com/dayfly-infra/dayfly/internal/inventory/sbom"
	"github.com/dayfly-infra/dayfly/internal/secrets"
)

const usage = `dayfly-probe looks at a machine from inside.

  dayfly-probe goss FILE                           run a goss file; exit code 1 when a check fails
  dayfly-probe secrets [--root /] [--allow PATH]…  exit code 1 when a secret is on the disk
  dayfly-probe inventory [--root /]                packages, and files that are of none, as JSON
  dayfly-probe sbom FILE NAME                      the CycloneDX document of an inventory
`

func main() { os.Exit(do(os.Args[1:])) }

type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(s string) error { *l = append(*l, s); return nil }

func do(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	ok, err := true, error(nil)
	switch verb, rest := args[0], args[1:]; {
	case verb == "goss" && len(rest) == 1:
		ok, err = goss.Run(rest[0], os.Stdout)
	case verb == "secrets":
		ok, err = scan(ctx, rest)
	case verb == "inventory":
		f := flag.NewFlagSet("inventory", flag.ContinueOnError)
		root := f.String("root", "/", "the file system")
		if f.Parse(rest) != nil || f.NArg() > 0 {
			return 2
		}
		var v inventory.Inventory
		if v, err = debian.Read(ctx, *root); err == nil {
			err = json.NewEncoder(os.Stdout).Encode(v)
		}
	case verb == "sbom" && len(rest) == 2:
		err = document(rest[0], rest[1])
	default:
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	if errors.Is(err, flag.ErrHelp) {
		return 2
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "dayfly-probe %s: %v\n", args[0], err)
		return 1
	}
	if !ok {
		return 1
	}
	return 0
}

func scan(ctx context.Context, args []string) (bool, error) {
	c := secrets.Config{Own: []string{"/etc/ssh/ssh_host_*"}}
	f := flag.NewFlagSet("secrets", flag.ContinueOnError)
	f.StringVar(&c.Root, "root", "/", "the file system")
	f.Var((*list)(&c.Allow), "allow", "a path that may hold what looks like a secret")
	if err := f.Parse(args); err != nil || f.NArg() > 0 {
		return false, flag.ErrHelp
	}
	r, err := secrets.Scan(ctx, c)
	if err != nil {
		return false, err
	}
	for _, x := range r.Findings {
		fmt.Println(x)
	}
	if r.More {
		fmt.Println("... and more")
	}
	if len(r.Findings) > 0 {
		fmt.Println("a key, token, password or login is on the disk: it would be in every instance; what is meant to be there is named in image.secrets_allow")
	} else {
		fmt.Printf("no secret in %d files\n", r.Files)
	}
	return len(r.Findings) == 0, nil
}

func document(file, name string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var v inventory.Inventory
	if err := json.Unmarshal(raw, &v); err != nil {
		return err
	}
	return sbom.Write(os.Stdout, v, name)
}
