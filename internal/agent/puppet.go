package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
)

// What belongs to Puppet's agent at first boot is below one folder of its own.
const (
	puppetDir = handoff.StateDir + "/puppet"
	puppetLog = handoff.LogDir + "/puppet.log"
)

// verdict is what follows from a run of Puppet's agent.
type verdict int

const (
	goOn  verdict = iota
	retry         // after a pause, until the deadline
	giveUp
)

// resourceFailures is how often resources may fail: what does not work three
// times is the catalog's fault, or the image's, and another instance is made.
const resourceFailures = 3

// judge says what follows from a run's exit code, with --detailed-exitcodes;
// failed is how many runs before it had failed resources. A run that made no
// catalog (1), or that somebody ended, is about the server or the network: time
// may help.
func judge(code, failed int) (v verdict, failedNow int) {
	switch code {
	case 0, 2:
		return goOn, failed
	case 4, 6:
		if failed++; failed >= resourceFailures {
			return giveUp, failed
		}
	}
	return retry, failed
}

// pause before the next run: longer with each, and never the same on all the
// instances that a server in trouble made wait. x is from 0 to 1.
func pause(run int, x float64) time.Duration {
	most := min(2*time.Second<<min(run, 6), time.Minute)
	return most/2 + time.Duration(x*float64(most/2))
}

// puppet runs Puppet's agent against the company's server until a run ends well.
func (a *Agent) puppet(ctx context.Context, b *boot) (*handoff.Puppeted, error) {
	p := b.Config.Puppet
	did := &handoff.Puppeted{Certname: p.Certname(b.ID.Instance), ExitCode: -1}
	if p.Address != "" {
		if err := a.knowHost(p.Address, p.Server); err != nil {
			return did, err
		}
	}
	program := ""
	for _, f := range []string{"/usr/bin/puppet", "/opt/puppetlabs/bin/puppet"} {
		if _, err := os.Stat(a.path(f)); err == nil {
			program = a.path(f)
			break
		}
	}
	if program == "" {
		return did, fmt.Errorf("boot: puppet, and this image has no Puppet agent")
	}
	_ = os.Remove(a.path(puppetLog))
	said, failed := "", 0
	for {
		did.Runs++
		code, err := a.puppetOnce(ctx, b, program, did.Certname)
		said = puppetSaid(a.tailOf(puppetLog, 16<<10))
		if ctx.Err() != nil {
			return did, fmt.Errorf("Puppet did not run well before the deadline (%s), the last of %d runs ended with exit code %d: %s", b.Config.Deadline, did.Runs, did.ExitCode, said)
		}
		if err != nil {
			return did, err
		}
		did.ExitCode = code
		var v verdict
		v, failed = judge(code, failed)
		switch v {
		case goOn:
			a.say("Puppet's run %d ended with exit code %d", did.Runs, code)
			return did, nil
		case giveUp:
			return did, fmt.Errorf("Puppet's resources failed %d times, exit code %d: %s", failed, code, said)
		}
		wait := pause(did.Runs, a.jitter())
		a.say("Puppet's run %d ended with exit code %d, once more in %s: %s", did.Runs, code, wait.Round(time.Second), said)
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// puppetOnce is one run. Its request for a certificate has a fresh proof, which
// is good for some minutes; one run waits no longer than that.
func (a *Agent) puppetOnce(ctx context.Context, b *boot, program, certname string) (int, error) {
	p := b.Config.Puppet
	conf := a.path(puppetDir + "/conf")
	for _, d := range []string{conf, a.path(puppetDir + "/ssl")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return -1, err
		}
	}
	attributes := puppetDir + "/conf/csr_attributes.yaml"
	if _, err := os.Stat(a.path(puppetDir + "/ssl/certs/" + certname + ".pem")); err != nil {
		proof, err := a.aws.proof(ctx, certname)
		if err != nil { // as a run that came to nothing
			if out, e := a.openLog(puppetLog); e == nil {
				fmt.Fprintf(out, "Error: no proof of who this instance is: %v\n", err)
				out.Close()
			}
			return 1, nil
		}
		if err := a.write(attributes, []byte(fmt.Sprintf("---\ncustom_attributes:\n  1.2.840.113549.1.9.7: %q\nextension_requests:\n  pp_instance_id: %q\n  pp_image_name: %q\n  pp_role: %q\n  pp_environment: %q\n",
			proof, b.ID.Instance, b.Config.Image, p.Role, p.Environment)), 0o600); err != nil {
			return -1, err
		}
	}
	defer os.Remove(a.path(attributes))
	text := fmt.Sprintf("[main]\nvardir = %[1]s/var\nssldir = %[1]s/ssl\nrundir = %[1]s/run\nlogdir = %[1]s/log\n[agent]\nserver = %[2]s\nserverport = %[3]s\ncertname = %[4]s\nenvironment = %[5]s\nstrict_environment_mode = true\nreport = true\n",
		a.path(puppetDir), p.Server, p.Port, certname, p.Environment)
	if p.Fingerprint != "" {
		text += "ca_fingerprint = " + p.Fingerprint + "\n"
	}
	if err := a.write(puppetDir+"/conf/puppet.conf", []byte(text), 0o600); err != nil {
		return -1, err
	}
	out, err := a.openLog(puppetLog)
	if err != nil {
		return -1, err
	}
	proc, err := a.startProcess([]string{program, "agent", "--onetime", "--no-daemonize", "--no-splay", "--no-usecacheonfailure", "--detailed-exitcodes", "--environment", p.Environment,
		"--waitforcert", "10", "--maxwaitforcert", "60", "--color", "false", "--log_level", "notice", "--logdest", "console", "--confdir", conf},
		a.environment(b, "/root", "root"), "/", out, nil)
	out.Close()
	if err != nil {
		return -1, fmt.Errorf("Puppet's agent cannot start: %w", err)
	}
	b.Phase, b.Script = configure, proc
	if err := a.save(bootFile, b); err != nil {
		a.end(proc, time.Second)
		return -1, err
	}
	code, err := a.wait(ctx, proc)
	if err != nil {
		a.end(proc, 5*time.Second)
		return -1, nil // ctx says it
	}
	b.Script = process{}
	return code, nil
}

// puppetSaid is the line of a run that says most.
func puppetSaid(log string) string {
	last := ""
	for line := range strings.Lines(log) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "Error: "); ok && !strings.HasPrefix(rest, "Facter: ") {
			if strings.HasPrefix(rest, "/Stage[") {
				return rest
			}
			last = rest
		}
	}
	return last
}

// knowHost gives a name an address, on a line of its own in /etc/hosts.
func (a *Agent) knowHost(address, name string) error {
	raw, err := os.ReadFile(a.path("/etc/hosts"))
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	line := address + " " + name + " " + hostsNote + "\n"
	if strings.Contains(string(raw), line) {
		return nil
	}
	return a.write("/etc/hosts", append(raw, line...), 0o644)
}

// proof that this instance is the one that it says, good for one name.
func (a *api) proof(ctx context.Context, certname string) (string, error) {
	c, region, err := a.credentials(ctx)
	if err != nil {
		return "", err
	}
	u, _, err := a.endpoint("sts", region)
	if err != nil {
		return "", err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.Scheme+"://"+u.Host+"/", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Content-Type", handoff.ProofType)
	req.Header.Set(handoff.ProofHeader, certname)
	sum := sha256.Sum256([]byte(handoff.ProofBody))
	sign(req, c, "sts", region, hex.EncodeToString(sum[:]), a.now())
	return handoff.Proof{Host: u.Host, Date: req.Header.Get("X-Amz-Date"), Authorization: req.Header.Get("Authorization"), Token: req.Header.Get("X-Amz-Security-Token")}.String(), nil
}
