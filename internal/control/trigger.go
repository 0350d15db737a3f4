package control

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/access"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/hook"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/server"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// SetTrigger implements server.Triggers.
func (c *Control) SetTrigger(ctx context.Context, name string, s server.SetTrigger) (pipeline.Trigger, error) {
	var zero pipeline.Trigger
	bad := func(message, hint string) (pipeline.Trigger, error) {
		return zero, &fault.Error{Kind: fault.Invalid, Op: "set the trigger", Object: name, Message: message, Hint: hint}
	}
	b, _, err := c.files.Blueprint(ctx, s.Files)
	if err != nil {
		return zero, err
	}
	t := pipeline.Trigger{
		Name: name, Blueprint: b.Name, Files: s.Files, Every: time.Duration(s.Seconds) * time.Second, Cron: s.Cron, Hook: s.Hook, Secret: s.Secret, Repo: s.Repo, Branch: s.Branch,
		By: access.Of(ctx).Name, Created: c.clock.Now(),
	}
	if s.StatusForge != "" {
		t.Status = &pipeline.Status{Forge: s.StatusForge, API: strings.TrimSuffix(s.StatusAPI, "/"), Token: s.StatusToken}
		if t.Status.API == "" {
			t.Status.API = map[string]string{"github": "https://api.github.com", "gitlab": "https://gitlab.com/api/v4"}[s.StatusForge]
		}
		if u, err := url.Parse(t.Status.API); err != nil || u.Host == "" || u.User != nil || (u.Scheme != "https" && u.Scheme != "http") {
			return bad("the forge's API must be an http:// or https:// address", "")
		}
	}
	if _, _, err := stages(b, server.Test{Full: true}); err != nil {
		return zero, err
	}
	if err := c.measures(b); err != nil {
		return zero, err
	}
	switch {
	case t.Every == 0 && t.Cron == "" && t.Hook == "":
		return bad("it would never go off", "--every 24h, --cron \"0 3 * * *\" or --hook github")
	case t.Every > 0 && t.Cron != "":
		return bad("a schedule is either every so often or a cron line", "")
	case t.Every > 0 && t.Every < time.Minute:
		return bad("a run every "+t.Every.String()+" is more often than every minute", "")
	case (t.Hook == "") != (t.Secret == ""):
		return bad("a hook needs a secret, and a secret a hook", "put the secret into "+filepath.Join(c.cfg.Dir, "secrets", "NAME")+", mode 0600")
	}
	if _, err := t.Due(t.Created); err != nil {
		return bad(err.Error(), "")
	}
	for _, secret := range []string{t.Secret, s.StatusToken} {
		if secret == "" {
			continue
		}
		if _, err := c.secret(secret); err != nil {
			return zero, err
		}
	}
	err = c.store.Apply(ctx, store.NoEpoch, store.Put(pipeline.TriggerKind, name, store.Any, t))
	return t, err
}

// DeleteTrigger implements server.Triggers.
func (c *Control) DeleteTrigger(ctx context.Context, name string) error {
	if _, err := c.trigger(ctx, name); err != nil {
		return err
	}
	return c.store.Apply(ctx, store.NoEpoch, store.Delete(pipeline.TriggerKind, name, store.Any))
}

func (c *Control) trigger(ctx context.Context, name string) (pipeline.Trigger, error) {
	t, _, err := known[pipeline.Trigger](ctx, c, pipeline.TriggerKind, name, "dayfly trigger list")
	return t, err
}

// Start implements trigger.Starter.
func (c *Control) Start(ctx context.Context, t pipeline.Trigger, cause pipeline.Cause, with func(run string) []store.Write) (string, error) {
	r, err := c.startRun(ctx, server.Test{Files: t.Files, Full: true}, "trigger/"+t.Name, &started{cause: cause, status: t.Status, with: with})
	return r.Name, err
}

// Hook implements server.Triggers: a delivery of a forge. It starts a run, or
// says why it does not.
func (c *Control) Hook(ctx context.Context, name string, h http.Header, body []byte, signed func() error) (server.Hooked, error) {
	unknown := &hook.Error{Status: http.StatusUnauthorized, Why: "there is no such trigger, or the signature is not its own"}
	t, err := c.trigger(ctx, name)
	if fault.KindOf(err) == fault.NotFound || (err == nil && t.Hook == "") {
		return server.Hooked{}, unknown
	}
	if err != nil {
		return server.Hooked{}, err
	}
	secret, err := c.secret(t.Secret)
	if err != nil {
		return server.Hooked{}, err
	}
	now := c.clock.Now()
	e, err := hook.Read(hook.Kind(t.Hook), []byte(secret), h, body, now)
	if refused, ok := errors.AsType[*hook.Error](err); ok && refused.Status == http.StatusUnauthorized {
		c.cfg.Log.WarnContext(ctx, "a hook was refused", "trigger", name, "why", refused.Why)
		return server.Hooked{}, unknown // not which of the two
	}
	if err != nil {
		return server.Hooked{}, err
	}
	if err := signed(); err != nil {
		return server.Hooked{}, err
	}
	switch {
	case !e.Push:
		return server.Hooked{Why: "this event starts nothing: " + e.What}, nil
	case t.Repo != "" && !strings.EqualFold(t.Repo, e.Repo):
		return server.Hooked{Why: "the trigger is for the repository " + t.Repo}, nil
	case t.Branch != "" && t.Branch != e.Branch():
		return server.Hooked{Why: "the trigger is for the branch " + t.Branch}, nil
	}
	id := fmt.Sprintf("%s/%x", name, sha256.Sum256([]byte(e.Delivery)))
	if d, _, err := store.Get[pipeline.Delivery](ctx, c.store, pipeline.DeliveryKind, id); err == nil {
		return server.Hooked{}, &hook.Error{Status: http.StatusConflict, Why: "this delivery was taken before: it started " + d.Run}
	} else if !errors.Is(err, store.ErrNotFound) {
		return server.Hooked{}, err
	}
	cause := pipeline.Cause{Kind: t.Hook, Trigger: name, Delivery: e.Delivery, Repo: e.Repo, Ref: e.Ref, Commit: e.Commit}
	run, err := c.Start(ctx, t, cause, func(run string) []store.Write {
		// In one batch with the run: a delivery starts one, or none.
		return []store.Write{store.Put(pipeline.DeliveryKind, id, 0, pipeline.Delivery{At: now, Run: run})}
	})
	if errors.Is(err, store.ErrConflict) || fault.KindOf(err) == fault.Conflict {
		if d, _, seen := store.Get[pipeline.Delivery](ctx, c.store, pipeline.DeliveryKind, id); seen == nil {
			return server.Hooked{}, &hook.Error{Status: http.StatusConflict, Why: "this delivery was taken before: it started " + d.Run}
		}
	}
	return server.Hooked{Run: run}, err
}

// maxSecret is the largest file of a secret.
const maxSecret = 4 << 10

// secret reads a file of the folder secrets, which nobody else may read. It is
// read when it is needed, so that a new one needs no restart.
func (c *Control) secret(name string) (string, error) {
	path := filepath.Join(c.cfg.Dir, "secrets", name)
	bad := func(message string, err error) (string, error) {
		return "", &fault.Error{Kind: fault.Invalid, Op: "read the secret", Object: path, Message: message, Hint: "mkdir -m 700 " + filepath.Dir(path) + "; then write the file with mode 0600", Err: err}
	}
	if name != filepath.Base(name) || strings.HasPrefix(name, ".") {
		return bad("this is no plain name", nil)
	}
	st, err := os.Lstat(path)
	switch {
	case err != nil:
		return bad("it cannot be read", errors.Unwrap(err))
	case !st.Mode().IsRegular():
		return bad("it is no plain file", nil)
	case st.Mode().Perm()&0o077 != 0:
		return bad(fmt.Sprintf("its mode is %04o: others may read it", st.Mode().Perm()), nil)
	case st.Size() > maxSecret:
		return bad(fmt.Sprintf("it has more than %d bytes", maxSecret), nil)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return bad("it cannot be read", errors.Unwrap(err))
	}
	s := strings.TrimSpace(string(raw))
	if s == "" || strings.ContainsAny(s, "\n\r\x00") {
		return bad("it must have one line", nil)
	}
	return s, nil
}

// Notify implements notify.Sender.
func (c *Control) Notify(ctx context.Context, n pipeline.Notice, r pipeline.Run) error {
	to, err := c.secret(n.To)
	if err != nil {
		return err
	}
	var body any = map[string]any{"event": n.Event, "text": n.Text, "run": r}
	if n.Format == "slack" {
		body = map[string]string{"text": n.Text}
	}
	return c.send(ctx, "notify "+n.To, to, nil, body)
}

// statusName is what forges show the run as.
const statusName = "dayfly"

// SetStatus implements notify.Sender.
func (c *Control) SetStatus(ctx context.Context, r pipeline.Run) error {
	s := r.Status
	if s == nil || r.Cause == nil || r.Cause.Commit == "" {
		return nil
	}
	token, err := c.secret(s.Token)
	if err != nil {
		return err
	}
	github, gitlab, description := r.State()
	if runes := []rune(description); len(runes) > 140 { // GitHub's limit
		description = string(runes[:139]) + "…"
	}
	name := statusName + "/" + r.Cause.Trigger
	if s.Forge == "gitlab" {
		return c.send(ctx, "set the commit's status", s.API+"/projects/"+url.PathEscape(r.Cause.Repo)+"/statuses/"+r.Cause.Commit,
			http.Header{"PRIVATE-TOKEN": {token}}, map[string]string{"state": gitlab, "name": name, "description": description})
	}
	return c.send(ctx, "set the commit's status", s.API+"/repos/"+r.Cause.Repo+"/statuses/"+r.Cause.Commit,
		http.Header{"Authorization": {"Bearer " + token}, "Accept": {"application/vnd.github+json"}, "X-GitHub-Api-Version": {"2022-11-28"}},
		map[string]string{"state": github, "context": name, "description": description})
}

// send posts JSON where it is told, and follows nobody from there. Its errors
// have no path, which may be a secret.
func (c *Control) send(ctx context.Context, op, to string, h http.Header, body any) error {
	raw, err := json.Marshal(body)
	if err != nil {
		return err
	}
	u, err := url.Parse(to)
	if err != nil || u.Host == "" || (u.Scheme != "https" && u.Scheme != "http") {
		return &fault.Error{Kind: fault.Invalid, Op: op, Message: "the secret holds no http:// or https:// address"}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to, bytes.NewReader(raw))
	if err != nil {
		return &fault.Error{Kind: fault.Invalid, Op: op, Message: "the secret holds no address"}
	}
	for k, v := range h {
		req.Header[k] = v
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "dayfly")
	client := c.cfg.asks()
	client.Timeout, client.CheckRedirect = 10*time.Second, func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	defer client.CloseIdleConnections()
	res, err := client.Do(req)
	if fault.KindOf(err) == fault.Denied {
		return &fault.Error{Kind: fault.Denied, Op: op, Message: "the server may not ask this address", Hint: fault.HintOf(err), Err: errors.Unwrap(err)}
	}
	if err != nil {
		why := err
		if e, ok := errors.AsType[*url.Error](err); ok {
			why = e.Err // without the address
		}
		return &fault.Error{Kind: fault.Unavailable, Op: op, Message: "it does not answer: " + why.Error()}
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, 64<<10))
	switch {
	case res.StatusCode/100 == 2:
		return nil
	case res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests || res.StatusCode == http.StatusRequestTimeout:
		return &fault.Error{Kind: fault.Unavailable, Op: op, Message: "it answers " + res.Status}
	}
	return &fault.Error{Kind: fault.Failed, Op: op, Message: "it answers " + cmp.Or(res.Status, fmt.Sprint(res.StatusCode))}
}

// forgotten is for how long a delivery is known: forges give no time that
// could be checked.
const forgotten = 366 * 24 * time.Hour

// tidyDeliveries forgets deliveries that are very old.
func (c *Control) tidyDeliveries(ctx context.Context) error {
	rs, err := c.store.List(ctx, pipeline.DeliveryKind, "")
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range rs {
		if c.clock.Now().Sub(r.Updated) > forgotten {
			errs = append(errs, c.store.Apply(ctx, store.NoEpoch, store.Delete(pipeline.DeliveryKind, r.Name, r.Version)))
		}
	}
	return errors.Join(errs...)
}
