package agent

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

// hostname of an instance: its environment and its id, one DNS label.
func hostname(env, instance string) string {
	id := strings.TrimPrefix(strings.ToLower(instance), "i-")
	var b strings.Builder
	for _, c := range strings.ToLower(env) {
		if ('a' <= c && c <= 'z') || ('0' <= c && c <= '9') || c == '-' {
			b.WriteRune(c)
		} else {
			b.WriteByte('-')
		}
	}
	name := strings.Trim(b.String(), "-")
	if name == "" {
		name = "i"
	}
	if most := 63 - 1 - len(id); len(name) > most {
		name = strings.TrimRight(name[:max(1, most)], "-")
	}
	return name + "-" + id
}

// details gives the instance its name and tells it what it is. A name that
// cannot be set (a container without the right) is no reason not to serve.
func (a *Agent) details(b *boot) error {
	name := hostname(b.Launch.Environment, b.ID.Instance)
	if a.SetHostname != nil {
		if err := a.SetHostname(name); errors.Is(err, syscall.EPERM) {
			a.say("the host name stays: %v", err)
		} else if err != nil {
			return fmt.Errorf("set the host name: %w", err)
		}
	}
	if err := a.write("/etc/hostname", []byte(name+"\n"), 0o644); err != nil {
		a.say("%v", err)
	}
	old, err := os.ReadFile(a.path("/etc/hosts"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := a.write("/etc/hosts", []byte(hosts(string(old), b.ID.IP, name)), 0o644); err != nil {
		a.say("%v", err)
	}
	var env strings.Builder
	env.WriteString("# What this instance is; written at boot.\n")
	for _, kv := range b.variables() {
		env.WriteString(kv[0] + "=" + quote(kv[1]) + "\n")
	}
	return a.write(handoff.EnvFile, []byte(env.String()), 0o644)
}

const hostsNote = "# dayfly"

// hosts is /etc/hosts with one line for the instance's own name.
func hosts(old, ip, name string) string {
	var out []string
	local := false
	for line := range strings.Lines(old) {
		line = strings.TrimRight(line, "\n")
		if strings.HasSuffix(line, hostsNote) {
			continue
		}
		local = local || strings.HasPrefix(line, "127.0.0.1")
		out = append(out, line)
	}
	if !local {
		out = append([]string{"127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"}, out...)
	}
	if ip == "" {
		ip = "127.0.1.1"
	}
	return strings.Join(append(out, ip+" "+name+" "+hostsNote), "\n") + "\n"
}

// quote makes a word for sh and for systemd's EnvironmentFile.
func quote(s string) string {
	plain := s != ""
	for _, c := range s {
		if !(c == '-' || c == '_' || c == '.' || c == '/' || c == ':' || ('0' <= c && c <= '9') || ('a' <= c && c <= 'z') || ('A' <= c && c <= 'Z')) {
			plain = false
		}
	}
	if plain {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// variables are what deploy scripts, services and people find in their
// environment and in instance.env.
func (b *boot) variables() [][2]string {
	return [][2]string{
		{"DAYFLY_INSTANCE_ID", b.ID.Instance}, {"DAYFLY_IMAGE_ID", b.ID.Image},
		{"DAYFLY_REGION", b.ID.Region}, {"DAYFLY_ZONE", b.ID.Zone},
		{"DAYFLY_ENVIRONMENT", b.Launch.Environment}, {"DAYFLY_GENERATION", b.Launch.Generation},
		{"DAYFLY_ROLE", b.Config.Role}, {"DAYFLY_RELEASE_DIGEST", b.Launch.Digest}, {"DAYFLY_RELEASE_FILE", b.Launch.File()},
		{"DAYFLY_OPERATION", b.Launch.Operation},
	}
}

// machineID is born at boot where nothing else makes one: images without an
// init have an empty /etc/machine-id.
func (a *Agent) machineID() error {
	raw, err := os.ReadFile(a.path("/etc/machine-id"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if id := strings.TrimSpace(string(raw)); id != "" && id != "uninitialized" {
		return nil
	}
	if comm, _ := os.ReadFile(a.path("/proc/1/comm")); strings.TrimSpace(string(comm)) == "systemd" {
		return nil // it makes one itself
	}
	var b [16]byte
	_, _ = rand.Read(b[:])
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // a version 4 UUID, as systemd's
	return a.write("/etc/machine-id", []byte(hex.EncodeToString(b[:])+"\n"), 0o444)
}
