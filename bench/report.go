package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// result is one row of build/bench.json. Ours and Peer are medians. Ratio says
// how many times better ours is than the peer's: peer/ours, and ours/peer where
// more is better (units of "…/s"). A row without a peer has peer 0, peer_name
// "" and ratio 0.
type result struct {
	Name     string  `json:"name"`
	Ours     float64 `json:"ours"`
	Peer     float64 `json:"peer"`
	PeerName string  `json:"peer_name"`
	Ratio    float64 `json:"ratio"`
	Unit     string  `json:"unit"`

	ours, peer []float64 // what the medians are of
	target     string    // for the table
	met        bool
}

// compare makes a row of measurements of both.
func compare(name, unit string, ours []float64, peerName string, peer []float64) result {
	r := result{Name: name, Unit: unit, Ours: round(median(ours)), ours: ours, peer: peer, met: true}
	if peerName != "" && len(peer) > 0 {
		r.PeerName, r.Peer = peerName, round(median(peer))
		a, b := median(peer), median(ours)
		if strings.HasSuffix(unit, "/s") {
			a, b = b, a
		}
		if b > 0 {
			r.Ratio = round(a / b)
		}
	}
	return r
}

// atLeast sets the ratio that the row should have.
func (r result) atLeast(ratio float64) result {
	r.target, r.met = fmt.Sprintf("ratio ≥%g", ratio), r.Ratio >= ratio
	return r
}

// atMost sets what ours should not be over.
func (r result) atMost(limit float64) result {
	r.target, r.met = fmt.Sprintf("≤%g %s", limit, r.Unit), r.Ours <= limit
	return r
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	if n := len(s); n%2 == 0 {
		return (s[n/2-1] + s[n/2]) / 2
	}
	return s[len(s)/2]
}

// round leaves what a measurement can tell: four digits.
func round(v float64) float64 {
	var out float64
	if _, err := fmt.Sscanf(fmt.Sprintf("%.4g", v), "%g", &out); err != nil {
		return v
	}
	return out
}

// table prints rows with the spread of what they are medians of.
func table(w io.Writer, rs []result) {
	fmt.Fprintf(w, "%-20s %-16s %-16s %-8s %-12s %8s  %s\n", "row", "ours", "peer", "unit", "peer_name", "ratio", "target")
	for _, r := range rs {
		peer, ratio := "-", "-"
		if r.PeerName != "" {
			peer, ratio = spread(r.Peer, r.peer), fmt.Sprintf("%.2f", r.Ratio)
		}
		target := r.target
		if target != "" && !r.met {
			target += "  MISSED"
		}
		line := fmt.Sprintf("%-20s %-16s %-16s %-8s %-12s %8s  %s", r.Name, spread(r.Ours, r.ours), peer, r.Unit, cmp.Or(r.PeerName, "-"), ratio, target)
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

func spread(m float64, v []float64) string {
	if len(v) < 2 {
		return fmt.Sprintf("%.4g", m)
	}
	return fmt.Sprintf("%.4g (%.3g-%.3g)", m, slices.Min(v), slices.Max(v))
}

// merge puts new rows in the place of old ones of the same name, of which all
// go, and keeps the others. The order is that of the names in order.
func merge(old, fresh []result, order []string) []result {
	var out []result
	for _, r := range old {
		if !slices.ContainsFunc(fresh, func(f result) bool { return f.Name == r.Name }) {
			out = append(out, r)
		}
	}
	out = append(out, fresh...)
	place := func(name string) int {
		if i := slices.Index(order, name); i >= 0 {
			return i
		}
		return len(order)
	}
	slices.SortStableFunc(out, func(a, b result) int { return cmp.Compare(place(a.Name), place(b.Name)) })
	return out
}

func readResults(path string) ([]result, error) {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var rs []result
	if err == nil {
		err = json.Unmarshal(raw, &rs)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w (remove it)", path, err)
	}
	return rs, nil
}

func writeResults(path string, rs []result) error {
	if rs == nil {
		rs = []result{}
	}
	raw, err := json.MarshalIndent(rs, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp := path + ".new"
	if err := os.WriteFile(tmp, append(raw, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
