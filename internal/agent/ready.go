package agent

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"
)

// crashLimit is after how many ends of a service that never became ready the
// agent gives up, long before the deadline.
const crashLimit = 5

// ready waits until the service answers, or, where nothing is to be asked, until
// it runs. Its error says what was answered last. s is nil where the deploy
// script started what serves.
func (a *Agent) ready(ctx context.Context, address string, s *service) error {
	trouble := func() (int, string) { return 0, "" }
	if s != nil {
		trouble = s.trouble
	}
	if address == "" {
		for s != nil && !s.up() {
			if n, how := trouble(); n >= crashLimit || ctx.Err() != nil {
				return fmt.Errorf("the service does not run: it %s, %d times", how, n)
			}
			time.Sleep(5 * time.Millisecond)
		}
		return nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Port() == "" || (u.Scheme != "http" && u.Scheme != "tcp") {
		return fmt.Errorf("handoff.ready %q is neither http://:PORT/PATH nor tcp://:PORT", address)
	}
	u.Host = net.JoinHostPort("127.0.0.1", u.Port())
	client := &http.Client{
		Timeout:       5 * time.Second,
		Transport:     &http.Transport{DisableKeepAlives: true, ReadBufferSize: 1 << 10, WriteBufferSize: 1 << 10},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	began := time.Now()
	for pause := 15 * time.Millisecond; ; {
		last := probe(ctx, client, u)
		if last == nil {
			return nil
		}
		if n, how := trouble(); n >= crashLimit {
			return fmt.Errorf("the service %s, %d times, and was never ready (%s: %v)", how, n, address, last)
		}
		select {
		case <-ctx.Done():
			if n, how := trouble(); n > 0 {
				return fmt.Errorf("the service was not ready before the deadline; it %s, %d times (%s: %v)", how, n, address, last)
			}
			return fmt.Errorf("nothing was ready before the deadline (%s: %v)", address, last)
		case <-time.After(pause):
		}
		if pause = 50 * time.Millisecond; time.Since(began) > 10*time.Second {
			pause = 500 * time.Millisecond
		}
	}
}

func probe(ctx context.Context, client *http.Client, u *url.URL) error {
	if u.Scheme == "tcp" {
		c, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", u.Host)
		if err == nil {
			c.Close()
		}
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	res.Body.Close()
	if res.StatusCode < 200 || res.StatusCode > 399 {
		return fmt.Errorf("HTTP status %s", res.Status)
	}
	return nil
}
