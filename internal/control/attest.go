package control

import (
	"context"

	"github.com/dayfly-infra/dayfly/internal/attest"
	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Attestation says who signs statements about images, and whose are believed.
type Attestation struct {
	Key     string // file of the private key; "" = nothing is signed
	Trusted string // file of public keys beside it
	Require bool   // launch and promote no image without a statement
}

// read gives the key, and the trusted ones where a statement is required.
func (a Attestation) read() (key *attest.Key, trusted attest.Trusted, err error) {
	if a.Key != "" {
		if key, err = attest.ReadKey(a.Key); err != nil {
			return nil, nil, err
		}
		trusted = key.Trusted()
	}
	if a.Trusted != "" {
		more, err := attest.ReadTrusted(a.Trusted)
		if err != nil {
			return nil, nil, err
		}
		trusted = append(trusted, more...)
	}
	if !a.Require {
		return key, nil, nil
	}
	if len(trusted) == 0 {
		return nil, nil, &fault.Error{Kind: fault.Invalid, Op: "start the server", Message: "statements about images are required, and no key is trusted", Hint: "--signing-key or --trusted-keys says whose are"}
	}
	return key, trusted, nil
}

// Attestation implements server.Backend.
func (c *Control) Attestation(ctx context.Context, name string) ([]byte, error) {
	i, _, err := c.image(ctx, name)
	if err != nil {
		return nil, err
	}
	if i.Attestation == "" {
		return nil, &fault.Error{Kind: fault.NotFound, Op: "read the attestation", Object: "image " + name, Message: "there is none: no key was configured when it was made", Hint: "dayfly server start --signing-key FILE, dayfly images rm " + name + ", and bake again"}
	}
	return c.kept(ctx, i, i.Attestation, "attestation")
}

// Inventory implements server.Backend.
func (c *Control) Inventory(ctx context.Context, name string) ([]byte, error) {
	i, _, err := c.image(ctx, name)
	if err != nil {
		return nil, err
	}
	return c.kept(ctx, i, i.Inventory, "inventory")
}
