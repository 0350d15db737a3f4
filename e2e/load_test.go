package e2e

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
	"testing"
	"time"
)

// load asks at a constant rate, whatever the answers take: each request begins
// at its moment. It retries nothing, so that a connection which is cut is a
// failure. Most requests use connections again, every fourth has one of its
// own, and every fiftieth takes five seconds to send its body.
type load struct {
	host string
	stop chan struct{}
	wg   sync.WaitGroup

	mu       sync.Mutex
	idle     []*wire
	total    int
	long     int
	failures []failure
	took     []time.Duration
	versions map[string]int
}

type failure struct {
	at   time.Time
	what string
}

type wire struct {
	net.Conn
	r *bufio.Reader
}

const slowly = 5 * time.Second

func startLoad(t *testing.T, address string, rate int) *load {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	l := &load{host: u.Host, stop: make(chan struct{}), versions: map[string]int{}}
	if u.Port() == "" {
		l.host += ":80"
	}
	l.wg.Go(func() {
		begun := time.Now()
		for n := 0; ; n++ {
			select {
			case <-l.stop:
				return
			case <-time.After(time.Until(begun.Add(time.Duration(n) * time.Second / time.Duration(rate)))):
			}
			l.wg.Go(func() { l.one(n) })
		}
	})
	return l
}

func (l *load) one(n int) {
	begun := time.Now()
	fresh, long := n%4 == 0, n%50 == 49
	version, err := l.ask(fresh, long, n%5 == 0)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	if long {
		l.long++
	} else {
		l.took = append(l.took, time.Since(begun))
	}
	if version != "" {
		l.versions[version]++
	}
	if err != nil {
		l.failures = append(l.failures, failure{time.Now(), fmt.Sprintf("%s request %d (fresh %t, long %t): %v", time.Now().Format("15:04:05.000"), n, fresh, long, err)})
	}
}

// ask makes one request; version is what answered, where it says so.
func (l *load) ask(fresh, long, order bool) (version string, err error) {
	var c *wire
	if !fresh {
		l.mu.Lock()
		if k := len(l.idle); k > 0 {
			c, l.idle = l.idle[k-1], l.idle[:k-1]
		}
		l.mu.Unlock()
	}
	if c == nil {
		conn, err := net.DialTimeout("tcp", l.host, 3*time.Second)
		if err != nil {
			return "", err
		}
		c = &wire{conn, bufio.NewReader(conn)}
	}
	keep := false
	defer func() {
		if !keep {
			c.Close()
			return
		}
		l.mu.Lock()
		l.idle = append(l.idle, c)
		l.mu.Unlock()
	}()
	if err := c.SetDeadline(time.Now().Add(15 * time.Second)); err != nil {
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
		time.Sleep(slowly)
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

// since are the failures after a moment.
func (l *load) since(at time.Time) (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, f := range l.failures {
		if f.at.After(at) {
			out = append(out, f.what)
		}
	}
	return out
}

// end waits for what is under way and says what there was.
func (l *load) end() string {
	close(l.stop)
	l.wg.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.idle {
		c.Close()
	}
	slices.Sort(l.took)
	if len(l.took) == 0 {
		return "no requests"
	}
	at := func(p float64) time.Duration {
		return l.took[int(float64(len(l.took)-1)*p)].Round(100 * time.Microsecond)
	}
	return fmt.Sprintf("%d requests, %d of them long, %d failed; half within %s, 99 %% within %s, all within %s; answered by %v", l.total, l.long, len(l.failures), at(0.5), at(0.99), at(1), l.versions)
}
