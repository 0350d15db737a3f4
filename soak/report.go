package main

import (
	"encoding/json"
	"fmt"
	"html/template"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// write makes soak.json and soak.html.
func (r *report) write(dir string) error {
	raw, err := json.Marshal(r.result)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "soak.json"), append(raw, '\n'), 0o644); err != nil {
		return err
	}
	var b strings.Builder
	if err := page.Execute(&b, r.view()); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "soak.html"), []byte(b.String()), 0o644)
}

// row is a figure with its name.
type row struct{ Name, Value string }

func (r *report) rows() []row {
	w := r.world
	a := w.asked
	out := []row{
		{"requests", fmt.Sprintf("%d in %.1f minutes, %d a second (%d of 5 s, every fourth on a connection of its own)", a.Requests, r.Minutes, w.Rate, a.Long)},
		{"latency from the moment that a request was meant for", fmt.Sprintf("half within %s, 99 %% within %s, all within %s", a.P50, a.P99, a.Slowest)},
		{"failed under what is planned", fmt.Sprint(r.FailedPlanned)},
		{"failed in flight on what was killed", fmt.Sprintf("%d, in %d kills and lost zones", r.FailedOnKill, len(w.kills))},
		{"answered badly by a bad release", fmt.Sprint(r.Met)},
		{"launches", fmt.Sprintf("%d, of which %d never served; with 95 %% certainty fewer than %.3f %% fail", r.Launches, r.LaunchFailures, 100*r.Bound)},
		{"healthy at once", fmt.Sprintf("%d at the least; the floor is %d, broken at %d of %d looks (%d more had no answer)", r.Lowest, w.Instances, r.FloorBroken, len(w.samples)-r.Unseen, r.Unseen)},
	}
	var whole []float64
	for _, k := range w.kills {
		if k.Whole > 0 && !strings.HasPrefix(k.What, "zone") {
			whole = append(whole, k.Whole.Seconds())
		}
	}
	if len(whole) > 0 {
		out = append(out, row{"from a kill to full strength", spread(whole)})
	}
	for _, f := range w.figures {
		out = append(out, row{f.Name, spread(f.Seconds)})
	}
	return out
}

func spread(s []float64) string {
	s = slices.Sorted(slices.Values(s))
	if len(s) == 1 {
		return fmt.Sprintf("%.1f s", s[0])
	}
	return fmt.Sprintf("%.1f s in the middle, %.1f to %.1f s (%d times)", s[len(s)/2], s[0], s[len(s)-1], len(s))
}

// text is the report for a terminal.
func (r *report) text() string {
	var b strings.Builder
	fmt.Fprintln(&b)
	for _, x := range r.rows() {
		fmt.Fprintf(&b, "%-56s %s\n", x.Name, x.Value)
	}
	for i, f := range r.Bad {
		if i == 10 {
			fmt.Fprintf(&b, "  and %d more\n", len(r.Bad)-i)
			break
		}
		fmt.Fprintln(&b, "  failed:", f)
	}
	for i, l := range r.Lost {
		if i == 10 {
			break
		}
		fmt.Fprintln(&b, "  never served:", l.Name(), l.Why)
	}
	return b.String()
}

// The picture's size.
const (
	width  = 1100.0
	height = 160.0
)

type line struct {
	X    float64
	Note note
	At   string
}

type view struct {
	Title   string
	Rows    []row
	Healthy string // points
	Slowest string
	Failed  []float64
	Floor   float64
	Lines   []line
	Most    int
	MostMS  int64
	W, H    float64
	Bad     []string
}

func (r *report) view() view {
	w := r.world
	v := view{Title: fmt.Sprintf("Soak of %d instances, %.1f minutes, seed %d", w.Instances, r.Minutes, w.Seed), Rows: r.rows(), W: width, H: height}
	end := max(float64(len(w.asked.Seconds)), 1)
	at := func(t time.Time) float64 { return t.Sub(w.begun).Seconds() / end * width }
	for _, s := range w.samples {
		v.Most = max(v.Most, s.Healthy)
	}
	v.Most = max(v.Most, w.Instances, 1)
	v.Floor = height - float64(w.Instances)/float64(v.Most)*height
	var healthy, slowest strings.Builder
	for _, s := range w.samples {
		if s.Seen {
			fmt.Fprintf(&healthy, "%.1f,%.1f ", at(s.At), height-float64(s.Healthy)/float64(v.Most)*height)
		}
	}
	top := time.Millisecond
	for _, s := range w.asked.Seconds {
		top = max(top, s.Slowest)
	}
	v.MostMS = top.Milliseconds()
	for i, s := range w.asked.Seconds {
		x := float64(i) / end * width
		fmt.Fprintf(&slowest, "%.1f,%.1f ", x, height-float64(s.Slowest)/float64(top)*height)
		if s.Failed > 0 {
			v.Failed = append(v.Failed, x)
		}
	}
	v.Healthy, v.Slowest = healthy.String(), slowest.String()
	for _, n := range w.notes {
		if n.At.Before(w.begun) {
			continue
		}
		v.Lines = append(v.Lines, line{at(n.At), n, fmt.Sprintf("%.1f s", n.At.Sub(w.begun).Seconds())})
	}
	for _, f := range r.Bad[:min(len(r.Bad), 100)] {
		v.Bad = append(v.Bad, f.String())
	}
	return v
}

var page = template.Must(template.New("soak").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{.Title}}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1140px; margin: 2em auto; padding: 0 1em; color: #222; background: #fff }
table { border-collapse: collapse } td { padding: .2em 1em .2em 0; border-bottom: 1px solid #ddd; vertical-align: top }
svg { width: 100%; background: #f6f6f6; margin-bottom: 1em } polyline { fill: none; stroke: #1660a8; stroke-width: 1.2 }
.planned { stroke: #2a8a3e; color: #2a8a3e } .fault { stroke: #c05a00; color: #c05a00 } .result { stroke: #666; color: #666 }
.floor { stroke: #b00; stroke-dasharray: 6 4 } .failed { fill: #b00 }
</style>
<h1>{{.Title}}</h1>
<table>{{range .Rows}}<tr><td>{{.Name}}</td><td>{{.Value}}</td></tr>{{end}}</table>
<h2>Healthy instances (to {{.Most}}; dashed: the floor)</h2>
<svg viewBox="0 0 {{.W}} {{.H}}" role="img" aria-label="healthy instances over time">{{$h := .H}}{{$w := .W}}
{{range .Lines}}<line class="{{.Note.Kind}}" x1="{{.X}}" x2="{{.X}}" y1="0" y2="{{$h}}" stroke-opacity=".35"><title>{{.At}} {{.Note.Text}}</title></line>{{end}}
<line class="floor" x1="0" x2="{{$w}}" y1="{{.Floor}}" y2="{{.Floor}}"/><polyline points="{{.Healthy}}"/></svg>
<h2>The slowest request of each second (to {{.MostMS}} ms; red: some failed)</h2>
<svg viewBox="0 0 {{.W}} {{.H}}" role="img" aria-label="latency over time">
{{range .Lines}}<line class="{{.Note.Kind}}" x1="{{.X}}" x2="{{.X}}" y1="0" y2="{{$h}}" stroke-opacity=".35"><title>{{.At}} {{.Note.Text}}</title></line>{{end}}
<polyline points="{{.Slowest}}"/>{{range .Failed}}<circle class="failed" cx="{{.}}" cy="6" r="4"/>{{end}}</svg>
{{if .Bad}}<h2>Requests that failed under what is planned</h2><ul>{{range .Bad}}<li>{{.}}</li>{{end}}</ul>{{end}}
<h2>Timeline</h2>
<table>{{range .Lines}}<tr><td>{{.At}}</td><td class="{{.Note.Kind}}">{{.Note.Text}}</td></tr>{{end}}</table>
</html>
`))
