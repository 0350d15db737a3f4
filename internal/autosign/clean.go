package autosign

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Cleaner takes back what was granted to machines that are gone. It runs on the
// CA, with the CA's own certificate: nobody else needs the right to clean, and
// no machine can clean its neighbour's certificate.
type Cleaner struct {
	Ledger   Ledger
	Cloud    Cloud
	CA       string // https://localhost:8140
	CADir    string // its folder, with requests/ and signed/; "" = pending requests stay
	PuppetDB string // "" = none
	Client   *http.Client
	Now      func() time.Time
}

// unsure is how long an instance that the cloud does not know may be younger
// than its certificate: reads may be late.
const unsure = 5 * time.Minute

// Clean returns the certnames that it cleaned. What fails is tried again by the
// next run; cleaning twice changes nothing.
func (c Cleaner) Clean(ctx context.Context) ([]string, error) {
	es, err := c.ended(ctx)
	if err != nil || len(es) == 0 {
		return nil, errors.Join(err, c.prune())
	}
	var names []string
	for _, e := range es {
		names = append(names, e.Certname)
	}
	if err := c.revoke(ctx, names); err != nil {
		return nil, err
	}
	for _, e := range es {
		if err := c.deactivate(ctx, e.Certname); err != nil {
			return nil, err
		}
	}
	unlock, err := c.Ledger.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	for _, e := range es {
		e.Cleaned = c.Now().UTC()
		if err := c.Ledger.set(e); err != nil {
			return nil, err
		}
	}
	return names, c.Ledger.prune(c.Now())
}

func (c Cleaner) prune() error {
	unlock, err := c.Ledger.lock()
	if err != nil {
		return err
	}
	defer unlock()
	return c.Ledger.prune(c.Now())
}

// ended are the entries whose machines are gone for good: the cloud was asked
// and answered. A builder that was stopped is over as well; it never runs again.
func (c Cleaner) ended(ctx context.Context) ([]Entry, error) {
	all, err := c.Ledger.entries()
	if err != nil {
		return nil, err
	}
	var open []Entry
	var ids []string
	for _, e := range all {
		if e.Cleaned.IsZero() {
			open, ids = append(open, e), append(ids, e.Instance)
		}
	}
	if len(open) == 0 {
		return nil, nil
	}
	ms, err := c.Cloud.Machines(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("the cloud cannot be asked which machines are gone: %w", err)
	}
	var out []Entry
	for _, e := range open {
		m, known := ms[e.Instance]
		switch {
		case !known && c.Now().Sub(e.Signed) < unsure:
		case known && (m.State == "pending" || m.State == "running"):
		default:
			out = append(out, e)
		}
	}
	return out, nil
}

func (c Cleaner) revoke(ctx context.Context, names []string) error {
	return c.send(ctx, "clean certificates on the CA", http.MethodPut, strings.TrimSuffix(c.CA, "/")+"/puppet-ca/v1/clean", map[string]any{"certnames": names})
}

// deactivate tells PuppetDB that a node is gone: its command API, version 3.
func (c Cleaner) deactivate(ctx context.Context, certname string) error {
	if c.PuppetDB == "" {
		return nil
	}
	q := url.Values{"command": {"deactivate_node"}, "version": {"3"}, "certname": {certname}}
	return c.send(ctx, "deactivate "+certname+" in PuppetDB", http.MethodPost, strings.TrimSuffix(c.PuppetDB, "/")+"/pdb/cmd/v1?"+q.Encode(),
		map[string]any{"certname": certname, "producer_timestamp": c.Now().UTC().Format(time.RFC3339Nano)})
}

func (c Cleaner) send(ctx context.Context, what, method, address string, v any, also ...int) error {
	var body []byte
	if v != nil {
		var err error
		if body, err = json.Marshal(v); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/plain")
	res, err := c.Client.Do(req)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer res.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if res.StatusCode/100 != 2 && !slices.Contains(also, res.StatusCode) {
		return fmt.Errorf("%s: %s: %s", what, res.Status, strings.TrimSpace(string(said)))
	}
	return nil
}
