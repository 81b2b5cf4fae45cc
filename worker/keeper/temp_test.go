package keeper

import (
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
	sweep := func() { sweepUnnamed(tmp, proc, slog.New(slog.DiscardHandler)) }

	runs("1", "init")
	runs("7", "criu")
	sweep()
	if !there(".criu.mntns.aB3xY9") {
		t.Error("a CRIU that runs has lost its directory")
	}
	runs("7", "sleep")
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
