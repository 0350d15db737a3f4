package template

import (
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// CreationPolicy says which signals a resource must get before it is complete.
type CreationPolicy struct {
	Count      int
	Timeout    time.Duration
	MinPercent int // of a group's instances that must succeed
}

var duration = regexp.MustCompile(`^PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+)S)?$`)

// ParseCreationPolicy reads an evaluated CreationPolicy; functions in it count
// as their defaults.
func ParseCreationPolicy(n *Node) (CreationPolicy, error) {
	p := CreationPolicy{Count: 1, Timeout: 5 * time.Minute, MinPercent: 100}
	sig := n.Get("ResourceSignal")
	if v := sig.Get("Count"); v != nil && v.Scalar() {
		c, err := strconv.Atoi(v.Text)
		if err != nil || c < 0 || c > 1000 {
			return p, fmt.Errorf("CreationPolicy: Count must be a number between 0 and 1000, not %q", v.Text)
		}
		p.Count = c
	}
	if v := sig.Get("Timeout"); v != nil && v.Scalar() {
		m := duration.FindStringSubmatch(v.Text)
		if m == nil || v.Text == "PT" {
			return p, fmt.Errorf("CreationPolicy: Timeout must be a duration such as PT15M, not %q", v.Text)
		}
		p.Timeout = 0
		for i, unit := range []time.Duration{time.Hour, time.Minute, time.Second} {
			if m[i+1] == "" {
				continue
			}
			k, err := strconv.Atoi(m[i+1])
			if err != nil || k > 43200 {
				return p, fmt.Errorf("CreationPolicy: Timeout %q is longer than 12 hours", v.Text)
			}
			p.Timeout += time.Duration(k) * unit
		}
		if p.Timeout > 12*time.Hour {
			return p, fmt.Errorf("CreationPolicy: Timeout %q is longer than 12 hours", v.Text)
		}
	}
	if v := n.Get("AutoScalingCreationPolicy").Get("MinSuccessfulInstancesPercent"); v != nil && v.Scalar() {
		c, err := strconv.Atoi(v.Text)
		if err != nil || c < 0 || c > 100 {
			return p, fmt.Errorf("CreationPolicy: MinSuccessfulInstancesPercent must be between 0 and 100, not %q", v.Text)
		}
		p.MinPercent = c
	}
	return p, nil
}
