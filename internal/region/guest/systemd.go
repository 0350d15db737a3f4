package guest

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// Units that systemd finds in /run: they exist for this boot only and are
// never part of the image. The guest is not stopped before the shutdown's last
// step: until then it shows the console and answers.
const (
	guestUnit = `[Unit]
Description=Guest of the region (commands)
Documentation=man:systemd.special(7)
DefaultDependencies=no
IgnoreOnIsolate=yes

[Service]
ExecStart=` + Binary + ` serve
Restart=always
RestartSec=100ms
KillMode=process
TasksMax=infinity
StandardOutput=append:` + HostDir + "/" + ConsoleName + `
StandardError=append:` + HostDir + "/" + ConsoleName + `
`
	userDataUnit = `[Unit]
Description=User data of this instance, at its first boot
After=dayfly-guest.service basic.target network.target dbus.service
Wants=dayfly-guest.service

[Service]
Type=oneshot
ExecStart=` + Binary + ` user-data
RemainAfterExit=yes
KillMode=process
TimeoutStartSec=infinity
TasksMax=infinity
StandardOutput=append:` + HostDir + "/" + ConsoleName + `
StandardError=append:` + HostDir + "/" + ConsoleName + `
`
)

// BootSystemd prepares /run for the image's systemd and becomes it.
func BootSystemd() error {
	boot, err := readBoot(filepath.Join(HostDir, BootName))
	if err != nil {
		return err
	}
	if err := writeUnits("/run/systemd", boot); err != nil {
		return err
	}
	env := append(Environ(boot.Env), "container=oci")
	var last error
	for _, init := range []string{"/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"} {
		last = syscall.Exec(init, []string{init, "--show-status=true"}, env)
		if !errors.Is(last, syscall.ENOENT) {
			break
		}
	}
	return fmt.Errorf("the image says that it boots with systemd, but its init cannot run: %w", last)
}

func writeUnits(root string, boot Boot) error {
	files := map[string]string{
		"system/dayfly-guest.service":     guestUnit,
		"system.conf.d/50-dayfly.conf":    defaultEnvironment(boot.Env),
		"system/dayfly-user-data.service": userDataUnit,
	}
	links := map[string]string{
		"system/sysinit.target.wants/dayfly-guest.service": "../dayfly-guest.service",
		"system/console-getty.service":                     "/dev/null", // nobody can type there
	}
	if strings.HasPrefix(string(boot.UserData), "#!") {
		links["system/multi-user.target.wants/dayfly-user-data.service"] = "../dayfly-user-data.service"
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		// 0600: the environment and what it holds are root's.
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			return err
		}
	}
	for name, to := range links {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.Symlink(to, path); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

// defaultEnvironment is a drop-in for system.conf with env quoted as systemd
// reads it.
func defaultEnvironment(env map[string]string) string {
	keys := make([]string, 0, len(env))
	for k := range env {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	var b strings.Builder
	b.WriteString("[Manager]\n")
	for _, k := range keys {
		b.WriteString(`DefaultEnvironment="`)
		for _, c := range []byte(k + "=" + env[k]) {
			switch {
			case c == '"' || c == '\\':
				b.WriteByte('\\')
				b.WriteByte(c)
			case c == '%':
				b.WriteString("%%")
			case c < ' ' || c == 0x7f:
				fmt.Fprintf(&b, `\x%02x`, c)
			default:
				b.WriteByte(c)
			}
		}
		b.WriteString("\"\n")
	}
	return b.String()
}

// Serve is the guest as a unit under systemd: the channel, nothing else.
func Serve() error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	s, err := newSystem(HostDir, scripts, "", "")
	if err != nil {
		return err
	}
	s.showConsole()
	<-stop
	hideConsole()
	s.channel.close()
	return nil
}

// UserData runs the user data and ends with it.
func UserData() error {
	s := &system{hostDir: HostDir, scripts: scripts}
	var err error
	if s.boot, err = readBoot(filepath.Join(HostDir, BootName)); err != nil {
		return err
	}
	if s.console, err = openConsole(filepath.Join(HostDir, ConsoleName), ConsoleLimit); err != nil {
		return err
	}
	if err := os.MkdirAll(scripts, 0o700); err != nil {
		return err
	}
	s.env, s.procs = Environ(s.boot.Env), newProcesses()
	s.userData()
	return nil
}
