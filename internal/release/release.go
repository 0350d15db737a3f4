// Package release is the immutable digest of the user's code as a noun.
package release

import (
	"strings"
	"time"
)

// Kind of the record; its name is <blueprint>/<first 16 hex digits of the digest>.
const Kind = "release"

// Release is a resolved version: what "the most recent" was at one moment.
type Release struct {
	Name      string    `json:"name"`
	Blueprint string    `json:"blueprint"`
	Artifact  string    `json:"artifact"` // file name in the box, such as shop-1.4.2.tar.gz
	URL       string    `json:"url"`      // where the box has it
	Mirror    string    `json:"mirror"`   // s3://bucket/key: read with the instance's role when the box is down
	Digest    string    `json:"digest"`   // sha256:…
	Size      int64     `json:"size"`
	Resolved  time.Time `json:"resolved"`
	Used      time.Time `json:"used,omitzero"`   // when it was "the most recent" lately, to the day
	Ending    time.Time `json:"ending,omitzero"` // it is being forgotten; nobody takes it any more
}

// Touch is how often Used is written.
const Touch = 24 * time.Hour

// Folder is the prefix of its mirror's key in the bucket.
func Folder(r Release) string {
	return "releases/" + r.Blueprint + "/" + strings.TrimPrefix(r.Digest, "sha256:") + "/"
}
