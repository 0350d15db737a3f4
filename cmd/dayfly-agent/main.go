// Command dayfly-agent is the agent inside an instance.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/dayfly-infra/dayfly/internal/agent"
)

const usage = `dayfly-agent is what Dayfly installs in an image.

  dayfly-agent run                       at boot: details, hand-off, service, launch hook
  dayfly-agent suite --files S3 --run COMMAND --results S3 [--timeout 30m] [--credential NAME=PARAMETER]
  dayfly-agent fetch s3://BUCKET/KEY FILE
  dayfly-agent put FILE s3://BUCKET/KEY
  dayfly-agent manifest                  at sealing: write the list of protected files
  dayfly-agent changes [TIME]            what of them is not as it was, as JSON; files that nobody changed
                                         after TIME (2026-01-02T15:04:05Z) are not read
  dayfly-agent version
`

func main() { os.Exit(do(os.Args[1:])) }

func do(args []string) int {
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	// There is one on every instance: small comes before fast.
	runtime.GOMAXPROCS(1)
	debug.SetGCPercent(25)
	debug.SetMemoryLimit(12 << 20)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	a := agent.New()
	var err error
	switch verb, rest := args[0], args[1:]; {
	case verb == "run" && len(rest) == 0:
		a.SetHostname = func(n string) error { return syscall.Sethostname([]byte(n)) }
		a.Again = again
		err = a.Run(ctx)
	case verb == "suite":
		var passed bool
		passed, err = suite(ctx, a, rest)
		if err == nil && !passed {
			return 1
		}
	case verb == "fetch" && len(rest) == 2:
		err = a.Fetch(ctx, rest[0], rest[1])
	case verb == "put" && len(rest) == 2:
		err = a.Put(ctx, rest[0], rest[1])
	case verb == "manifest" && len(rest) == 0:
		err = a.Manifest()
	case verb == "changes" && len(rest) <= 1:
		var since time.Time
		if len(rest) == 1 {
			since, err = time.Parse(time.RFC3339Nano, rest[0])
		}
		if err == nil {
			err = a.Compare(os.Stdout, since)
		}
	case verb == "version":
		var v string
		if v, err = version(); err == nil {
			fmt.Println(v)
		}
	default:
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	if errors.Is(err, flag.ErrHelp) {
		return 2
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "dayfly-agent %s: %v\n", args[0], err)
		return 1
	}
	return 0
}

// version is the digest of this program: nothing is stamped in, since the agent
// is an input of every image and an unrelated commit must not change it.
func version() (string, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

func suite(ctx context.Context, a *agent.Agent, args []string) (bool, error) {
	var s agent.Suite
	f := flag.NewFlagSet("suite", flag.ContinueOnError)
	f.StringVar(&s.Files, "files", "", "s3://BUCKET/KEY of the packed blueprint")
	f.StringVar(&s.Run, "run", "", "command in it")
	f.StringVar(&s.Results, "results", "", "s3://BUCKET/PREFIX for the results")
	f.DurationVar(&s.Timeout, "timeout", 30*time.Minute, "how long it may take")
	f.Func("credential", "NAME=PARAMETER: a file with an SSM parameter's value, named by the variable NAME", func(v string) error {
		s.Credentials = append(s.Credentials, v)
		return nil
	})
	if err := f.Parse(args); err != nil {
		return false, flag.ErrHelp
	}
	if s.Files == "" || s.Run == "" || s.Results == "" || s.Timeout <= 0 || f.NArg() > 0 {
		f.Usage()
		return false, flag.ErrHelp
	}
	return a.RunSuite(ctx, s)
}

// again puts a fresh image of this program in the process's place: the same
// number, the same children, none of the memory.
func again() error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, os.Args, os.Environ())
}
