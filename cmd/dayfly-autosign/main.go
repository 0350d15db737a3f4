// Command dayfly-autosign is the policy executable of a Puppet CA: Puppet's
// server calls it with a certname as its only argument and the certificate
// request on standard input, and signs when it ends with exit code 0.
//
// Whatever is the only argument is a certname, whoever sent it: so there are no
// options and no commands of one word. An operator's commands have two words:
//
//	dayfly-autosign admin check [--files]
//	dayfly-autosign admin clean
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/syslog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/dayfly-infra/dayfly/internal/autosign"
)

var version = "dev"

const usage = `dayfly-autosign signs certificates for Dayfly's machines on a Puppet CA.

  autosign = /usr/local/sbin/dayfly-autosign    in puppet.conf, section [server]

For people, as the Puppet server's user or root:
  dayfly-autosign admin check           can the server use it, can the cloud be asked?
  dayfly-autosign admin check --files   only what needs neither server nor cloud
  dayfly-autosign admin clean           clean the certificates of machines that are gone, and requests
                                        that were refused more than an hour ago
  dayfly-autosign admin clean --dry-run say what that would be
  dayfly-autosign admin version
Settings: ` + autosign.ConfigFile + `; docs/howto/puppet.md says more.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	switch args := os.Args[1:]; {
	case len(args) == 1:
		if err := decide(ctx, args[0]); err != nil {
			say(fmt.Sprintf("refused %.100q: %v", args[0], err))
			os.Exit(1)
		}
		say("granted " + args[0])
	case len(args) >= 2 && args[0] == "admin":
		if err := admin(ctx, args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "dayfly-autosign:", err)
			os.Exit(1)
		}
	default:
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
}

// say tells operators: Puppet's server logs standard error, syslog keeps it too.
func say(s string) {
	fmt.Fprintln(os.Stderr, "dayfly-autosign:", s)
	if w, err := syslog.New(syslog.LOG_AUTHPRIV|syslog.LOG_NOTICE, "dayfly-autosign"); err == nil {
		_ = w.Notice(s)
		_ = w.Close()
	}
}

func decide(ctx context.Context, certname string) error {
	csr, err := io.ReadAll(io.LimitReader(os.Stdin, autosign.MaxRequest+1))
	if err != nil {
		return err
	}
	// Most refusals need nobody else.
	if _, err := autosign.Parse(certname, csr); err != nil {
		return err
	}
	c, err := autosign.ReadConfig(autosign.ConfigFile)
	if err != nil {
		return err
	}
	cloud, err := autosign.NewEC2(ctx, &c)
	if err != nil {
		return err
	}
	j := autosign.Judge{Owner: c.Owner, CADir: c.CADir, Ledger: autosign.Ledger(c.State), Cloud: cloud, Now: time.Now, Pause: 3 * time.Second}
	return j.Decide(ctx, certname, csr)
}

func admin(ctx context.Context, args []string) error {
	c, err := autosign.ReadConfig(autosign.ConfigFile)
	if err != nil {
		return err
	}
	switch strings.Join(args, " ") {
	case "version":
		fmt.Println(version)
		return nil
	case "check", "check --files":
		return check(ctx, c, len(args) == 2)
	case "clean", "clean --dry-run":
		cloud, err := autosign.NewEC2(ctx, &c)
		if err != nil {
			return err
		}
		client, err := c.Client()
		if err != nil {
			return err
		}
		cleaner := autosign.Cleaner{Ledger: autosign.Ledger(c.State), Cloud: cloud, CA: c.CA, CADir: c.CADir, PuppetDB: c.PuppetDB, Client: client, Now: time.Now}
		if len(args) == 2 {
			certificates, requests, err := cleaner.Plan(ctx)
			for _, n := range certificates {
				fmt.Println("certificate " + n + ": its machine is gone")
			}
			for _, n := range requests {
				fmt.Println("request " + n + ": it was refused more than an hour ago")
			}
			return err
		}
		names, err := cleaner.Clean(ctx)
		for _, n := range names {
			say("cleaned " + n)
		}
		requests, err2 := cleaner.Requests(ctx)
		for _, n := range requests {
			say("removed the request of " + n)
		}
		return errors.Join(err, err2)
	}
	fmt.Fprint(os.Stderr, usage)
	return fmt.Errorf("there is no command %q", strings.Join(args, " "))
}

// check finds what would make the CA refuse everything, or sign by other rules.
func check(ctx context.Context, c autosign.Config, filesOnly bool) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	if err := autosign.Executable(self, "puppet"); err != nil {
		return err
	}
	if err := autosign.Writable(c.State, "puppet"); err != nil {
		return err
	}
	if filesOnly {
		fmt.Println("dayfly-autosign: the Puppet server's user can execute it and write its ledger")
		return nil
	}
	if c.CADir == "" {
		return fmt.Errorf("the CA's folder is not found: set ca_dir in %s", autosign.ConfigFile)
	}
	cloud, err := autosign.NewEC2(ctx, &c)
	if err != nil {
		return err
	}
	if c.Owner == "" {
		return fmt.Errorf("it is not known whose machines may have certificates: set owner in %s", autosign.ConfigFile)
	}
	if _, err := cloud.Machines(ctx, []string{"i-00000000000000000"}); err != nil {
		return fmt.Errorf("the cloud does not answer: %w", err)
	}
	fmt.Printf("dayfly-autosign: signs for machines of %s; CA in %s\n", c.Owner, c.CADir)
	return nil
}
