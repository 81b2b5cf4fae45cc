package main

import (
	"bytes"
	"strings"
	"testing"

	"drover/coordinator/api"
	"drover/internal/errs"
)

func TestWhoDecidesTypesTheHostsName(t *testing.T) {
	f := newFake(t.TempDir())
	m, err := f.Migrate(t.Context(), api.MigrateRequest{Workload: "late", To: "beta"})
	if err != nil {
		t.Fatal(err)
	}
	for typed, vouches := range map[string]bool{"beta\n": true, "Beta\n": true, "alpha\n": false, "y\n": false, "": false} {
		var out bytes.Buffer
		a := &app{in: strings.NewReader(typed), asks: true, printer: &textPrinter{out: &out, err: &out}}
		name, err := a.vouch(t.Context(), f, m, api.TargetIsDead)
		if (err == nil) != vouches || err == nil && name != "beta" || err != nil && errs.KindOf(err) != errs.Failed {
			t.Errorf("%q: %q, %v", typed, name, err)
		}
		for _, want := range []string{"power beta off", "alpha owns it again", "that the target beta is dead", "Type the host's name"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("it does not say %q: %s", want, out.String())
			}
		}
	}
}
