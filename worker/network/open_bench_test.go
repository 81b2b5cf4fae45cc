package network

import (
	"net/netip"
	"slices"
	"testing"
	"time"
)

// BenchmarkShow measures how long it takes until an address behind a fence can be seen: by a rule that is put in, and by taking the
// fence away.
func BenchmarkShow(b *testing.B) {
	l := newLAN(b)
	l.host("alpha", "10.0.0.1/24")
	address := netip.MustParsePrefix("10.0.0.50/24")
	ns := l.workload("alpha", "redis", Config{Address: address})
	took := map[string][]time.Duration{}
	timed := func(what string, err error, since time.Time) {
		if err != nil {
			b.Fatal(err)
		}
		took[what] = append(took[what], time.Since(since))
	}
	for b.Loop() {
		if err := Fence(ctx, ns, address.Addr()); err != nil {
			b.Fatal(err)
		}
		now := time.Now()
		timed("ms/open", Open(ctx, ns, address.Addr()), now)
		now = time.Now()
		timed("ms/unfence", Unfence(ctx, ns, address.Addr()), now)
	}
	for what, all := range took {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, what)
	}
	b.ReportMetric(0, "ns/op")
}
