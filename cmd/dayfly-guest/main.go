// Dayfly-guest is what the region mounts into each instance: PID 1 of images
// without an init ("boot guest"), or what prepares systemd and runs as a unit
// beside it ("boot systemd", then "serve" and "user-data"). See package guest.
// On the host, "launch" is the process that becomes PID 1: see package inside.
package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/region/guest"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/launch/inside"
)

func main() {
	run := map[string]func() error{
		"boot guest":   guest.Init,
		"boot systemd": guest.BootSystemd,
		"serve":        guest.Serve,
		"user-data":    guest.UserData,
		"launch":       inside.Main,
	}[strings.Join(os.Args[1:], " ")]
	if run == nil {
		fmt.Fprintln(os.Stderr, "usage: dayfly-guest boot guest | boot systemd | serve | user-data\nIt is started by the region inside an instance.")
		os.Exit(2)
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "dayfly-guest:", err)
		os.Exit(1)
	}
}
