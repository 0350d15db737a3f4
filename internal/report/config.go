package report

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/parser"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Config is what an operator says beside what is measured.
type Config struct {
	Currency string             `yaml:"currency" json:"currency"`
	Prices   map[string]float64 `yaml:"prices" json:"prices"` // of an hour, by instance type
	Baseline *Baseline          `yaml:"baseline" json:"baseline"`
}

// Baseline is the process that was there before.
type Baseline struct {
	Source string  `yaml:"source" json:"source"` // how it was measured, by whom, when
	Deploy *Former `yaml:"deploy" json:"deploy"`
	Test   *Former `yaml:"test" json:"test"`
}

// Former is what a deploy, or the test of a release, took.
type Former struct {
	Time   time.Duration `yaml:"time" json:"time"`
	Clicks int           `yaml:"clicks" json:"clicks"`
}

// Limits of the file.
const (
	MaxConfig = 64 << 10
	maxPrices = 1000
	maxPrice  = 100_000
	maxTime   = 90 * day
	maxClicks = 100_000
	maxSource = 500
)

var (
	typeForm     = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9.-]{0,63}$`)
	currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)
)

// Parse reads the operator's file, YAML or JSON. name is for errors.
func Parse(name string, raw []byte) (Config, error) {
	var c Config
	bad := func(at, format string, args ...any) (Config, error) {
		return Config{}, &fault.Error{Kind: fault.Invalid, Op: "read the report's file", Object: at, Message: fmt.Sprintf(format, args...), Hint: "docs/howto/report.md has an example"}
	}
	if len(raw) > MaxConfig {
		return bad(name, "it is larger than %d KiB", MaxConfig>>10)
	}
	d := yaml.NewDecoder(bytes.NewReader(raw), yaml.Strict())
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		at, message := name, err.Error()
		var y yaml.Error
		if errors.As(err, &y) {
			message = y.GetMessage()
			if t := y.GetToken(); t != nil {
				at = fmt.Sprintf("%s:%d:%d", name, t.Position.Line, t.Position.Column)
			}
		}
		return bad(at, "%s", strings.TrimSpace(message))
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return bad(name, "it holds more than one document")
	}
	where := func(keys ...string) string { return position(name, raw, keys) }
	if len(c.Prices) > maxPrices {
		return bad(where("prices"), "more than %d prices", maxPrices)
	}
	if len(c.Prices) > 0 && !currencyForm.MatchString(c.Currency) {
		at := where("currency")
		if at == name {
			at = where("prices")
		}
		return bad(at, "prices need a currency of three capital letters, such as EUR")
	}
	for k, v := range c.Prices {
		switch {
		case !typeForm.MatchString(k):
			return bad(where("prices", k), "%q is no instance type", k)
		case math.IsNaN(v) || v < 0 || v > maxPrice:
			return bad(where("prices", k), "the price of an hour is between 0 and %d", maxPrice)
		}
	}
	b := c.Baseline
	if b == nil {
		return c, nil
	}
	if b.Source = strings.TrimSpace(b.Source); b.Source == "" || len(b.Source) > maxSource {
		return bad(where("baseline", "source"), "a baseline needs its source: how it was measured, by whom and when, in at most %d characters", maxSource)
	}
	if b.Deploy == nil && b.Test == nil {
		return bad(where("baseline"), "it says nothing: deploy or test is missing")
	}
	for key, f := range map[string]*Former{"deploy": b.Deploy, "test": b.Test} {
		switch {
		case f == nil:
		case f.Time <= 0 || f.Time > maxTime:
			return bad(where("baseline", key, "time"), "time is more than 0 and at most %d days, such as 6h30m", maxTime/day)
		case f.Clicks < 0 || f.Clicks > maxClicks:
			return bad(where("baseline", key, "clicks"), "clicks are between 0 and %d", maxClicks)
		}
	}
	return c, nil
}

// position is where a key is, or the nearest of those above it.
func position(name string, raw []byte, keys []string) string {
	f, err := parser.ParseBytes(raw, 0)
	if err != nil {
		return name
	}
	for ; len(keys) > 0; keys = keys[:len(keys)-1] {
		b := (&yaml.PathBuilder{}).Root()
		for _, k := range keys {
			b = b.Child(k)
		}
		if n, err := b.Build().FilterFile(f); err == nil && n != nil {
			p := n.GetToken().Position
			return fmt.Sprintf("%s:%d:%d", name, p.Line, p.Column)
		}
	}
	return name
}
