package agent

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// onDisk makes a directory that is on no tmpfs.
func onDisk(t *testing.T) string {
	t.Helper()
	for _, parent := range []string{os.TempDir(), "/var/tmp", "/var/lib", "."} {
		dir, err := os.MkdirTemp(parent, "drover-agent-")
		if err != nil {
			continue
		}
		t.Cleanup(func() {
			unix.Unmount(dir, unix.MNT_DETACH)
			os.RemoveAll(dir)
		})
		if in, err := inMemory(dir); err == nil && !in {
			return dir
		}
	}
	t.Fatal("no directory on a disk: this test needs one")
	return ""
}

func TestImagesAreKeptInMemoryWhateverTheRunDirectoryIsOn(t *testing.T) {
	dir := onDisk(t)
	release, err := mountImages(dir, 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type != unix.TMPFS_MAGIC || int64(fs.Blocks)*fs.Bsize != 16<<20 {
		t.Errorf("it is not a tmpfs of 16 MiB: type %#x, %d blocks, %v", fs.Type, fs.Blocks, err)
	}
	if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("others may look: %v, %v", st.Mode(), err)
	}
	again, err := mountImages(dir, 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	if err := again(); err != nil {
		t.Error(err)
	}
	image := filepath.Join(dir, "pages-1.img")
	if err := os.WriteFile(image, []byte("secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := release(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(image); err != nil {
		t.Error("what a held migration needs went with the worker")
	}
	os.Remove(image)
	if err := release(); err != nil {
		t.Error(err)
	}
	if in, err := inMemory(dir); err != nil || in {
		t.Errorf("the empty tmpfs is still mounted: %v, %v", in, err)
	}
}
