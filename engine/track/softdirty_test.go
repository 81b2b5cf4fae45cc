package track_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"drover/engine"
	"drover/engine/fake"
	"drover/engine/image"
	"drover/engine/track"
)

func TestSoftDirtyHandsOverWhatWasWritten(t *testing.T) {
	e := fake.New(fake.Config{SoftDirty: true})
	tree := e.Start(fake.Spec{Cgroup: "g", Processes: 2, Pages: 50})
	dir := t.TempDir()
	tr := track.NewSoftDirty(e, tree, engine.Options{}, dir)
	round := func() int {
		t.Helper()
		n := 0
		stats, err := tr.Round(t.Context(), func(_ image.Space, _ uint64, data []byte) error {
			n += len(data) / image.PageSize
			return nil
		})
		if err != nil || int(stats.Emitted) != n || stats.Processes != 2 || stats.Tracker != "softdirty" {
			t.Fatalf("%d pages came; %+v, %v", n, stats, err)
		}
		return n
	}
	if n := round(); n != 100 {
		t.Errorf("first round: %d pages, want all 100", n)
	}
	e.Tick(3)
	if n := round(); n != 6 {
		t.Errorf("after three pieces of work in two processes: %d pages, want 6", n)
	}
	if n := round(); n != 0 {
		t.Errorf("nothing was written, and %d pages came", n)
	}

	e.Tick(1)
	images, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer images.Close()
	h, err := e.Dump(t.Context(), engine.DumpRequest{Tree: tree, Images: images, Parent: tr.Parent()})
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Stats(); got.PagesWritten != 2 || got.PagesParent != 98 {
		t.Errorf("the final dump on the last round: %+v", got)
	}
	if err := h.Abort(t.Context()); err != nil {
		t.Error(err)
	}
	if err := tr.Close(); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestSoftDirtyStopsAtTheReceiversError(t *testing.T) {
	e := fake.New(fake.Config{SoftDirty: true})
	tr := track.NewSoftDirty(e, e.Start(fake.Spec{}), engine.Options{}, t.TempDir())
	full := errors.New("full")
	if _, err := tr.Round(t.Context(), func(image.Space, uint64, []byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("got %v", err)
	}
	if tr.Parent() != "" {
		t.Error("a round that failed became a parent")
	}
	stats, err := tr.Round(t.Context(), func(image.Space, uint64, []byte) error { return nil })
	if err != nil || stats.Emitted != 3*64 {
		t.Errorf("the round after it must take all pages again: %+v, %v", stats, err)
	}
}

func TestSoftDirtyNeedsTheKernel(t *testing.T) {
	e := fake.New(fake.Config{})
	tr := track.NewSoftDirty(e, e.Start(fake.Spec{}), engine.Options{}, t.TempDir())
	_, err := tr.Round(context.Background(), func(image.Space, uint64, []byte) error { return nil })
	if !errors.Is(err, engine.ErrNoTracking) {
		t.Errorf("got %v", err)
	}
}
