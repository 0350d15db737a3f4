package oci

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// Benchmark45 makes and destroys 45 instances at once.
func Benchmark45(b *testing.B) {
	for _, r := range runtimes {
		b.Run(r, func(b *testing.B) { benchmark45(b, r) })
	}
}

func benchmark45(b *testing.B, runtime string) {
	h := open(b, setup(b, runtime))
	importSmall(b, h)
	const n = 45
	each := func(f func(id string) error) time.Duration {
		begun := time.Now()
		var wg sync.WaitGroup
		for k := range n {
			wg.Go(func() {
				if err := f(fmt.Sprintf("i-%02d", k)); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		return time.Since(begun)
	}
	var up, guest, down time.Duration
	for b.Loop() {
		up += each(func(id string) error { return h.Create(contextFor(b), small(id)) })
		guest += each(func(id string) error { ready(b, h, id); return nil })
		down += each(func(id string) error { return h.Destroy(contextFor(b), id) })
	}
	b.ReportMetric(up.Seconds()/float64(b.N), "s/create")
	b.ReportMetric(guest.Seconds()/float64(b.N), "s/ready")
	b.ReportMetric(down.Seconds()/float64(b.N), "s/destroy")
}
