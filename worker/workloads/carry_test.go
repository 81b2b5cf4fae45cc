package workloads

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/internal/workload"
	"drover/worker/tree"
)

// pair is a source's tree and a target's shell with one private and one shared volume each, without processes.
func pair(t *testing.T) (from, to string, l *lent, s *shell) {
	t.Helper()
	dir := t.TempDir()
	from, to = filepath.Join(dir, "from"), filepath.Join(dir, "to")
	h := &Host{store: store{filepath.Join(dir, "source")}}
	g := &Host{store: store{filepath.Join(dir, "target")}}
	spec := workload.Spec{Name: "w", Kind: workload.Run}
	shared := volume{Volume: workload.Volume{Host: filepath.Join(dir, "shared"), Shared: true}}
	for _, d := range []string{from, to, h.store.output("w"), g.store.output("w")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l = &lent{h: h, e: &entry{name: "w"}, id: "m", now: time.Now, rec: record{Spec: spec, Place: place{Volumes: []volume{{Volume: workload.Volume{Host: from}}, shared}}}}
	s = &shell{h: g, e: &entry{name: "w"}, rec: record{Spec: spec, Place: place{Volumes: []volume{{Volume: workload.Volume{Host: to}}, shared}}}}
	return from, to, l, s
}

// carried carries from one to the other and says what came.
func carried(t *testing.T, l *lent, s *shell) string {
	t.Helper()
	var names []string
	err := l.Carry(t.Context(), func(f tree.CarriedFile, r io.Reader) error {
		if f.Volume == 0 {
			names = append(names, f.Path)
		}
		return s.Receive(t.Context(), f, r)
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// later looks at files so long after they were written that their times can be believed.
func later() time.Time { return time.Now().Add(time.Minute) }

func TestCarriedFilesArriveAsTheyWere(t *testing.T) {
	from, to, l, s := pair(t)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.MkdirAll(from+"/a/b", 0o755))
	write(t, from+"/a/b/file", "content")
	must(os.Chmod(from+"/a/b/file", 0o4751|os.ModeSetuid))
	must(os.Chown(from+"/a/b/file", 33, 44))
	must(os.Chmod(from+"/a/b/file", 0o751|os.ModeSetuid))
	must(os.Symlink("../../nowhere", from+"/a/link"))
	must(unix.Mkfifo(from+"/a/fifo", 0o620))
	must(os.Chtimes(from+"/a/b/file", time.Unix(1, 5), time.Unix(1234567890, 123456789)))
	must(os.Chtimes(from+"/a/b", time.Unix(1, 5), time.Unix(987654321, 0)))
	carried(t, l, s)

	for _, path := range []string{"a", "a/b", "a/b/file", "a/link", "a/fifo"} {
		var want, got unix.Stat_t
		must(unix.Lstat(filepath.Join(from, path), &want))
		must(unix.Lstat(filepath.Join(to, path), &got))
		if got.Mode != want.Mode || got.Uid != want.Uid || got.Gid != want.Gid || got.Size != want.Size || got.Mtim != want.Mtim {
			t.Errorf("%s: got mode %o of %d:%d, size %d, time %v; want %o of %d:%d, %d, %v", path,
				got.Mode, got.Uid, got.Gid, got.Size, got.Mtim, want.Mode, want.Uid, want.Gid, want.Size, want.Mtim)
		}
	}
	if link, _ := os.Readlink(to + "/a/link"); link != "../../nowhere" {
		t.Errorf("the link points to %q", link)
	}
}

// TestASetGroupIDBitIsKeptOrRefused receives such a file with CAP_FSETID and without, where the kernel leaves the bit out and says nothing.
func TestASetGroupIDBitIsKeptOrRefused(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	file := tree.CarriedFile{Path: "tool", Mode: unix.S_IFREG | unix.S_ISGID | 0o750, GID: 4}
	if err := receive(root, file, strings.NewReader("")); err != nil {
		t.Error(err)
	}
	refused := make(chan error)
	go func() {
		runtime.LockOSThread() // and never let go: the thread ends with what it has given up
		head, data := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
		err := unix.Capget(&head, &data[0])
		if data[0].Effective &^= 1 << unix.CAP_FSETID; err == nil {
			err = unix.Capset(&head, &data[0])
		}
		if err != nil {
			t.Error(err)
		}
		refused <- receive(root, file, strings.NewReader(""))
	}()
	if err := <-refused; errs.NextOf(err) != "give the worker CAP_FSETID" {
		t.Errorf("without it: %v", err)
	}
}

func TestOnlyWhatChangedIsCarriedAgain(t *testing.T) {
	from, to, l, s := pair(t)
	for _, name := range []string{"same", "changed", "deleted", "becomes-directory"} {
		write(t, filepath.Join(from, name), "one")
	}
	l.now = later
	carried(t, l, s)
	if again := carried(t, l, s); again != "" {
		t.Errorf("carried though nothing changed: %s", again)
	}
	write(t, from+"/changed", "two")
	if err := errors.Join(os.Remove(from+"/deleted"), os.Remove(from+"/becomes-directory"), os.Mkdir(from+"/becomes-directory", 0o700)); err != nil {
		t.Fatal(err)
	}
	if got, want := carried(t, l, s), "becomes-directory changed . deleted"; got != want {
		t.Errorf("carried %q, want %q", got, want)
	}
	b, _ := os.ReadFile(to + "/changed")
	if _, err := os.Lstat(to + "/deleted"); string(b) != "two" || !os.IsNotExist(err) {
		t.Errorf("the target has %q, and deleted: %v", b, err)
	}
	if info, err := os.Lstat(to + "/becomes-directory"); err != nil || !info.IsDir() {
		t.Errorf("the directory: %v", err)
	}
}

func TestAFileWrittenJustNowIsCarriedAgain(t *testing.T) {
	from, _, l, s := pair(t)
	write(t, from+"/file", "one")
	carried(t, l, s)
	if again := carried(t, l, s); !strings.Contains(again, "file") {
		t.Error("a change within the clock's tick would have been missed")
	}
}

func TestAFailedCarryIsMadeUpFor(t *testing.T) {
	from, to, l, s := pair(t)
	write(t, from+"/file", "one")
	broken := errors.New("link broke")
	if err := l.Carry(t.Context(), func(tree.CarriedFile, io.Reader) error { return broken }); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	carried(t, l, s)
	if b, _ := os.ReadFile(to + "/file"); string(b) != "one" {
		t.Errorf("the target has %q", b)
	}
}

func TestNothingIsReceivedOutsideItsVolume(t *testing.T) {
	_, to, _, s := pair(t)
	outside := filepath.Join(filepath.Dir(to), "outside")
	if err := errors.Join(os.Mkdir(outside, 0o755), os.Symlink(outside, to+"/out"), os.Symlink("/", to+"/root")); err != nil {
		t.Fatal(err)
	}
	write(t, outside+"/kept", "mine")
	reg := uint32(unix.S_IFREG | 0o644)
	for _, f := range []tree.CarriedFile{
		{Path: "../outside/x", Mode: reg, Size: 1},
		{Path: "/etc/x", Mode: reg, Size: 1},
		{Path: "a/../../outside/x", Mode: reg, Size: 1},
		{Path: "", Mode: reg, Size: 1},
		{Path: "out/x", Mode: reg, Size: 1},
		{Path: "out/x", Mode: unix.S_IFDIR | 0o755},
		{Path: "out/x", Mode: unix.S_IFLNK, Link: "y"},
		{Path: "out/x", Mode: unix.S_IFIFO | 0o600},
		{Path: "root" + outside + "/x", Mode: reg, Size: 1},
		{Path: "out/kept", Deleted: true},
		{Path: ".", Deleted: true},
		{Path: "dev", Mode: unix.S_IFBLK | 0o600},
		{Path: strings.Repeat("a/", 3000) + "b", Mode: reg, Size: 1},
		{Path: "short", Mode: reg, Size: 100},
		{Path: "x", Volume: 1, Mode: reg, Size: 1}, // shared
		{Path: "x", Volume: 2, Mode: reg, Size: 1},
		{Path: "x", Volume: -2, Mode: reg, Size: 1},
	} {
		if err := s.Receive(context.Background(), f, bytes.NewReader([]byte("x"))); err == nil {
			t.Errorf("received %+v", f)
		} else if strings.Contains(err.Error(), "\n") || errs.KindOf(err) == 0 {
			t.Errorf("%+v: %v", f, err)
		}
	}
	left, err := os.ReadDir(outside)
	if err != nil || len(left) != 1 {
		t.Errorf("outside holds %v, %v", left, err)
	}
	entries, err := os.ReadDir(to)
	if err != nil || len(entries) != 2 {
		t.Errorf("the volume holds %v, %v: something half received is left", entries, err)
	}
}

func TestAMappedFileIsCarriedEvenIfItsTimesStandStill(t *testing.T) {
	from, _, l, s := pair(t)
	write(t, from+"/mapped", "one")
	l.now = later
	carried(t, l, s)
	var st unix.Stat_t
	if err := unix.Stat(from+"/mapped", &st); err != nil {
		t.Fatal(err)
	}
	c := carrier{seen: l.e.carried, now: later, mapped: map[uint64]bool{st.Ino: true}}
	var names []string
	c.send = func(f tree.CarriedFile, _ io.Reader) error { names = append(names, f.Path); return nil }
	if err := c.volume(t.Context(), 0, from); err != nil {
		t.Fatal(err)
	}
	if len(names) != 1 || names[0] != "mapped" {
		t.Errorf("carried %v", names)
	}
}
