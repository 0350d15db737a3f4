package image

import (
	"regexp"
	"strings"
	"time"

	"github.com/dayfly-infra/dayfly/internal/fault"
)

// Baked is the channel that bakes move, of every blueprint; people move the others.
const Baked = "candidate"

// Move is one place where a channel pointed.
type Move struct {
	Image string    `json:"image"`
	At    time.Time `json:"at"`
	By    string    `json:"by"`
	Why   string    `json:"why,omitempty"`
}

// keepMoves is how many former places a channel remembers.
const keepMoves = 50

// Move points a channel to an image, and remembers where it pointed before.
func (c *Channel) Move(m Move) {
	if c.Image != "" {
		c.Before = append([]Move{{c.Image, c.Moved, c.By, c.Why}}, c.Before...)
		c.Before = c.Before[:min(len(c.Before), keepMoves)]
	}
	c.Image, c.Moved, c.By, c.Why = m.Image, m.At, m.By, m.Why
}

// Leave points a channel that points to image to the last place before that
// may be launched from, and says whether it did: it stays where there is none.
func (c *Channel) Leave(image string, launches func(image string) bool, m Move) bool {
	if c.Image != image {
		return false
	}
	for _, b := range c.Before {
		if b.Image != image && launches(b.Image) {
			m.Image = b.Image
			c.Move(m)
			return true
		}
	}
	return false
}

var channelForm = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}[a-z0-9]$`)

// ChannelName is the record's name of a blueprint's channel, which may be given
// with the blueprint or without.
func ChannelName(blueprint, channel string) (string, error) {
	name := strings.TrimPrefix(channel, blueprint+"/")
	if !channelForm.MatchString(name) {
		return "", &fault.Error{Kind: fault.Invalid, Op: "find the channel", Object: channel, Message: "this is no channel of " + blueprint, Hint: "such as stable, or " + blueprint + "/stable: 2 to 32 of a-z, 0-9 and -"}
	}
	return blueprint + "/" + name, nil
}

// Promote points a channel to an image because somebody says so. It changes
// both.
func Promote(c *Channel, i *Image, m Move) error {
	refuse := func(message, hint string) error {
		return &fault.Error{Kind: fault.Conflict, Op: "promote", Object: "image " + i.Name, Message: message, Hint: hint}
	}
	switch {
	case strings.HasSuffix(c.Name, "/"+Baked):
		return refuse("the channel "+c.Name+" is moved by bakes alone", "promote to another one, such as "+i.Blueprint+"/stable")
	case i.State == Quarantined:
		return refuse("the image is quarantined: "+i.Why, "dayfly image release "+i.Name+" ends that")
	case i.State == Retired:
		return refuse("the image is retired", "")
	case c.Image == i.Name:
		return refuse("the channel "+c.Name+" points to it already", "")
	}
	m.Image = i.Name
	c.Move(m)
	i.State = Verified
	return nil
}
