package server

import "testing"

// Routes with fields that cannot be read are found when they are registered.
func TestRoutes(t *testing.T) {
	if New(nil, nil, "test") == nil {
		t.Error("no handler")
	}
}
