// Package examples holds the example's templates, which are also those that
// `dayfly init` writes: they exist once.
package examples

import "embed"

// Shop is the example's folder shop, its templates and deploy helpers only.
//
//go:embed shop/foundation.yaml shop/fleet.yaml shop/suites/junit.sh
var Shop embed.FS
