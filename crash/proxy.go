package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// side says on which side of a call the server dies.
type side string

const (
	before side = "before" // the region never hears of the call
	after  side = "after"  // the region has acted, and nobody hears of it
)

// proxy stands between the server and the region, counts the calls that change
// something, and kills the server at one of them.
type proxy struct {
	region string // host:port
	listen net.Listener
	client *http.Client

	mu       sync.Mutex // for all below
	counting bool
	calls    []string // since arm
	target   int      // number of the call to die at, from 1; 0 = none
	at       side
	kill     func()
	hit      string // what it died at
	commands map[string]int
}

func newProxy(region string) (*proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &proxy{region: region, listen: l, commands: map[string]int{}, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 64, DisableCompression: true}}}
	go func() { _ = (&http.Server{Handler: p, ReadHeaderTimeout: 10 * time.Second}).Serve(l) }()
	return p, nil
}

// arm starts a count; with a target it kills there.
func (p *proxy) arm(target int, at side, kill func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counting, p.calls, p.target, p.at, p.kill, p.hit = true, nil, target, at, kill, ""
}

// disarm ends the count, where that has not been done before.
func (p *proxy) disarm() (calls []string, hit string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counting, p.target = false, 0
	return p.calls, p.hit
}

// count is how many calls there were since arm.
func (p *proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.calls)
}

// repeated returns commands that were sent more than once, and forgets all.
func (p *proxy) repeated() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for c, n := range p.commands {
		if n > 1 {
			out = append(out, c)
		}
	}
	p.commands = map[string]int{}
	return out
}

// operation is the name of a call and whether it changes something.
func operation(r *http.Request, body []byte) (name string, changes bool) {
	if target := r.Header.Get("X-Amz-Target"); target != "" {
		_, name, _ = strings.Cut(target, ".")
	} else if form, err := url.ParseQuery(string(body)); err == nil && strings.Contains(r.Header.Get("Content-Type"), "form-urlencoded") {
		name = form.Get("Action")
	} else {
		return r.Method + " " + strings.SplitN(r.URL.Path+"//", "/", 4)[2], r.Method != http.MethodGet && r.Method != http.MethodHead
	}
	for _, p := range []string{"Describe", "Get", "List"} {
		if strings.HasPrefix(name, p) {
			return name, false
		}
	}
	return name, true
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	name, changes := operation(r, body)
	die := side("")
	p.mu.Lock()
	if changes && p.counting {
		p.calls = append(p.calls, name)
		if len(p.calls) == p.target {
			die, p.hit = p.at, name
		}
	}
	kill := p.kill
	p.mu.Unlock()
	if die == before {
		kill()
		panic(http.ErrAbortHandler)
	}
	ctx := r.Context()
	out, err := http.NewRequestWithContext(ctx, r.Method, "http://"+p.region+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	out.Header, out.Host, out.ContentLength = r.Header.Clone(), r.Host, int64(len(body)) // the host is signed
	out.Header.Del("Transfer-Encoding")
	res, err := p.client.Do(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if name == "SendCommand" && res.StatusCode == http.StatusOK {
		p.mu.Lock()
		p.commands[comment(body)]++
		p.mu.Unlock()
	}
	if die == after {
		kill()
	}
	if err != nil || die != "" {
		panic(http.ErrAbortHandler)
	}
	for k, v := range res.Header {
		w.Header()[k] = v
	}
	w.WriteHeader(res.StatusCode)
	_, _ = w.Write(answer)
}

// comment is that of a Run Command call: with it the driver finds it again.
func comment(body []byte) string {
	_, rest, _ := strings.Cut(string(body), `"Comment":"`)
	c, _, _ := strings.Cut(rest, `"`)
	return c
}
