package errs

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestErrorKeepsItsCauseWithoutPrintingItTwice(t *testing.T) {
	err := fmt.Errorf("start migration: %w", New(NotFound, "open image: %w", fs.ErrNotExist).WithNext("run `drover workloads`"))
	if got, want := err.Error(), "start migration: open image: file does not exist"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		t.Error("the cause is lost")
	}
	if KindOf(err) != NotFound || NextOf(err) != "run `drover workloads`" {
		t.Errorf("kind %v, next %q", KindOf(err), NextOf(err))
	}
}

func TestNextStepSurvivesWrapping(t *testing.T) {
	inner := New(Refused, "port taken").WithNext("stop it")
	if got := NextOf(New(Aborted, "migrate: %w", inner)); got != "stop it" {
		t.Errorf("got %q", got)
	}
}

func TestEveryCauseIsFound(t *testing.T) {
	a, b := errors.New("a"), errors.New("b")
	err := New(Failed, "x: %w: %w", a, b)
	if !errors.Is(err, a) || !errors.Is(err, b) || err.Error() != "x: a: b" {
		t.Errorf("got %q", err)
	}
}
