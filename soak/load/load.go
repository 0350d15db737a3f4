// Package load asks a shop at a constant rate, whatever the answers take: each
// request begins at its moment, and its latency counts from there. It retries
// nothing, so that a connection which is cut is a failure. It must not know
// what is done to the shop meanwhile.
package load

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Slowly is how long the long requests take to send their body.
const Slowly = 5 * time.Second

// patience is how long a client waits for an answer.
const patience = 15 * time.Second

// Load is one generator. Most of its requests use connections again, every
// fourth has one of its own, and every fiftieth takes five seconds.
type Load struct {
	host  string
	rate  int
	begun time.Time
	stop  chan struct{}
	wg    sync.WaitGroup

	mu       sync.Mutex
	idle     []*wire
	total    int
	long     int
	failures []Failure
	took     []time.Duration
	seconds  []Second
	versions map[string]int
}

// Failure is a request without the answer that it should have had.
type Failure struct {
	N       int // its number
	Meant   time.Time
	Ended   time.Time
	Fresh   bool // it had a connection of its own
	Long    bool
	Problem string
}

func (f Failure) String() string {
	return fmt.Sprintf("%s request %d (fresh %t, long %t): %s", f.Ended.Format("15:04:05.000"), f.N, f.Fresh, f.Long, f.Problem)
}

// Second is what happened to the requests that were meant for one second.
type Second struct {
	Requests, Failed int
	Slowest          time.Duration // of those that are not long
}

type wire struct {
	net.Conn
	r    *bufio.Reader
	used time.Time
}

// unused is how long a connection may idle before it is used again: a balancer
// closes those that idle for a minute, and who writes just then would see it.
const unused = 20 * time.Second

// Start begins to ask an address so often in a second.
func Start(address string, rate int) (*Load, error) {
	u, err := url.Parse(address)
	if err != nil {
		return nil, err
	}
	l := &Load{host: u.Host, rate: rate, begun: time.Now(), stop: make(chan struct{}), versions: map[string]int{}}
	if u.Port() == "" {
		l.host += ":80"
	}
	l.wg.Go(func() {
		for n := 0; ; n++ {
			meant := l.begun.Add(time.Duration(n) * time.Second / time.Duration(rate))
			select {
			case <-l.stop:
				return
			case <-time.After(time.Until(meant)):
			}
			l.wg.Go(func() { l.one(n, meant) })
		}
	})
	return l, nil
}

// Begun is when the first request was meant.
func (l *Load) Begun() time.Time { return l.begun }

func (l *Load) one(n int, meant time.Time) {
	fresh, long := n%4 == 0, n%50 == 49
	version, err := l.ask(fresh, long, n%5 == 0)
	ended := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	at := int(meant.Sub(l.begun) / time.Second)
	for len(l.seconds) <= at {
		l.seconds = append(l.seconds, Second{})
	}
	s := &l.seconds[at]
	s.Requests++
	if long {
		l.long++
	} else {
		took := ended.Sub(meant)
		l.took = append(l.took, took)
		s.Slowest = max(s.Slowest, took)
	}
	if version != "" {
		l.versions[version]++
	}
	if err != nil {
		s.Failed++
		l.failures = append(l.failures, Failure{N: n, Meant: meant, Ended: ended, Fresh: fresh, Long: long, Problem: err.Error()})
	}
}

// used is a connection that can be used again, nil where there is none.
func (l *Load) used() *wire {
	l.mu.Lock()
	defer l.mu.Unlock()
	for k := len(l.idle); k > 0; k = len(l.idle) {
		c := l.idle[k-1]
		l.idle = l.idle[:k-1]
		if time.Since(c.used) < unused {
			return c
		}
		c.Close() // so were those before it
	}
	return nil
}

// ask makes one request; version is what answered, where it says so.
func (l *Load) ask(fresh, long, order bool) (version string, err error) {
	var c *wire
	if !fresh {
		c = l.used()
	}
	if c == nil {
		conn, err := net.DialTimeout("tcp", l.host, 3*time.Second)
		if err != nil {
			return "", err
		}
		c = &wire{Conn: conn, r: bufio.NewReader(conn)}
	}
	keep := false
	defer func() {
		if !keep {
			c.Close()
			return
		}
		c.used = time.Now()
		l.mu.Lock()
		l.idle = append(l.idle, c)
		l.mu.Unlock()
	}()
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	head, body, want := "GET /version HTTP/1.1\r\nHost: "+l.host+"\r\n", "", http.StatusOK
	if order || long {
		body, want = `{"item": "lamp", "count": 2}`, http.StatusCreated
		head = fmt.Sprintf("POST /orders HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n", l.host, len(body))
	}
	if fresh {
		head += "Connection: close\r\n"
	}
	if _, err := io.WriteString(c, head+"\r\n"); err != nil {
		return "", err
	}
	if long {
		if _, err := io.WriteString(c, body[:5]); err != nil {
			return "", err
		}
		time.Sleep(Slowly)
		body = body[5:]
	}
	if _, err := io.WriteString(c, body); err != nil {
		return "", err
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return "", err
	}
	raw, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	res.Body.Close()
	if err != nil {
		return "", err
	}
	if res.StatusCode != want {
		return "", fmt.Errorf("%s: %s", res.Status, strings.TrimSpace(string(raw)))
	}
	keep = !fresh && !res.Close
	if _, rest, ok := strings.Cut(string(raw), `"version":"`); ok {
		version, _, _ = strings.Cut(rest, `"`)
	}
	return version, nil
}

// Since are the failures that ended after a moment.
func (l *Load) Since(at time.Time) (out []Failure) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.failures {
		if f.Ended.After(at) {
			out = append(out, f)
		}
	}
	return out
}

// Summary is all that was seen.
type Summary struct {
	Rate     int
	Requests int
	Long     int
	Failures []Failure
	P50, P99 time.Duration // of those that are not long
	Slowest  time.Duration
	Versions map[string]int
	Seconds  []Second
}

// End waits for what is under way and says what there was.
func (l *Load) End() Summary {
	close(l.stop)
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.idle {
		c.Close()
	}
	slices.Sort(l.took)
	s := Summary{Rate: l.rate, Requests: l.total, Long: l.long, Failures: l.failures, Versions: l.versions, Seconds: l.seconds}
	if n := len(l.took); n > 0 {
		at := func(p float64) time.Duration { return l.took[int(float64(n-1)*p)].Round(100 * time.Microsecond) }
		s.P50, s.P99, s.Slowest = at(0.5), at(0.99), at(1)
	}
	return s
}

func (s Summary) String() string {
	return fmt.Sprintf("%d requests, %d of them long, %d failed; half within %s, 99 %% within %s, all within %s; answered by %v", s.Requests, s.Long, len(s.Failures), s.P50, s.P99, s.Slowest, s.Versions)
}
