package keeper

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
)

// A CRIU that is killed between making its directory and writing of it in its log leaves one that nobody can name.
func TestWhatNoLogNamesGoesOnceNoCRIUCanNeedIt(t *testing.T) {
	tmp, proc := t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(tmp, name) }
	there := func(name string) bool { _, err := os.Lstat(at(name)); return err == nil }
	for _, dir := range []string{".criu.mntns.aB3xY9", ".criu.mntns.full00/mnt-0000000001", ".criu.mntns.longer00", "other"} {
		if err := os.MkdirAll(at(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	runs := func(pid, comm string) {
		dir := filepath.Join(proc, pid)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "comm"), []byte(comm+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := func(pid, file string) {
		dir := filepath.Join(proc, pid)
		_ = os.Remove(filepath.Join(dir, "exe"))
		if err := errors.Join(os.MkdirAll(dir, 0o700), os.Symlink(file, filepath.Join(dir, "exe"))); err != nil {
			t.Fatal(err)
		}
	}
	drover, odd := filepath.Join(t.TempDir(), "drover"), filepath.Join(t.TempDir(), "odd")
	if err := errors.Join(os.WriteFile(drover, nil, 0o600), os.WriteFile(odd, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	program("self", drover)
	program("8", drover)
	sweep := func() {
		works := func() ([]int, error) { return []int{8, 9}, nil } // 9 has ended
		sweepUnnamed(tmp, proc, works, slog.New(slog.DiscardHandler))
	}

	runs("1", "init")
	runs("7", "criu")
	sweep()
	if !there(".criu.mntns.aB3xY9") {
		t.Error("a CRIU that runs has lost its directory")
	}
	runs("7", "sleep")
	program("8", odd)
	sweep()
	if !there(".criu.mntns.aB3xY9") {
		t.Error("a CRIU of another name has lost its directory")
	}
	program("8", drover)
	sweep()
	if there(".criu.mntns.aB3xY9") {
		t.Error("it is left, though no CRIU runs")
	}
	for _, other := range []string{".criu.mntns.full00/mnt-0000000001", ".criu.mntns.longer00", "other"} {
		if !there(other) {
			t.Errorf("%s is gone", other)
		}
	}
}
