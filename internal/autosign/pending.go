package autosign

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/puppet"
)

// stale is how old a request is that nobody waits for any more: agents give up
// after minutes, and one that still runs asks again.
const stale = time.Hour

// pending are the requests of names that only Dayfly's machines have, that were
// refused and that nobody waits for. One that was granted, or whose certificate
// is there, is not among them: what is deleted takes the certificate along.
func (c Cleaner) pending() ([]string, error) {
	if c.CADir == "" {
		return nil, nil
	}
	files, err := os.ReadDir(filepath.Join(c.CADir, "requests"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("the CA's pending requests cannot be read: %w", err)
	}
	granted, err := c.Ledger.entries()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, f := range files {
		name, ok := strings.CutSuffix(f.Name(), ".pem")
		if !ok || !(puppet.CertnameForm.MatchString(name) || puppet.NodeForm.MatchString(name)) {
			continue
		}
		if slices.ContainsFunc(granted, func(e Entry) bool { return e.Certname == name && e.Cleaned.IsZero() }) {
			continue
		}
		_, err := os.Stat(filepath.Join(c.CADir, "signed", f.Name()))
		if !errors.Is(err, fs.ErrNotExist) { // there, or nobody knows
			continue
		}
		if i, err := f.Info(); err == nil && c.Now().Sub(i.ModTime()) >= stale {
			names = append(names, name)
		}
	}
	return names, nil
}

// discard removes pending requests. A name that the CA does not know any more
// was removed before.
func (c Cleaner) discard(ctx context.Context, names []string) (done []string, err error) {
	for _, n := range names {
		err := c.send(ctx, "remove the request of "+n+" from the CA", http.MethodDelete, strings.TrimSuffix(c.CA, "/")+"/puppet-ca/v1/certificate_status/"+n, nil, http.StatusNotFound)
		if err != nil {
			return done, err
		}
		done = append(done, n)
	}
	return done, nil
}

// Plan is what Clean would do: the certificates of machines that are gone, and
// the requests that were refused and that nobody waits for.
func (c Cleaner) Plan(ctx context.Context) (certificates, requests []string, err error) {
	es, err := c.ended(ctx)
	for _, e := range es {
		certificates = append(certificates, e.Certname)
	}
	requests, err2 := c.pending()
	return certificates, requests, errors.Join(err, err2)
}

// Requests removes the requests of Plan and returns the names.
func (c Cleaner) Requests(ctx context.Context) ([]string, error) {
	names, err := c.pending()
	if err != nil {
		return nil, err
	}
	return c.discard(ctx, names)
}
