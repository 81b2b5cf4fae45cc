package main

import (
	"bytes"
	"strings"
	"testing"

	"drover/internal/errs"
)

func TestTheRemovalOfACoordinatorIsConfirmed(t *testing.T) {
	c := &cluster{Coordinator: newFake(t.TempDir())}
	for typed, goesOn := range map[string]bool{"y\n": true, "Yes\n": true, "\n": false, "n\n": false, "": false} {
		var out bytes.Buffer
		a := &app{in: strings.NewReader(typed), asks: true, printer: &textPrinter{out: &out, err: &out}}
		err := a.confirm(t.Context(), c, "c2")
		if (err == nil) != goesOn || err != nil && errs.KindOf(err) != errs.Failed {
			t.Errorf("%q: %v", typed, err)
		}
		if want := "take c2 at 10.0.0.2:7201, which is silent, out of the cluster test for good; of the 1 that remain none may fail? [y/N] "; out.String() != want {
			t.Errorf("it asks %q", out.String())
		}
	}
	a := &app{asks: true}
	if err := a.confirm(t.Context(), c, "c9"); errs.KindOf(err) != errs.NotFound {
		t.Errorf("one that there is not: %v", err)
	}
}
