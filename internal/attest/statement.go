// Package attest says how an image was made, signed, so that others can believe
// it without asking the server that made it: an in-toto statement with SLSA
// provenance in a DSSE envelope. It must not know where statements, images or
// keys of the cloud are kept.
package attest

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/image"
)

// Types of what is signed: in-toto attestation framework 1.0 and SLSA 1.0.
const (
	PayloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://slsa.dev/provenance/v1"
	buildType     = "https://github.com/dayfly-infra/dayfly/bake/v1"
)

// Limit of an envelope, in bytes.
const Limit = 1 << 20

// Statement is the part of an in-toto statement that is used here.
type Statement struct {
	Type          string     `json:"_type"`
	Subject       []Resource `json:"subject"`
	PredicateType string     `json:"predicateType"`
	Predicate     Provenance `json:"predicate"`
}

// Resource is something with a digest.
type Resource struct {
	Name   string            `json:"name,omitempty"`
	URI    string            `json:"uri,omitempty"`
	Digest map[string]string `json:"digest,omitempty"` // algorithm → hex
}

// Provenance is SLSA's predicate.
type Provenance struct {
	Build Build `json:"buildDefinition"`
	Run   Run   `json:"runDetails"`
}

// Build is what was to be made, from what.
type Build struct {
	BuildType    string            `json:"buildType"`
	External     map[string]string `json:"externalParameters"`
	Internal     map[string]string `json:"internalParameters,omitempty"`
	Dependencies []Resource        `json:"resolvedDependencies"`
}

// Run is one making.
type Run struct {
	Builder    Builder       `json:"builder"`
	Metadata   Metadata      `json:"metadata"`
	Byproducts []Resource    `json:"byproducts"`
	Checks     []image.Check `json:"dayfly_checks"` // what was proven on fresh instances
}

// Builder is who made it.
type Builder struct {
	ID string `json:"id"`
}

// Metadata is when.
type Metadata struct {
	Invocation string    `json:"invocationId"`
	Started    time.Time `json:"startedOn"`
	Finished   time.Time `json:"finishedOn"`
}

// Names of what lies beside an image.
const (
	Inventory = "inventory"
	SBOM      = "sbom"
	Report    = "puppet-report"
)

// Made is what a statement is about.
type Made struct {
	Image    image.Image
	Region   string
	Builder  string            // who signs, such as the owner of a server's things
	Files    string            // digest of the blueprint's files
	Started  time.Time         // of the bake
	Finished time.Time         // before anybody could launch it
	Beside   map[string]string // Inventory, SBOM, Report → sha256 in hex
}

// Describe is the statement about an image. An AMI has no digest of its own, so
// the subject has that of the inventory: what was found on a fresh instance.
func Describe(m Made) Statement {
	i := m.Image
	s := Statement{Type: statementType, PredicateType: predicateType,
		Subject: []Resource{{Name: subject(m.Region, i.AMI), Digest: map[string]string{"sha256": m.Beside[Inventory]}}},
		Predicate: Provenance{
			Build: Build{BuildType: buildType,
				External: map[string]string{"blueprint": i.Blueprint, "base": i.Base, "image": i.Name},
				Internal: map[string]string{"role": i.Role},
				Dependencies: []Resource{
					{Name: "inputs", Digest: digest(i.Inputs)},
					{Name: "blueprint", Digest: digest(m.Files)},
					{Name: "base", URI: subject(m.Region, i.Parent)},
				}},
			Run: Run{Builder: Builder{ID: "https://github.com/dayfly-infra/dayfly#" + m.Builder},
				Metadata: Metadata{Invocation: i.Bake, Started: m.Started.UTC(), Finished: m.Finished.UTC()}},
		}}
	if i.Resumed != "" || i.Tries > 0 || i.Hands > 0 {
		s.Predicate.Build.Internal["not_made_from_nothing"] = fmt.Sprintf("resumed from %q, %d tries, %d commands by people", i.Resumed, i.Tries, i.Hands)
	}
	for _, name := range []string{Inventory, SBOM, Report} {
		if d := m.Beside[name]; d != "" {
			s.Predicate.Run.Byproducts = append(s.Predicate.Run.Byproducts, Resource{Name: name, Digest: map[string]string{"sha256": d}})
		}
	}
	for _, c := range i.Checks { // their output may be long, and is in the record
		s.Predicate.Run.Checks = append(s.Predicate.Run.Checks, image.Check{Name: c.Name, On: c.On, Passed: c.Passed})
	}
	return s
}

func subject(region, ami string) string { return "ami:" + region + "/" + ami }

func digest(s string) map[string]string {
	if hex, ok := strings.CutPrefix(s, "sha256:"); ok {
		return map[string]string{"sha256": hex}
	}
	return nil
}

// About tells whether the statement is about an image; the error says what is
// not the image's.
func (s Statement) About(i image.Image, region string) error {
	inputs := map[string]string{}
	for _, d := range s.Predicate.Build.Dependencies {
		if d.Name == "inputs" {
			inputs = d.Digest
		}
	}
	switch {
	case s.Type != statementType || s.PredicateType != predicateType || s.Predicate.Build.BuildType != buildType:
		return fmt.Errorf("it is no statement of a bake, but %s with %s", s.Type, s.PredicateType)
	case len(s.Subject) != 1 || s.Subject[0].Name != subject(region, i.AMI):
		return fmt.Errorf("it is about %s, and the image is %s", names(s.Subject), subject(region, i.AMI))
	case s.Predicate.Build.External["image"] != i.Name:
		return fmt.Errorf("it is about the image %s", s.Predicate.Build.External["image"])
	case i.Inputs == "" || inputs["sha256"] != strings.TrimPrefix(i.Inputs, "sha256:"):
		return fmt.Errorf("it has other inputs (sha256:%s) than the image's record (%s)", inputs["sha256"], i.Inputs)
	}
	return nil
}

// Beside is the digest of what lies beside the image, in hex; "" where the
// statement has none.
func (s Statement) Beside(name string) string {
	for _, b := range s.Predicate.Run.Byproducts {
		if b.Name == name {
			return b.Digest["sha256"]
		}
	}
	return ""
}

func names(rs []Resource) string {
	var out []string
	for _, r := range rs {
		out = append(out, r.Name)
	}
	return strings.Join(out, ", ")
}

func (s Statement) bytes() ([]byte, error) { return json.Marshal(s) }
