// Package sbom writes an inventory as a CycloneDX document. It must not know
// where inventories come from.
package sbom

import (
	"io"
	"net/url"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/dayfly-infra/dayfly/internal/inventory"
)

// Write writes the document of the image name.
func Write(w io.Writer, v inventory.Inventory, name string) error {
	b := cdx.NewBOM()
	id, version, _ := strings.Cut(v.Distro, "-")
	b.Metadata = &cdx.Metadata{
		Timestamp: v.Made.UTC().Format(time.RFC3339),
		Tools:     &cdx.ToolsChoice{Components: &[]cdx.Component{{Type: cdx.ComponentTypeApplication, Name: "dayfly"}}},
		Component: &cdx.Component{BOMRef: "image:" + name, Type: cdx.ComponentTypeOS, Name: name, Description: v.System},
	}
	cs := []cdx.Component{{BOMRef: "os:" + v.Distro, Type: cdx.ComponentTypeOS, Name: id, Version: version, Description: v.System}}
	for _, p := range v.Packages {
		purl := "pkg:deb/" + id + "/" + url.PathEscape(p.Name) + "@" + strings.ReplaceAll(url.QueryEscape(p.Version), "+", "%20") + "?arch=" + url.QueryEscape(p.Arch) + "&distro=" + url.QueryEscape(v.Distro)
		c := cdx.Component{BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: p.Name, Version: p.Version, PackageURL: purl}
		if p.License != "" {
			c.Licenses = &cdx.Licenses{{License: &cdx.License{Name: p.License}}}
		}
		if p.Source != "" && p.Source != p.Name {
			c.Properties = &[]cdx.Property{{Name: "dayfly:source", Value: p.Source}}
		}
		cs = append(cs, c)
	}
	for _, f := range v.Files {
		if f.Digest == "" {
			continue
		}
		cs = append(cs, cdx.Component{BOMRef: "file:" + f.Path, Type: cdx.ComponentTypeFile, Name: f.Path, Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: f.Digest}}})
	}
	b.Components = &cs
	return cdx.NewBOMEncoder(w, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(b, cdx.SpecVersion1_6)
}
