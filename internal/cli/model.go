package cli

import "github.com/alecthomas/kong"

// Model is the command line as data, from which its reference is generated.
// The defaults are those of root.
func Model() (*kong.Application, error) {
	k, err := kong.New(&root{}, kong.Name("dayfly"), kong.Vars{"state": "/var/lib/dayfly", "region": "/var/lib/dayfly-region"})
	if err != nil {
		return nil, err
	}
	return k.Model, nil
}
