package region

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// limits are the host's settings that many instances need, with the least value
// each must have. They are raised and stay raised: others may rely on them by
// the time that the region ends.
var limits = map[string]int{
	"fs/inotify/max_user_instances": 8192, // each systemd wants some, and all instances share root's
	"fs/inotify/max_user_watches":   524288,
	"kernel/pid_max":                262144,
}

// raiseLimits returns a line for each setting that it changed.
func raiseLimits() ([]string, error) {
	var said []string
	for name, least := range limits {
		path := "/proc/sys/" + name
		raw, err := os.ReadFile(path)
		if err != nil {
			return said, err
		}
		now, err := strconv.Atoi(strings.TrimSpace(string(raw)))
		if err != nil {
			return said, fmt.Errorf("%s: %w", path, err)
		}
		if now >= least {
			continue
		}
		if err := os.WriteFile(path, []byte(strconv.Itoa(least)), 0o644); err != nil {
			return said, err
		}
		said = append(said, fmt.Sprintf("%s is now %d, was %d", strings.ReplaceAll(name, "/", "."), least, now))
	}
	return said, nil
}
