package keeper

import (
	"os"
	"path/filepath"
	"testing"
)

func TestATreeIsNotSparedByTheOOMKillerWithItsWorker(t *testing.T) {
	file := filepath.Join(t.TempDir(), "oom_score_adj")
	for had, want := range map[string]string{"-900\n": "0", "0\n": "0\n", "300\n": "300\n"} {
		if err := os.WriteFile(file, []byte(had), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := ownOOMScore(file); err != nil {
			t.Error(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != want {
			t.Errorf("with %q it has %q, want %q; %v", had, got, want, err)
		}
	}
	if err := ownOOMScore(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("a file that is not there was read")
	}
}
