package oci

import (
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dayfly-infra/dayfly/internal/region/hypervisor"
	"github.com/dayfly-infra/dayfly/internal/region/hypervisor/conformance"
)

func TestConformance(t *testing.T) {
	each(t, func(t *testing.T, setup func(testing.TB) Config) {
		needRoot(t)
		conformance.Run(t, func(t *testing.T) hypervisor.Hypervisor { return open(t, setup(t)) }, conformance.Options{
			Root:  func(t *testing.T) io.Reader { return smallRoot(t) },
			Shell: true,
			Reopen: func(t *testing.T, h hypervisor.Hypervisor) hypervisor.Hypervisor {
				// What kill -9 leaves: nothing of the old process acts any more.
				if err := h.Close(); err != nil {
					t.Fatal(err)
				}
				return open(t, h.(*Hypervisor).cfg)
			},
			Kill: func(t *testing.T, h hypervisor.Hypervisor, id string) {
				list, _ := h.List(t.Context())
				for _, s := range list {
					if s.ID == id {
						if err := unix.Kill(s.PID, unix.SIGKILL); err != nil {
							t.Error(err)
						}
					}
				}
			},
		})
	})
}
