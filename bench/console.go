package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
)

// consoleGroup is the console in Debian's Chromium; e2e/browser measures it.
func consoleGroup() group {
	return group{
		runs: 1, run: measureConsole,
		rows: []row{
			{"console-paint", "from the click until 100 environments x 45 instances are painted, median of 5"},
			{"console-frame", "the slowest frame while 5,000 instances change in a second"},
		},
	}
}

// painted is where the browser's test writes its figures.
const painted = "build/console/console-paint.json"

func measureConsole(ctx context.Context, s *session, want func(string) bool) ([]result, error) {
	if _, err := run(ctx, "scripts/deps.sh", "browser"); err != nil {
		return nil, err
	}
	var paint, frame []float64
	for k := range s.runs {
		s.say("run %d of %d", k+1, s.runs)
		if err := os.RemoveAll(painted); err != nil { // an older figure is none
			return nil, err
		}
		if out, err := exec.CommandContext(ctx, "go", "test", "-count=1", "-v", "-run", "^TestConsole$/^look$", "./e2e/browser").CombinedOutput(); err != nil {
			return nil, fmt.Errorf("e2e/browser: %w\n%s", err, out)
		}
		raw, err := os.ReadFile(painted)
		if err != nil {
			return nil, fmt.Errorf("the console was not measured, is npm's registry reached? %w", err)
		}
		var f struct {
			Paint float64 `json:"paint_ms"`
			Frame float64 `json:"slowest_frame_ms"`
		}
		if err := json.Unmarshal(raw, &f); err != nil {
			return nil, fmt.Errorf("%s: %w", painted, err)
		}
		paint, frame = append(paint, f.Paint), append(frame, f.Frame)
	}
	var out []result
	if want("console-paint") {
		out = append(out, compare("console-paint", "ms", paint, "", nil).atMost(200))
	}
	if want("console-frame") {
		out = append(out, compare("console-frame", "ms", frame, "", nil))
	}
	return out, nil
}
