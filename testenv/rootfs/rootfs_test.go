package rootfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"drover/internal/errs"
)

func TestDirNamesTheNextStepWhenNothingIsBuilt(t *testing.T) {
	t.Setenv(TestbedEnv, t.TempDir())
	_, err := Dir()
	if errs.KindOf(err) != errs.NotFound || !strings.Contains(errs.NextOf(err), "make testbed") {
		t.Errorf("it says %v, next %q", err, errs.NextOf(err))
	}
}

func TestOnlyTheRecipesOwnStampCounts(t *testing.T) {
	bed := t.TempDir()
	t.Setenv(TestbedEnv, bed)
	for stamp, want := range map[string]bool{"": false, "older\n": false, Recipe(): true} {
		if err := os.WriteFile(stampFile(bed), []byte(stamp), 0o600); err != nil {
			t.Fatal(err)
		}
		dir, err := Dir()
		if got := err == nil; got != want || (got && dir != filepath.Join(bed, "rootfs")) {
			t.Errorf("with the stamp %q: %s, %v", stamp, dir, err)
		}
	}
}

func TestFolderIsTheModulesUnlessItIsNamed(t *testing.T) {
	t.Setenv(TestbedEnv, "")
	root, err := ModuleRoot()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := Testbed(); err != nil || got != filepath.Join(root, ".testbed") {
		t.Errorf("the folder is %s, %v", got, err)
	}
	t.Chdir(t.TempDir())
	if _, err := Testbed(); err == nil {
		t.Error("outside the module a folder is found")
	}
}

func TestBuiltRootHoldsWhatHostsNeed(t *testing.T) {
	dir, err := Dir()
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{
		"usr/sbin/criu", "usr/local/sbin/criu", toolDir + "/shim.so", "usr/sbin/nft", "usr/sbin/ip", "usr/bin/redis-server",
		"usr/sbin/nginx", "usr/bin/python3", "usr/bin/node", "usr/bin/nc", "usr/bin/ps", "usr/bin/tar",
		"usr/bin/ssh", "usr/sbin/sshd", "usr/bin/arping", "usr/bin/zstd",
	} {
		if _, err := os.Lstat(filepath.Join(dir, file)); err != nil { // links may be absolute: they are the hosts', not ours
			t.Error(err)
		}
	}
}
