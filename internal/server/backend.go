package server

import (
	"context"
	"io"

	"github.com/danielgtaylor/huma/v2"

	"github.com/dayfly-infra/dayfly/internal/bake"
	"github.com/dayfly-infra/dayfly/internal/environment"
	"github.com/dayfly-infra/dayfly/internal/image"
	"github.com/dayfly-infra/dayfly/internal/inventory"
	"github.com/dayfly-infra/dayfly/internal/pipeline"
	"github.com/dayfly-infra/dayfly/internal/release"
	"github.com/dayfly-infra/dayfly/internal/sweep"
)

// Backend carries out what the API is asked for. Who asks is in the context.
type Backend interface {
	AddBlueprint(ctx context.Context, tar io.Reader) (Blueprint, error)
	Bake(ctx context.Context, b StartBake) (bake.Bake, error)
	ExecBake(ctx context.Context, name, on, command string) (bake.Executed, error)
	CancelBake(ctx context.Context, name string) (bake.Bake, error)
	Resolve(ctx context.Context, files string) (release.Release, error)
	Deploy(ctx context.Context, d Deploy) (environment.Environment, error)
	Again
	Destroy(ctx context.Context, name string) (environment.Environment, error)
	Rollback(ctx context.Context, name string, r Rollback) (environment.Environment, error)
	Test(ctx context.Context, t Test) (pipeline.Run, error)
	Cancel(ctx context.Context, run string) (pipeline.Run, error)
	Results(ctx context.Context, run, suite, file string) ([]byte, error)
	Runs
	Triggers
	DeleteImage(ctx context.Context, name string) error
	Quarantine(ctx context.Context, name string, q Quarantine) (image.Image, error)
	Promote(ctx context.Context, name string, p Promote) (image.Channel, error)
	Lineage(ctx context.Context, name string) (Lineage, error)
	SBOM(ctx context.Context, name string) ([]byte, error)
	Attestation(ctx context.Context, name string) ([]byte, error)
	Inventory(ctx context.Context, name string) ([]byte, error)
	ImageDiff(ctx context.Context, a, b string) (ImageDiff, error)
	Report(ctx context.Context, name string) ([]byte, error)
	Sweep(ctx context.Context, dry bool) (sweep.Report, error)
	Instances
	Chaos
	Currency
	Usage
	Why(ctx context.Context, object string) ([]Reason, error)
	Status(ctx context.Context) (Status, error)
	// Active tells whether this process owns the work.
	Active() bool
}

// Blueprint is what the server says of a blueprint that it was sent.
type Blueprint struct {
	Digest       string   `json:"digest"`
	Name         string   `json:"name"`
	Environments []string `json:"environments"`
	Suites       []string `json:"suites"`
}

// Deploy asks for an environment with the most recent release.
type Deploy struct {
	Files   string `json:"files" doc:"digest of the blueprint, from POST /v1/blueprints" pattern:"^sha256:[0-9a-f]{64}$" maxLength:"71"`
	Purpose string `json:"purpose" doc:"key in the blueprint's environments" maxLength:"32"`
	Name    string `json:"name,omitempty" doc:"the environment's name, default BLUEPRINT-PURPOSE" maxLength:"60" pattern:"^([a-z][a-z0-9-]*[a-z0-9])?$"`
	Size    int    `json:"size,omitempty" doc:"instances, default the blueprint's" minimum:"0" maximum:"1000"`

	Untested bool `json:"untested,omitempty" doc:"deploy past the pipeline whose stage deploys this environment"`
}

// Promote points a channel to an image.
type Promote struct {
	Channel string `json:"channel" doc:"such as stable; with the blueprint's name before it or without" minLength:"1" maxLength:"70"`
	Why     string `json:"why" minLength:"1" maxLength:"500"`
}

// Lineage is what an image comes from, what was made from it, and who runs it.
type Lineage struct {
	Image    string   `json:"image"`
	State    string   `json:"state"`
	Base     string   `json:"base,omitempty" doc:"as the blueprint names it"`
	AMI      string   `json:"ami"`
	Parent   string   `json:"parent" doc:"AMI of the base"`
	Parents  []string `json:"parents" doc:"images of ours among its ancestors, the nearest first"`
	Children []string `json:"children" doc:"images that were baked from it"`
	Channels []string `json:"channels" doc:"that point to it"`
	Was      []string `json:"was" doc:"channels that pointed to it before"`
	Runs     []Runner `json:"runs" doc:"generations that are made from it and not gone"`
	GoBack   []string `json:"go_back" doc:"environments that remember it as good"`
}

// Runner is a generation that runs an image.
type Runner struct {
	Environment string `json:"environment"`
	Generation  int    `json:"generation"`
	Phase       string `json:"phase"`
	Size        int    `json:"size"`
}

// Rollback asks an environment to go back to what served before.
type Rollback struct {
	Why string `json:"why,omitempty" maxLength:"300"`
}

// Test asks for a run of the blueprint's suites.
type Test struct {
	Files  string   `json:"files" pattern:"^sha256:[0-9a-f]{64}$" maxLength:"71"`
	Suites []string `json:"suites,omitempty" doc:"names, default all automated ones" maxItems:"200"`
	Full   bool     `json:"full,omitempty" doc:"the whole pipeline, with manual suites, gates and deploys"`
}

// bound limits each entry of a list, in characters: tags cannot.
func bound(s *huma.Schema, list string, most int) *huma.Schema {
	s.Properties[list].Items.MaxLength = &most
	return s
}

// TransformSchema implements huma.SchemaTransformer.
func (Test) TransformSchema(_ huma.Registry, s *huma.Schema) *huma.Schema {
	return bound(s, "suites", 60)
}

// Files names a blueprint.
type Files struct {
	Files string `json:"files" doc:"digest of the blueprint, from POST /v1/blueprints" pattern:"^sha256:[0-9a-f]{64}$" maxLength:"71"`
}

// Reason is one blocker as a sentence.
type Reason struct {
	Object   string `json:"object"`
	Phase    string `json:"phase"`
	Sentence string `json:"sentence"`
}

// Status is the server's own.
type Status struct {
	Version  string `json:"version"`
	PID      int    `json:"pid"`
	Account  string `json:"account"`
	Region   string `json:"region"`
	Endpoint string `json:"endpoint,omitempty"`
	Owner    string `json:"owner"`
	Active   bool   `json:"active" doc:"this process owns the work"`
	Console  string `json:"console,omitempty" doc:"where a browser finds the console, where this server listens for browsers"`
}

// StartBake asks for a blueprint's image.
type StartBake struct {
	Files  string `json:"files" doc:"digest of the blueprint, from POST /v1/blueprints" pattern:"^sha256:[0-9a-f]{64}$" maxLength:"71"`
	Resume bool   `json:"resume,omitempty" doc:"go on with the builder that a failed bake keeps"`
	From   string `json:"from,omitempty" doc:"that bake; default the blueprint's last" maxLength:"120"`
}

// Quarantine begins or ends an image's quarantine.
type Quarantine struct {
	Quarantined bool   `json:"quarantined" doc:"false ends it"`
	Why         string `json:"why" minLength:"1" maxLength:"500"`
}

// ImageDiff is what differs between two images.
type ImageDiff struct {
	From    string                 `json:"from"`
	To      string                 `json:"to"`
	Changes []inventory.Difference `json:"changes"`
}
