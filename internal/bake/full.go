package bake

import (
	"regexp"

	"github.com/dayfly-infra/dayfly/internal/fault"
	"github.com/dayfly-infra/dayfly/internal/store"
)

// full is how programs, kernels and services say that a disk has no room.
var full = regexp.MustCompile(`(?i)no space left on device|\bENOSPC\b|disk quota exceeded|not enough free space|don't have enough free space|disk is full|out of disk space|VolumeStorageLimit|InsufficientVolumeCapacity|StorageFull|InsufficientStorage`)

// diskFull says whose disk is full and what to do about it, where that is why a
// step failed.
func (b Bake) diskFull(why string) string {
	if !full.MatchString(why) {
		return why
	}
	said := "\n  " + why
	const bigger = ": let the Puppet code put less there, or take an image.base with a larger disk"
	switch b.Step {
	case Online, Fetch, Install, Converge, Seal:
		return "the builder's disk is full" + bigger + said
	case Verify:
		return "the disk of a fresh instance is full" + bigger + said
	}
	return "the region has no room left: free some (dayfly images rm removes what nothing uses; for the local region, space on the disk with its folder), then bake again" + said
}

// noRoom tells that the region refuses for want of room: repeating at once does
// not help. The store's own disk is another matter: work goes on when it has room.
func noRoom(err error) bool {
	return err != nil && fault.CodeOf(err) != store.CodeFull && full.MatchString(err.Error())
}
