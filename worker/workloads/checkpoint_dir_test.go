package workloads

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"drover/internal/errs"
)

// put writes files into dir, which is made if need be, each with its own name in it.
func put(t *testing.T, dir string, names ...string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// contains fails unless these names and no others are in dir, nil for none that is there.
func contains(t *testing.T, what, dir string, want []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if !slices.Equal(names, want) || (err == nil) != (want != nil) {
		t.Errorf("%s: %s holds %q (%v), not %q", what, dir, names, err, want)
	}
}

func take(t *testing.T, path string) *checkpointDir {
	t.Helper()
	d, err := takeCheckpointDir(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// Who may write the parent puts a link to something else in a checkpoint's place while it is written.
func TestClearingGoesToTheDirectoryThatWasWrittenTo(t *testing.T) {
	for what, found := range map[string]bool{"one that was made": false, "one that was there": true} {
		top := t.TempDir()
		dir, away, other := filepath.Join(top, "web-1"), filepath.Join(top, "away"), filepath.Join(top, "other")
		if found {
			put(t, dir)
		}
		put(t, other, "precious")
		d := take(t, dir)
		put(t, dir, "core-1.img", manifestFile)
		rename(t, dir, away)
		if err := os.Symlink(other, dir); err != nil {
			t.Fatal(err)
		}
		if err := d.inPlace(); errs.KindOf(err) != errs.Conflict || !strings.Contains(err.Error(), dir) || errs.NextOf(err) == "" {
			t.Errorf("%s: nobody would find it there: %v", what, err)
		}
		if _, _, err := seal(d, manifest{}); errs.KindOf(err) != errs.Conflict {
			t.Errorf("%s: it is a checkpoint all the same: %v", what, err)
		}
		if err := d.clear(); (err == nil) != found {
			t.Errorf("%s: %v", what, err)
		}
		contains(t, what, away, []string{})
		contains(t, what, other, []string{"precious"})
	}
}

func TestWhatADirectoryIsAfterAFailureItWasBefore(t *testing.T) {
	top := t.TempDir()
	fresh, empty := filepath.Join(top, "fresh"), filepath.Join(top, "empty")
	put(t, empty)
	for dir, want := range map[string][]string{fresh: nil, empty: {}} {
		d := take(t, dir)
		put(t, dir, "core-1.img", "dump.log")
		if err := d.clear(); err != nil {
			t.Error(err)
		}
		contains(t, "cleared", dir, want)
	}
}

// A tree could not be let go on at once; meanwhile somebody has emptied the directory and put another checkpoint there, the only one of its tree.
func TestWhatIsClearedLaterIsNoMoreThanWasThere(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "web-1")
	d := take(t, dir)
	put(t, dir, "core-1.img", "pages-1.img", "dump.log")
	if err := d.settle(); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"core-1.img", "pages-1.img"} { // whose inodes' numbers the new ones get
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	others := []string{"core-1.img", manifestFile, digestFile, "pages-1.img"}
	put(t, dir, others...)
	if err := d.clear(); errs.KindOf(err) != errs.Conflict || !strings.Contains(err.Error(), dir) {
		t.Errorf("it does not say what is left: %v", err)
	}
	contains(t, "another's checkpoint", dir, others)
}
