package workloads

import (
	"os"
	"path/filepath"
	"testing"

	"drover/internal/errs"
	"drover/internal/workload"
)

func TestAVolumeIsStagedUnlessItsMountPointWouldMoveWithIt(t *testing.T) {
	dir := t.TempDir()
	old, fresh := filepath.Join(dir, "old"), filepath.Join(dir, "fresh")
	if err := os.Mkdir(old, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		why, root, host, inside string
		staged, aside           string
	}{
		{"seen under another name", "/", old, "/data", old + ".drover-incoming", ""},
		{"seen under its own name", "/", old, old, "", old + ".drover-aside"},
		{"seen below its own name", "/", old, old + "/deeper", "", old + ".drover-aside"},
		{"a name that only begins like its own", "/", old, old + "er", old + ".drover-incoming", ""},
		{"its own name in another root", "/srv/root", old, old, old + ".drover-incoming", ""},
		{"its own name, and nothing there yet", "/", fresh, fresh, "", ""},
	} {
		_, err := os.Lstat(c.host)
		v, err := incomingVolume(c.root, workload.Volume{Host: c.host, Inside: c.inside}, err == nil)
		if err != nil || v.Staged != c.staged || v.Aside != c.aside {
			t.Errorf("%s: %+v, %v", c.why, v, err)
		}
		if c.staged == "" && !v.Brought {
			t.Errorf("%s: what comes in place has been brought", c.why)
		}
	}
	if err := os.Mkdir(old+".drover-aside", 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := incomingVolume("/", workload.Volume{Host: old, Inside: old}, true); errs.KindOf(err) != errs.Refused {
		t.Errorf("what already stands aside would be lost: %v", err)
	}
}

func TestWhatWasSetAsideComesBackAndWhatWasNotStays(t *testing.T) {
	dir := t.TempDir()
	v := volume{Volume: workload.Volume{Host: filepath.Join(dir, "db")}, Aside: filepath.Join(dir, "db.drover-aside")}
	write := func(path string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(v.Host, "mine"))
	if err := v.putBack(); err != nil { // the worker died before it set anything aside
		t.Fatal(err)
	}
	if err := os.Rename(v.Host, v.Aside); err != nil {
		t.Fatal(err)
	}
	write(filepath.Join(v.Host, "half-received"))
	for range 2 {
		if err := v.putBack(); err != nil {
			t.Fatal(err)
		}
		left, err := filepath.Glob(filepath.Join(dir, "*", "*"))
		if err != nil || len(left) != 1 || left[0] != filepath.Join(v.Host, "mine") {
			t.Errorf("there is %v, %v", left, err)
		}
	}
}
