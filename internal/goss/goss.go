// Package goss runs goss files (github.com/goss-org/goss, version 0.4.9) on the
// machine that it is on. It must not know images or how it came to the machine.
package goss

import (
	"fmt"
	"io"

	"github.com/goss-org/goss"
	"github.com/goss-org/goss/util"
)

// Run checks one goss file and writes the failures and the count to w. It tells
// whether all passed; an error says that the file could not be run.
func Run(file string, w io.Writer) (passed bool, err error) {
	defer func() {
		if p := recover(); p != nil { // the library panics on some files
			passed, err = false, fmt.Errorf("%s: %v", file, p)
		}
	}()
	c, err := util.NewConfig(
		util.WithSpecFile(file), util.WithOutputFormat("rspecish"), util.WithResultWriter(w), util.WithNoColor(),
		util.WithMaxConcurrency(4),
	)
	if err != nil {
		return false, err
	}
	code, err := goss.Validate(c)
	return code == 0 && err == nil, err
}
