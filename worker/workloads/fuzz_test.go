package workloads

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"drover/internal/workload"
	"drover/worker/tree"
)

// FuzzReceive: whatever a source says of a file, or of two in turn, nothing outside its volume is made, changed or removed.
func FuzzReceive(f *testing.F) {
	f.Add("link", uint32(unix.S_IFLNK|0o777), "../outside", false, "link/secret", uint32(unix.S_IFREG|0o644), false, []byte("x"))
	f.Add("a", uint32(unix.S_IFDIR|0o755), "", false, "a/../../outside/secret", uint32(unix.S_IFREG|0o600), true, []byte("x"))
	f.Add("up", uint32(unix.S_IFLNK|0o777), "..", false, "up/outside", uint32(unix.S_IFREG|0o600), true, []byte(""))
	f.Add("f", uint32(unix.S_IFIFO|0o644), "", false, "f", uint32(unix.S_IFREG|0o4755), false, []byte("data"))
	top := f.TempDir()
	inside, outside := filepath.Join(top, "volume"), filepath.Join(top, "outside")
	secret := filepath.Join(outside, "secret")
	f.Fuzz(func(t *testing.T, path1 string, mode1 uint32, link string, deleted1 bool, path2 string, mode2 uint32, deleted2 bool, data []byte) {
		for _, dir := range []string{inside, outside} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		defer os.RemoveAll(inside)
		if err := os.WriteFile(secret, []byte("mine"), 0o640); err != nil {
			t.Fatal(err)
		}
		s := &shell{e: &entry{name: "w"}, rec: record{Place: place{Volumes: []volume{{Volume: workload.Volume{Host: inside}}}}}}
		for _, file := range []tree.CarriedFile{
			{Path: path1, Mode: mode1, Link: link, Deleted: deleted1, Size: int64(len(data))}, {Path: path2, Mode: mode2, Deleted: deleted2, Size: int64(len(data))},
		} {
			_ = s.Receive(t.Context(), file, bytes.NewReader(data)) // refused or not: what counts is what it did
		}
		got, err := os.ReadFile(secret)
		info, err2 := os.Stat(secret)
		here, err3 := os.ReadDir(top)
		there, err4 := os.ReadDir(outside)
		if err != nil || err2 != nil || err3 != nil || err4 != nil || string(got) != "mine" || info.Mode() != 0o640 || len(here) > 2 || len(there) != 1 {
			t.Errorf("outside it is %q, %v, %v, %v", got, info, here, there)
		}
	})
}

// FuzzManifest: a checkpoint's directory is taken only if its manifest reads, names files in it alone, and each is as it says.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"files":[{"name":"core-1.img","size":1,"sha256":"2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"}]}`))
	f.Add([]byte(`{"format":1,"files":[{"name":"../core-1.img"}]}`))
	dir := filepath.Join(f.TempDir(), "checkpoint")
	if err := os.Mkdir(dir, 0o700); err != nil {
		f.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "core-1.img"), []byte("x"), 0o600); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		sum := sha256.Sum256(text)
		if err := os.WriteFile(filepath.Join(dir, manifestFile), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, digestFile), []byte(hex.EncodeToString(sum[:])), 0o600); err != nil {
			t.Fatal(err)
		}
		d, m, err := unseal(dir)
		if err == nil {
			d.Close()
		}
		if err == nil && (len(m.Files) != 1 || m.Files[0].Name != "core-1.img") {
			t.Errorf("taken: %+v", m)
		}
	})
}
