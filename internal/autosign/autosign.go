// Package autosign decides, on the company's Puppet CA, which certificate
// requests of machines are signed without a person: those of instances that
// Dayfly made, that run now, and that hold the one-time token whose hash is in
// their tag. It records every token that was used before it says yes, and
// cleans the certificates of machines that are gone. It shares no secret with
// Dayfly; it must not know stores, blueprints or how a bake goes.
package autosign

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/puppet"
)

// Machine is an instance as the cloud knows it.
type Machine struct {
	ID    string
	State string // pending, running, stopping, stopped, shutting-down, terminated
	Tags  map[string]string
}

// Cloud tells about instances; those that it does not know are left out.
type Cloud interface {
	Machines(ctx context.Context, ids []string) (map[string]Machine, error)
	// Who tells which instance of this account made a proof for a name.
	Who(ctx context.Context, p handoff.Proof, certname string) (instance string, err error)
}

// The tags that Dayfly puts on what it makes.
const (
	tagOwner  = "dayfly:owner"
	tagObject = "dayfly:object"
)

// Judge decides about requests.
type Judge struct {
	Owner  string // installation whose machines may have certificates
	CADir  string // the CA's folder, with signed/
	Ledger Ledger
	Cloud  Cloud
	Now    func() time.Time
	Pause  time.Duration // between looks at an instance that is on its way
}

// Decide returns nil when the request may be signed; its token is used then,
// for ever. Every other answer leaves no trace.
func (j Judge) Decide(ctx context.Context, certname string, csr []byte) error {
	r, err := Parse(certname, csr)
	if err != nil {
		return err
	}
	if err := j.settle(ctx, r.Instance); err != nil {
		return err
	}
	unlock, err := j.Ledger.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if err := j.absent(certname); err != nil {
		return err
	}
	entries, err := j.Ledger.entries()
	if err != nil {
		return err
	}
	hash := puppet.HashToken(r.Token)
	for _, e := range entries {
		switch {
		case e.Token == hash:
			return fmt.Errorf("the token was used already, for %s at %s", e.Certname, e.Signed.UTC().Format(time.RFC3339))
		case e.Certname == certname && e.Cleaned.IsZero():
			return fmt.Errorf("a certificate for %s was granted already, at %s", certname, e.Signed.UTC().Format(time.RFC3339))
		}
	}
	if err := j.entitled(ctx, r, hash); err != nil {
		return err
	}
	return j.Ledger.add(Entry{Token: hash, Certname: certname, Instance: r.Instance, Role: r.Role, Image: r.Image, Key: r.Key, Signed: j.Now().UTC()})
}

// settle waits a little for what will be otherwise in a moment, an instance that
// is pending, or not known everywhere yet: a Puppet server takes one request
// for each name, so that a refusal is for good.
func (j Judge) settle(ctx context.Context, instance string) error {
	for try := range 5 {
		ms, err := j.Cloud.Machines(ctx, []string{instance})
		if err != nil {
			return fmt.Errorf("the cloud cannot be asked about %s: %w", instance, err)
		}
		if m, ok := ms[instance]; ok && m.State != "pending" || !ok && try > 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(j.Pause):
		}
	}
	return nil
}

// entitled compares the request with what the cloud says of the instance.
func (j Judge) entitled(ctx context.Context, r Request, hash string) error {
	if j.Owner == "" {
		return errors.New("it is not known whose machines may have certificates: owner is not set and this machine has no tag " + tagOwner)
	}
	ms, err := j.Cloud.Machines(ctx, []string{r.Instance})
	if err != nil {
		return fmt.Errorf("the cloud cannot be asked about %s: %w", r.Instance, err)
	}
	m, ok := ms[r.Instance]
	switch {
	case !ok:
		return fmt.Errorf("there is no instance %s", r.Instance)
	case m.Tags[tagOwner] != j.Owner:
		return fmt.Errorf("the instance %s is not of this installation: its tag %s is %q", r.Instance, tagOwner, m.Tags[tagOwner])
	case m.Tags[tagObject] == "":
		return fmt.Errorf("the instance %s has no tag %s: no record stands behind it", r.Instance, tagObject)
	case m.State != "running":
		return fmt.Errorf("the instance %s is %s, not running", r.Instance, m.State)
	}
	if r.Proof != (handoff.Proof{}) {
		return j.node(ctx, r, m)
	}
	c, err := puppet.ParseClaim(m.Tags[puppet.ClaimTag])
	switch {
	case err != nil:
		return fmt.Errorf("the instance %s may not have a certificate: %w", r.Instance, err)
	case c.Certname != r.Certname:
		return fmt.Errorf("the instance %s may have a certificate for %s, not for %s", r.Instance, c.Certname, r.Certname)
	case subtle.ConstantTimeCompare([]byte(c.Token), []byte(hash)) != 1:
		return errors.New("the token in challengePassword is not the one that the instance was made with")
	case c.Role != r.Role:
		return fmt.Errorf("the instance %s was made with the role %s, and asks for pp_role %s", r.Instance, c.Role, r.Role)
	case r.Environment != "" && c.Environment != r.Environment:
		return fmt.Errorf("the instance %s was made for the environment %s, and asks for pp_environment %s", r.Instance, c.Environment, r.Environment)
	}
	return nil
}

// node compares the request of a fleet's instance with the claim of its fleet,
// and with what STS says of the proof.
func (j Judge) node(ctx context.Context, r Request, m Machine) error {
	c, err := puppet.ParseNodeClaim(m.Tags[puppet.ClaimTag])
	switch {
	case err != nil:
		return fmt.Errorf("the instance %s may not have a certificate: %w", r.Instance, err)
	case c.Certname(r.Instance) != r.Certname:
		return fmt.Errorf("the instance %s may have a certificate for %s, not for %s", r.Instance, c.Certname(r.Instance), r.Certname)
	case c.Role != r.Role:
		return fmt.Errorf("the instance %s is of a fleet with the role %s, and asks for pp_role %s", r.Instance, c.Role, r.Role)
	case r.Environment != "" && c.Environment != r.Environment:
		return fmt.Errorf("the instance %s is of a fleet for the environment %s, and asks for pp_environment %s", r.Instance, c.Environment, r.Environment)
	}
	who, err := j.Cloud.Who(ctx, r.Proof, r.Certname)
	switch {
	case err != nil:
		return fmt.Errorf("who asks in the name of %s is not proven: %w", r.Instance, err)
	case who != r.Instance:
		return fmt.Errorf("%s asks in the name of %s", who, r.Instance)
	}
	return nil
}

// absent looks whether the CA has a certificate of this name.
func (j Judge) absent(certname string) error {
	signed := filepath.Join(j.CADir, "signed")
	if st, err := os.Stat(signed); j.CADir == "" || err != nil || !st.IsDir() {
		return fmt.Errorf("the CA's folder of certificates %q cannot be read: set ca_dir in %s", signed, ConfigFile)
	}
	_, err := os.Lstat(filepath.Join(signed, certname+".pem"))
	switch {
	case err == nil:
		return fmt.Errorf("the CA has a certificate for %s already", certname)
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	return nil
}
