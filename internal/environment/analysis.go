package environment

import (
	"fmt"
	"strconv"
	"time"
)

// Figures are what a load balancer counted for a generation in one period.
type Figures struct {
	At               time.Time // when the period began
	Requests, Errors int64     // Errors: answers of 500 and more
	// Took is how long instances took until they began to answer, of Timed
	// requests together.
	Timed int64
	Took  time.Duration
}

const (
	// fewRequests is from how many requests on their figures tell anything; and
	// one error alone tells nothing, however few they were.
	fewRequests, fewErrors = 20, 2
	// lately is how far back figures are of interest: what is bad shall not hide
	// behind an hour that was good. It is five periods at least.
	lately = 5 * time.Minute
)

// Watches tells whether the load balancer's figures judge a deploy.
func (s Strategy) Watches() bool { return s.MaxErrors > 0 || s.MaxLatency > 0 }

// Window is from when on figures tell about traffic that was set at since: from
// the next whole period, and the recent ones alone. By told those of the first
// one must be there, though they come late: a cloud takes up to two periods
// more.
func Window(since, now time.Time, period time.Duration) (from, told time.Time) {
	from = since.Truncate(period)
	if from.Before(since) {
		from = from.Add(period)
	}
	told = from.Add(3 * period)
	if r := now.Add(-max(lately, 5*period)).Truncate(period); r.After(from) {
		from = r
	}
	return from, told
}

// Judge tells what the figures of a window say about the generation that
// traffic moves to, beside those of the one that it comes from. A period that is
// not there had no requests. Figures of too few requests say nothing, and nobody
// waits for more when the first must have been there.
func (s Strategy) Judge(fresh, old []Figures, since, now time.Time, period time.Duration) Verdict {
	from, told := Window(since, now, period)
	f, o := sum(fresh, from), sum(old, from)
	if f.Requests < fewRequests {
		if now.Before(told) {
			return Verdict{Waiting: "the load balancer's figures of it come by " + told.UTC().Format("15:04:05 MST")}
		}
		return Verdict{Note: fmt.Sprintf("%d requests lately, too few to tell by", f.Requests)}
	}
	alike := ""
	if share := f.errors(); s.MaxErrors > 0 && f.Errors >= fewErrors && share > s.MaxErrors {
		bad := fmt.Sprintf("%s %% of its %d requests were answered with 5xx (max_error_rate: %s %%)", number(share), f.Requests, number(s.MaxErrors))
		was := o.errors()
		if o.Requests < fewRequests || was <= s.MaxErrors || share > 2*was {
			return Verdict{Bad: bad}
		}
		alike = fmt.Sprintf("%s, and so were %s %% of those to what served before: going back would not help", bad, number(was))
	}
	if took := f.average(); s.MaxLatency > 0 && f.Timed >= fewRequests && took > s.MaxLatency {
		bad := fmt.Sprintf("its answers to %d requests took %s on average (max_latency: %s)", f.Timed, brief(took), s.MaxLatency)
		was := o.average()
		if o.Timed < fewRequests || was <= s.MaxLatency || took > 2*was {
			return Verdict{Bad: bad}
		}
		alike = fmt.Sprintf("%s, and those of what served before %s: going back would not help", bad, brief(was))
	}
	if alike != "" {
		return Verdict{Waiting: alike}
	}
	note := number(f.errors()) + " % of its requests failed lately"
	if s.MaxLatency > 0 && f.Timed > 0 {
		note += fmt.Sprintf(", and answers took %s", brief(f.average()))
	}
	return Verdict{Note: note}
}

func sum(list []Figures, from time.Time) (all Figures) {
	for _, f := range list {
		if !f.At.Before(from) {
			all.Requests += f.Requests
			all.Errors += f.Errors
			all.Timed += f.Timed
			all.Took += f.Took
		}
	}
	return all
}

// errors are the share that failed, in per cent.
func (f Figures) errors() float64 {
	if f.Requests == 0 {
		return 0
	}
	return float64(f.Errors) / float64(f.Requests) * 100
}

func (f Figures) average() time.Duration {
	if f.Timed == 0 {
		return 0
	}
	return f.Took / time.Duration(f.Timed)
}

// brief rounds a time for people.
func brief(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return d.Round(time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// number writes a share for people: 12, 1.5 or 0.03.
func number(f float64) string {
	digits := 2
	if f >= 10 {
		digits = 0
	}
	n, _ := strconv.ParseFloat(strconv.FormatFloat(f, 'f', digits, 64), 64)
	return strconv.FormatFloat(n, 'f', -1, 64)
}
