package main

import (
	"bytes"
	"testing"
)

// FuzzPlan: a plan is read whole, or refused.
func FuzzPlan(f *testing.F) {
	f.Add([]byte("name: night\nparallel: 2\ncron: 0 3 * * *\nmigrations:\n- {workload: web, to: beta, options: {downtime: 200ms, bandwidth: 50MB}}\n"))
	f.Add([]byte("migrations: &a [*a]\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := (&app{in: bytes.NewReader(text)}).readPlan("-")
		if err == nil && len(p.Migrations) == 0 {
			t.Errorf("%q is a plan of nothing", text)
		}
	})
}
