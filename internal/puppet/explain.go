package puppet

import "strings"

// Explain is the line of a failed run that says most: the first failed
// resource, else the catalog's own error, else what the script said last.
func Explain(output string) string {
	last, first := "", ""
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, "Error: "); ok {
			// Catalog errors name this very machine, which is gone tomorrow.
			if i := strings.LastIndex(rest, " on node "); i > 0 {
				rest = rest[:i]
			}
			rest = strings.ReplaceAll(rest, Dir+"/environments/", "")
			switch {
			case strings.HasPrefix(rest, "Facter: "):
			case strings.HasPrefix(rest, "/Stage["): // names the resource
				return rest
			case first == "":
				first = rest
			}
		}
		if strings.HasPrefix(line, "puppet: ") {
			last = strings.TrimPrefix(line, "puppet: ")
		}
	}
	if first != "" {
		return first + hint(output)
	}
	return last
}

// hints say what to do about errors of agents and servers that do not say it
// themselves; the first that matches is the nearest to the cause.
var hints = []struct{ says, hint string }{
	{"maxwaitforcert", "the CA signed no certificate in time: on the Puppet server, dayfly-autosign's refusals are in its log and in syslog; dayfly-autosign admin check says whether Puppet can execute it at all"},
	{"still need to sign this agent's certificate", "the CA signed no certificate in time: on the Puppet server, dayfly-autosign's refusals are in its log and in syslog; dayfly-autosign admin check says whether Puppet can execute it at all"},
	{"not yet valid", "the clocks of server and builder differ, or the certificate was made on a machine whose clock is ahead"},
	{"has expired", "a certificate is over, or this builder's clock is ahead"},
	{"did not match expected digest", "image.puppet.ca_fingerprint names another CA than the one that answers: a new CA, or somebody in between"},
	{"is not one of the valid server", "image.puppet.server must be a name that is in the server's certificate"},
	{"does not match the server certificate", "image.puppet.server must be a name that is in the server's certificate"},
	{"certificate verify failed", "the server shows a certificate of another CA than this one"},
	{"not found on server, aborting run", "the server has no environment of the name image.puppet.environment"},
	{"does not match agent specified environment", "the server's node classifier puts this builder into another environment than image.puppet.environment"},
	{"Could not find environment", "the server has no environment of the name image.puppet.environment"},
	{"Connection refused", "the Puppet server went away during the run"},
	{"Failed to open TCP connection", "the Puppet server cannot be reached any more"},
	{"execution expired", "the Puppet server is too slow"},
}

func hint(output string) string {
	for _, h := range hints {
		if strings.Contains(output, h.says) {
			return " (" + h.hint + ")"
		}
	}
	return ""
}
