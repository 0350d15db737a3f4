package environment

import (
	"slices"
	"time"
)

// How an environment goes from one generation to the next.
const (
	Recreate  = "recreate"   // all traffic at once, the old generation ends at once
	BlueGreen = "blue-green" // a whole new generation gets traffic step by step, the old one stays whole through the soak
	Rolling   = "rolling"    // the new generation grows by steps while the old one shrinks
)

// Strategy is how a deploy moves traffic, and when it goes back by itself.
type Strategy struct {
	Replace string        `json:"replace,omitempty"` // Recreate (default), BlueGreen, Rolling
	Steps   []int         `json:"steps,omitempty"`   // shares of the traffic in per cent, rising, the last is 100
	Pause   time.Duration `json:"pause,omitempty"`   // each step lasts so long at least
	Soak    time.Duration `json:"soak,omitempty"`    // what served before stays so long after all traffic has moved
	Check   string        `json:"check,omitempty"`   // command of the team's that judges a step; a path in the blueprint
	Manual  bool          `json:"manual,omitempty"`  // people decide whether to go back

	// MaxErrors is how many requests in a hundred may be answered with 5xx by
	// the new generation, by the load balancer's figures; 0 = nobody looks.
	MaxErrors float64 `json:"max_errors,omitempty"`
	// MaxLatency is how long it may take on average until its instances begin to
	// answer; 0 = nobody looks.
	MaxLatency time.Duration `json:"max_latency,omitempty"`
}

// steps are the shares that are gone through.
func (s Strategy) steps() []int {
	if s.Replace != BlueGreen && s.Replace != Rolling || len(s.Steps) == 0 {
		return []int{100}
	}
	return s.Steps
}

// First is how many instances a new generation begins with, of full, while
// another one serves.
func (s Strategy) First(full int) int {
	if s.Replace != Rolling {
		return full
	}
	return part(full, s.steps()[0])
}

// part is a share of full in per cent, one at least, rounded up.
func part(full, share int) int { return max(1, (full*share+99)/100) }

// Shift is traffic on its way from one generation to the next, and the soak
// that follows. Until it is over two generations may serve, never more.
type Shift struct {
	From  int       `json:"from,omitempty"` // what served before; 0 = nothing did
	To    int       `json:"to"`             //
	Step  int       `json:"step"`           // index into the strategy's steps
	Since time.Time `json:"since,omitzero"` // the step's traffic is set since then; zero = not yet
	Was   time.Time `json:"was,omitzero"`   // the traffic of the step before was: it is what there is until Since
	Soak  time.Time `json:"soak,omitzero"`  // until then From stays; zero = not all traffic has moved
	Said  time.Time `json:"said,omitzero"`  // Follow.From before all traffic had moved
	// Back says that this is the way back, which nobody judges: From only ends
	// its requests.
	Back bool `json:"back,omitempty"`
	// The team's check of this step: where it was sent, and that it passed.
	Instance string `json:"instance,omitempty"`
	Command  string `json:"command,omitempty"`
	Checked  bool   `json:"checked,omitempty"`
	// Note is what the analysis has seen, in words.
	Note string `json:"note,omitempty"`
}

// Version is what an environment ran: names of records that never move.
type Version struct {
	Generation int       `json:"generation"`
	Image      string    `json:"image"`
	Release    string    `json:"release"`
	Files      string    `json:"files"`
	Size       int       `json:"size"`
	At         time.Time `json:"at"` // it had come through its soak
}

// keepGood is how many versions that were good an environment remembers.
const keepGood = 10

// Proved remembers a version that came through its soak, the latest first.
func (e *Environment) Proved(v Version) {
	e.Good = slices.DeleteFunc(e.Good, func(g Version) bool { return g.Image == v.Image && g.Release == v.Release && g.Files == v.Files })
	e.Good = slices.Insert(e.Good, 0, v)
	e.Good = e.Good[:min(len(e.Good), keepGood)]
	e.Accept(v.Image)
}

// LastGood is the version to go back to from what serves: the last one that
// came through its soak, is another, and whose image may be launched.
func (e *Environment) LastGood(launches func(image string) bool) (Version, bool) {
	for _, g := range e.Good {
		if (g.Image != e.Image || g.Release != e.Release) && launches(g.Image) {
			return g, true
		}
	}
	return Version{}, false
}

// Dayfly is who asks for what nobody asked for.
const Dayfly = "dayfly"

// Person tells whether somebody wants to go back, and not Dayfly itself.
func (b *Back) Person() bool { return b != nil && b.By != Dayfly }

// Back is that an environment goes back to what served before, and why.
type Back struct {
	By   string    `json:"by"` // who wants it; Dayfly itself after a failed analysis
	Why  string    `json:"why"`
	At   time.Time `json:"at"`
	From int       `json:"from,omitempty"` // generation that was left
	To   int       `json:"to,omitempty"`   // the one gone back to; 0 = it was made anew
	Done time.Time `json:"done,omitzero"`  // all traffic is there
}

// Verdict is what is known of the new generation at this moment.
type Verdict struct {
	Bad     string // why it must not have more traffic, or any
	Waiting string // what is not known yet
	Note    string // what was seen, where nothing speaks against it
}

// Lasts is how long the steps take at least, before the soak.
func (s Strategy) Lasts() time.Duration { return time.Duration(len(s.steps())-1) * s.Pause }
