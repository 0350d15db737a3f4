package ids

import (
	"bytes"
	"regexp"
	"testing"
)

func TestForms(t *testing.T) {
	s := New(bytes.NewReader(bytes.Repeat([]byte{0xff}, 24)))
	if got := s.UUID(); got != "ffffffff-ffff-4fff-bfff-ffffffffffff" {
		t.Error(got)
	}
	if got := s.Hex(8); got != "ffffffffffffffff" {
		t.Error(got)
	}
	if a, b := New(nil).UUID(), New(nil).UUID(); a == b || !regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`).MatchString(a) {
		t.Error(a, b)
	}
	defer func() {
		if recover() == nil {
			t.Error("an id was made of nothing")
		}
	}()
	s.Hex(1)
}
