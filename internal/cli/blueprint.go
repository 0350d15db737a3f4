package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/server"
)

type initCmd struct {
	Dir string `arg:"" help:"Folder to make."`
}

func (c *initCmd) Run(a *app) error {
	abs, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	if err := blueprint.Scaffold(abs, filepath.Base(abs)); err != nil {
		return err
	}
	return a.print(map[string]string{"dir": abs}, func(w io.Writer) {
		fmt.Fprintf(w, "made %s\nnext: dayfly check %s, then dayfly deploy %s dev\n", abs, c.Dir, c.Dir)
	})
}

type checkCmd struct {
	Dir string `arg:"" default:"." help:"The blueprint's folder."`
}

func (c *checkCmd) Run(a *app) error {
	if err := folder(c.Dir); err != nil {
		return err
	}
	ps := blueprint.Check(os.DirFS(c.Dir))
	if ps == nil {
		ps = []blueprint.Problem{} // an empty list in JSON
	}
	bad := 0
	for _, p := range ps {
		if !p.Warning {
			bad++
		}
	}
	if err := a.print(map[string]any{"problems": ps, "ok": bad == 0}, func(w io.Writer) {
		for _, p := range ps {
			fmt.Fprintln(w, in(c.Dir, p))
		}
		if bad == 0 {
			fmt.Fprintf(w, "%s is fine\n", c.Dir)
		}
	}); err != nil {
		return err
	}
	if bad > 0 {
		return &fault.Error{Kind: fault.Invalid, Object: c.Dir, Message: fmt.Sprintf("%d problems", bad)}
	}
	return nil
}

// in is a problem as it is printed: its file as it is reached from here.
func in(dir string, p blueprint.Problem) blueprint.Problem {
	p.File = filepath.Join(dir, p.File)
	return p
}

func folder(dir string) error {
	st, err := os.Stat(dir)
	if err != nil || !st.IsDir() {
		return &fault.Error{Kind: fault.Invalid, Op: "read the blueprint", Object: dir, Message: "there is no such folder", Hint: "dayfly init DIR makes one"}
	}
	return nil
}

// send checks the blueprint and sends it to the server.
func (a *app) send(ctx context.Context, dir string) (server.Blueprint, error) {
	var got server.Blueprint
	if err := folder(dir); err != nil {
		return got, err
	}
	fsys := os.DirFS(dir)
	bad := 0
	for _, p := range blueprint.Check(fsys) {
		fmt.Fprintln(a.err, in(dir, p))
		if !p.Warning {
			bad++
		}
	}
	if bad > 0 {
		return got, &fault.Error{Kind: fault.Invalid, Object: dir, Message: fmt.Sprintf("the blueprint has %d problems; nothing was started", bad)}
	}
	var buf bytes.Buffer
	if _, err := blueprint.Pack(fsys, &buf); err != nil {
		return got, err
	}
	err := a.client.Post(ctx, "/v1/blueprints", nil, io.Reader(&buf), &got)
	return got, err
}
