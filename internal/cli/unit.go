package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/dayfly-infra/dayfly/internal/control"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

type serverUnitCmd struct {
	databaseFlags
	listenFlags
	User    string `help:"The user that the server runs as; it needs no powers." default:"dayfly"`
	EnvFile string `name:"env-file" help:"File with AWS_REGION, AWS_PROFILE, DAYFLY_DATABASE and the like, mode 0600." default:"/etc/dayfly/server.env" placeholder:"FILE"`
	Binary  string `help:"Where dayfly lies; default this one." placeholder:"FILE"`
}

func (*serverUnitCmd) Help() string {
	return "For example:\n\n  dayfly server unit --listen 127.0.0.1:8080 | sudo tee /etc/systemd/system/dayfly.service\n  sudo systemctl daemon-reload && sudo systemctl enable --now dayfly"
}

func (c *serverUnitCmd) Run(a *app) error {
	address, err := c.address()
	if err != nil {
		return err
	}
	if control.HasPassword(address) {
		return &fault.Error{Kind: fault.Invalid, Op: "write the unit", Object: "--database", Message: "a password must not stand in a unit, which everybody can read", Hint: "put DAYFLY_DATABASE=... into " + c.EnvFile + " with mode 0600"}
	}
	binary := c.Binary
	if binary == "" {
		if binary, err = os.Executable(); err != nil {
			return err
		}
	}
	args := []string{binary, "--state", "%S/dayfly", "server", "run"}
	if address != "" {
		args = append(args, "--database", address)
	}
	args = append(args, c.listenFlags.args()...)
	for i, s := range args {
		if i == 2 {
			continue // systemd's own
		}
		if strings.ContainsAny(s, "\n\"\\") {
			return &fault.Error{Kind: fault.Invalid, Op: "write the unit", Object: s, Message: "quotes, backslashes and line ends cannot be in it"}
		}
		if s = strings.NewReplacer("%", "%%", "$", "$$").Replace(s); strings.ContainsAny(s, " ;'") {
			s = `"` + s + `"`
		}
		args[i] = s
	}
	for _, f := range []string{c.EnvFile, binary} {
		if !filepath.IsAbs(f) {
			return &fault.Error{Kind: fault.Invalid, Op: "write the unit", Object: f, Message: "this must be an absolute path"}
		}
	}
	_, err = fmt.Fprintf(a.out, unit, c.EnvFile, c.User, strings.Join(args, " "))
	return err
}

// unit is hardened: the server makes connections and writes its own folder, and
// needs nothing else. It says itself when it works (Type=notify). It ends by SIGTERM within half a minute; KillMode=mixed
// leaves it the time to end what it began.
const unit = `[Unit]
Description=Dayfly server
Documentation=https://github.com/dayfly-infra/dayfly/tree/main/docs/howto/operate.md
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=notify
TimeoutStartSec=3min
EnvironmentFile=-%s
User=%s
StateDirectory=dayfly
StateDirectoryMode=0700
UMask=0077
ExecStart=%s
Restart=always
RestartSec=1s
KillMode=mixed
TimeoutStopSec=30s
LimitNOFILE=65536
OOMScoreAdjust=-500

AmbientCapabilities=
CapabilityBoundingSet=
NoNewPrivileges=yes
PrivateDevices=yes
PrivateTmp=yes
ProcSubset=pid
ProtectClock=yes
ProtectControlGroups=yes
ProtectHome=read-only
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
`
