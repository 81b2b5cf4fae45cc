package criu

import (
	"os"
	"path/filepath"
	"testing"

	"drover/engine"
)

func TestTheLockOfADumpIsNamedByItsLog(t *testing.T) {
	dir := t.TempDir()
	for log, want := range map[string]string{
		"(00.000011) CRIU run id = 0a0a0a0a-e831-4cbc-8b35-bd7fb382def4\n" + // the process's, then the request's
			"(00.000412) CRIU run id = fbe2d866-e831-4cbc-8b35-bd7fb382def4\n": "CRIU-fbe2d866-e831-4cbc-8b",
		"(00.000011) CRIU run id = fbe2d866-e831-4c": "",
		"": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, dumpLog), []byte(log), 0o600); err != nil {
			t.Fatal(err)
		}
		if name := LockName(dir); name != want {
			t.Errorf("%q names %q, want %q", log, name, want)
		}
	}
	if name := LockName(filepath.Join(dir, "nowhere")); name != "" {
		t.Errorf("images that are not there name %q", name)
	}
}

// A tree that no CRIU has begun to dump is left as it is, and with it the locks of others in its network.
func TestNothingIsUndoneOfADumpThatDidNotBegin(t *testing.T) {
	if err := Undo(engine.Tree{Pid: os.Getpid()}, t.TempDir()); err != nil {
		t.Error(err)
	}
}
