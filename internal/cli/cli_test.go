package cli

import (
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"dayfly": func() { os.Exit(Main("test", os.Args[1:])) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			e.Setenv("DAYFLY_STATE", e.WorkDir+"/state")
			e.Setenv("DAYFLY_REGION_DIR", e.WorkDir+"/region")
			return nil
		},
	})
}
