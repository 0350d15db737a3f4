package bake

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/blueprint"
	"github.com/dayfly-infra/dayfly/internal/handoff"
	"github.com/dayfly-infra/dayfly/internal/puppet"
	"github.com/dayfly-infra/dayfly/internal/seal"
	"github.com/dayfly-infra/dayfly/internal/verify"
)

// version is part of the inputs digest: raise it when this package changes what
// an image holds.
const version = 2

// arch of the images that are made.
const arch = "amd64"

// digest is the identity of what a bake would make: base, code, deploy folder,
// checks, settings, agent, versions.
func digest(b *blueprint.Blueprint, files fs.FS, base, environment string, agent, probe []byte) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "bake %d seal %s arch %s base %q blueprint %q\n", version, seal.Version, arch, base, b.Name)
	fmt.Fprintf(h, "agent %x probe %x allow %q\n", sha256.Sum256(agent), sha256.Sum256(probe), b.Image.SecretsAllow)
	settings, err := json.Marshal(settings(b, "", ""))
	if err != nil {
		return "", err
	}
	fmt.Fprintf(h, "settings %s\npuppet %s %s\n", settings, b.Image.Puppet.Environment, b.Image.Puppet.Role)
	run := puppet.Run{}
	if p := b.Image.Puppet; p.Server != "" {
		// How the server is reached, p.Address, changes no image.
		fmt.Fprintf(h, "server %s ca %s version %q\n", p.Server, p.Fingerprint, environment)
		run.Server = &puppet.Server{}
	}
	scripts := []string{puppet.Bootstrap(), run.Script(), seal.Script(), verify.Plan{}.Script(), unit, runit, fetch, builderTemplate}
	module := puppet.Module()
	for _, name := range slices.Sorted(maps.Keys(module)) {
		scripts = append(scripts, name, string(module[name]))
	}
	for _, s := range scripts {
		fmt.Fprintf(h, "script %x\n", sha256.Sum256([]byte(s)))
	}
	for _, part := range parts(b) {
		if err := each(files, part[1], func(p string, mode fs.FileMode, body []byte) error {
			fmt.Fprintf(h, "%s %q %o %x\n", part[0], p, mode, sha256.Sum256(body))
			return nil
		}); err != nil {
			return "", err
		}
	}
	for _, v := range b.Image.Verify {
		body, err := fs.ReadFile(files, path.Clean(v))
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "check %q %x\n", v, sha256.Sum256(body))
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

// parts are the blueprint's folders that a builder gets, by what they are for.
func parts(b *blueprint.Blueprint) [][2]string {
	return [][2]string{{"puppet", b.Image.Puppet.Code}, {"deploy", path.Dir(b.Handoff.Run)}}
}

// settings is what Puppet's last stage arms.
func settings(b *blueprint.Blueprint, image, inputs string) handoff.Config {
	var first *handoff.Puppet
	if p := b.Image.Puppet; b.Image.Boot == "puppet" {
		first = &handoff.Puppet{Address: p.Address, Fingerprint: p.Fingerprint, Environment: p.Environment, Role: p.Role}
		first.Server, first.Port = p.ServerHost()
	}
	return handoff.Config{
		Puppet: first, Image: image, Inputs: inputs, Role: b.Image.Role,
		Run:     path.Join(handoff.ScriptDir, path.Base(b.Handoff.Run)),
		Service: b.Handoff.Service, User: b.Handoff.User, Ready: b.Handoff.Ready, Deadline: b.Handoff.Deadline,
	}
}

// each calls f for every file below root, in order, with paths relative to it.
func each(files fs.FS, root string, f func(p string, mode fs.FileMode, body []byte) error) error {
	if root == "" {
		return nil // a Puppet server has the code
	}
	root = path.Clean(strings.TrimSuffix(root, "/"))
	return fs.WalkDir(files, root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		st, err := d.Info()
		if err != nil {
			return err
		}
		mode := fs.FileMode(0o644)
		if st.Mode()&0o111 != 0 {
			mode = 0o755
		}
		body, err := fs.ReadFile(files, p)
		if err != nil {
			return err
		}
		if root != "." {
			p = strings.TrimPrefix(p, root+"/")
		}
		return f(p, mode, body)
	})
}

// pack makes the archive that the builder fetches, and the instances on which
// the checks run.
func pack(b *blueprint.Blueprint, files fs.FS, image, inputs string, agent []byte) ([]byte, error) {
	var buf bytes.Buffer
	t := tar.NewWriter(&buf)
	add := func(name string, mode fs.FileMode, body []byte) error {
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(mode), Size: int64(len(body)), ModTime: time.Unix(0, 0), Format: tar.FormatPAX}); err != nil {
			return err
		}
		_, err := t.Write(body)
		return err
	}
	set, err := json.MarshalIndent(settings(b, image, inputs), "", "  ")
	if err != nil {
		return nil, err
	}
	own := map[string][]byte{"dayfly/handoff.json": append(set, '\n'), "dayfly/dayfly-agent.service": []byte(unit), "dayfly/run": []byte(runit)}
	for name, body := range puppet.Module() {
		own["modules/"+name] = body
	}
	for _, name := range slices.Sorted(maps.Keys(own)) {
		if err := add(name, 0o644, own[name]); err != nil {
			return nil, err
		}
	}
	if err := add("dayfly/dayfly-agent", 0o755, agent); err != nil {
		return nil, err
	}
	for _, part := range parts(b) {
		if err := each(files, part[1], func(p string, mode fs.FileMode, body []byte) error { return add(part[0]+"/"+p, mode, body) }); err != nil {
			return nil, err
		}
	}
	for _, v := range b.Image.Verify {
		body, err := fs.ReadFile(files, path.Clean(v))
		if err != nil {
			return nil, err
		}
		if err := add("verify/"+path.Clean(v), 0o755, body); err != nil {
			return nil, err
		}
	}
	if err := t.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}
