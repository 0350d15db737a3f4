// Command dayfly is the platform's command line, its server, and the local
// region, in one binary.
package main

import (
	"os"

	"github.com/dayfly-infra/dayfly/internal/cli"
)

// version is set by the build.
var version = "dev"

func main() { os.Exit(cli.Main(version, os.Args[1:])) }
