package guest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	scriptDeadline = time.Minute // of one start script of /etc/rc2.d
	stopServices   = 10 * time.Second
	stopRest       = 3 * time.Second
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Environ is the environment that everything in an instance begins with.
func Environ(env map[string]string) []string {
	all := map[string]string{"PATH": defaultPath, "HOME": "/root"}
	for k, v := range env {
		all[k] = v
	}
	list := make([]string, 0, len(all))
	for k, v := range all {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	return list
}

// system is one guest with its directories, so that a test can have its own.
type system struct {
	hostDir, scripts  string
	rcDir, serviceDir string
	boot              Boot
	env               []string
	console           *console
	procs             *processes
	cmds              *commands
	channel           *channel
}

func newSystem(hostDir, scripts, rcDir, serviceDir string) (*system, error) {
	s := &system{hostDir: hostDir, scripts: scripts, rcDir: rcDir, serviceDir: serviceDir}
	var err error
	if s.boot, err = readBoot(filepath.Join(hostDir, BootName)); err != nil {
		return nil, err
	}
	s.env = Environ(s.boot.Env)
	if s.console, err = openConsole(filepath.Join(hostDir, ConsoleName), ConsoleLimit); err != nil {
		return nil, err
	}
	s.procs = newProcesses()
	if s.cmds, err = newCommands(s.procs, filepath.Join(hostDir, commandsName), scripts, s.env, time.Now); err != nil {
		return nil, err
	}
	if s.channel, err = listen(filepath.Join(hostDir, SocketName), s.cmds); err != nil {
		return nil, err
	}
	go s.channel.serve()
	return s, nil
}

// Init is PID 1: the channel first, then the start scripts of /etc/rc2.d in
// their order, then services and user data, until SIGTERM.
func Init() error {
	stop := make(chan os.Signal, 4)
	// SIGRTMIN+3 is what a systemd would be sent; harmless to know it too.
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT, syscall.SIGPWR, syscall.Signal(37))
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	s, err := newSystem(HostDir, scripts, "/etc/rc2.d", "/etc/service")
	if err != nil {
		return err
	}
	return s.run(stop)
}

func (s *system) run(stop <-chan os.Signal) error {
	s.console.printf("boot")
	out, _, err := s.console.pipe()
	if err != nil {
		return err
	}
	svs := newServices(s.serviceDir, s.procs, s.env, out, s.console.printf)
	ended, started := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(started)
		s.startScripts(out, ended)
		select {
		case <-ended:
			return
		default:
		}
		svs.watch()
		go s.userData()
	}()
	sig := <-stop
	s.console.printf("%v: stopping", sig)
	close(ended)
	<-started
	svs.stop(stopServices)
	s.channel.close()
	s.killAll()
	s.console.printf("stopped")
	return nil
}

// startScripts runs the start links of a runlevel, one after the other as
// their numbers ask.
func (s *system) startScripts(out *os.File, ended <-chan struct{}) {
	entries, err := os.ReadDir(s.rcDir)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.console.printf("%v", err)
		}
		return
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		s.console.printf("%v", err)
		return
	}
	defer null.Close()
	env := append(slices.Clone(s.env), "RUNLEVEL=2", "PREVLEVEL=N")
	for _, e := range entries { // sorted by name
		if !strings.HasPrefix(e.Name(), "S") {
			continue
		}
		pid, done, err := s.procs.start([]string{filepath.Join(s.rcDir, e.Name()), "start"}, env, "/", [3]*os.File{null, out, out})
		if err != nil {
			s.console.printf("%v", err)
			continue
		}
		select {
		case ws := <-done:
			if code(ws) != 0 {
				s.console.printf("%s start: %s", e.Name(), describe(ws))
			}
		case <-time.After(scriptDeadline):
			s.console.printf("%s start: not done after %s, going on without it", e.Name(), scriptDeadline)
		case <-ended:
			_ = syscall.Kill(-pid, syscall.SIGTERM)
			return
		}
	}
}

// userData runs the instance's user data, which is there at the first boot only.
func (s *system) userData() {
	if !strings.HasPrefix(string(s.boot.UserData), "#!") {
		return
	}
	// Across restarts of the guest too, it runs once.
	mark, err := os.OpenFile(filepath.Join(s.hostDir, "user-data.begun"), os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return
	}
	_ = mark.Close()
	out, copied, err := s.console.pipe()
	if err != nil {
		s.console.printf("user data: %v", err)
		return
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		s.console.printf("user data: %v", err)
		return
	}
	defer null.Close()
	s.console.printf("user data begins")
	_, done, err := s.procs.script(filepath.Join(s.scripts, "user-data"), s.boot.UserData, s.env, "/", [3]*os.File{null, out, out})
	if err != nil {
		s.console.printf("user data: %v", err)
		return
	}
	ws := <-done
	// Under systemd this process ends now: what the script said last must be on
	// the console by then. What it left running may hold the pipe for ever.
	out.Close()
	select {
	case <-copied:
	case <-time.After(time.Second):
	}
	s.console.printf("user data ended: %s", describe(ws))
}

// killAll ends what services and scripts left: first asked, then not. All of
// it is in PID 1's namespace, so -1 means exactly these.
func (s *system) killAll() {
	if os.Getpid() != 1 {
		return
	}
	for _, step := range []struct {
		sig  syscall.Signal
		wait time.Duration
	}{{syscall.SIGTERM, stopRest}, {syscall.SIGKILL, time.Second}} {
		_ = syscall.Kill(-1, step.sig)
		_ = syscall.Kill(-1, syscall.SIGCONT)
		for end := time.Now().Add(step.wait); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
			if s.procs.reap() {
				return
			}
		}
	}
}

func describe(ws syscall.WaitStatus) string {
	if ws.Signaled() {
		return fmt.Sprintf("killed by signal %d", int(ws.Signal()))
	}
	return fmt.Sprintf("exited %d", ws.ExitStatus())
}
