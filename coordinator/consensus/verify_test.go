package consensus

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"drover/internal/errs"
)

// written is the directory of a node that has a snapshot, entries after it, and is closed.
func written(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "record")
	inBubble(t, func(l lab) {
		n := l.open("c1", dir)
		l.found(n, 5)
		if err := n.raft.Snapshot().Error(); err != nil {
			t.Fatal(err)
		}
		l.token(n, "after")
		l.token(n, "and another one")
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
	})
	return dir
}

func look(dir string) error {
	s, err := openSnapshots(dir, keepSnapshots, hclog.NewNullLogger())
	if err != nil {
		return err
	}
	return verify(dir, s)
}

// content is all that a node would read from the directory.
func content(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	if err := renew(filepath.Join(dir, logFile)); err != nil {
		t.Fatal(err)
	}
	s, err := openStore(filepath.Join(dir, logFile))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.db.View(func(tx *bbolt.Tx) error {
		for _, bucket := range [][]byte{logBucket, stableBucket} {
			if err := tx.Bucket(bucket).ForEach(func(k, v []byte) error { fmt.Fprintf(&b, "%x=%x\n", k, v); return nil }); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files(t, dir)[1:] {
		raw, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "%s=%x\n", filepath.Base(name), raw)
	}
	return b.String()
}

// files are those that hold the record, the log first.
func files(t *testing.T, dir string) []string {
	t.Helper()
	all := []string{filepath.Join(dir, logFile)}
	err := filepath.WalkDir(filepath.Join(dir, "snapshots"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			all = append(all, path)
		}
		return err
	})
	if err != nil || len(all) != 4 {
		t.Fatalf("the record's files are %v: %v", all, err)
	}
	return all
}

// swap puts other content into a file for as long as f runs.
func swap(t *testing.T, file string, content []byte, f func()) {
	t.Helper()
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range [][]byte{content, before} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			f()
		}
	}
}

func TestWhereverAByteHasChangedTheNodeDoesNotStartOrLosesNothing(t *testing.T) {
	dir := written(t)
	if err := look(dir); err != nil {
		t.Fatalf("untouched: %v", err)
	}
	want, found, harmless := content(t, dir), 0, 0
	for _, file := range files(t, dir) {
		whole, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for at := range whole { // all of them is a minute: the heads of pages, which lead to all else, and some of the rest
			used := at%os.Getpagesize() < 48
			if !used && at%97 != 0 {
				continue
			}
			changed := bytes.Clone(whole)
			changed[at] ^= 0x10
			swap(t, file, changed, func() {
				switch err := look(dir); {
				case err != nil:
					found++
					if !strings.Contains(err.Error(), filepath.Base(filepath.Dir(file))) || !strings.Contains(errs.NextOf(err), "join again") {
						t.Errorf("byte %d of %s: %v → %s", at, file, err, errs.NextOf(err))
					}
				default:
					harmless++
					if got := content(t, dir); got != want {
						t.Errorf("byte %d of %s has changed, and the node starts with another record", at, file)
					}
				}
			})
		}
	}
	t.Logf("%d changes found, %d in what is not used", found, harmless)
	if found < 200 {
		t.Errorf("only %d changes were found, %d did no harm", found, harmless)
	}
}

func TestWhereverAFileIsCutOffTheNodeDoesNotStart(t *testing.T) {
	dir := written(t)
	for _, file := range files(t, dir) {
		whole, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		used := len(whole)
		if filepath.Base(file) == logFile {
			used = int(highWater(t, file))
		}
		for n := 0; n < used; n += max(1, used/64) {
			swap(t, file, whole[:n], func() {
				if err := look(dir); err == nil || !strings.Contains(err.Error(), "is damaged") {
					t.Errorf("%s after %d of %d bytes: %v", file, n, used, err)
				}
			})
		}
	}
}

// highWater is how much of a store is used.
func highWater(t *testing.T, file string) (n int64) {
	t.Helper()
	s, err := openStore(file)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := s.db.View(func(tx *bbolt.Tx) error { n = tx.Size(); return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWhatIsGoneIsMissed(t *testing.T) {
	for name, remove := range map[string]func(dir string) string{
		"the log":              func(dir string) string { return filepath.Join(dir, logFile) },
		"the whole record":     func(dir string) string { return dir },
		"a snapshot's content": func(dir string) string { return filepath.Join(dir, "snapshots", "*", "state.bin") },
	} {
		t.Run(name, func(t *testing.T) {
			dir := written(t)
			paths, err := filepath.Glob(remove(dir))
			if err != nil || len(paths) != 1 {
				t.Fatal(paths, err)
			}
			if err := os.RemoveAll(paths[0]); err != nil {
				t.Fatal(err)
			}
			if err := look(dir); err == nil || !strings.Contains(errs.NextOf(err), "join again") {
				t.Errorf("it starts: %v", err)
			}
		})
	}
}

func TestASnapshotThatWasNotFinishedIsDropped(t *testing.T) {
	dir := written(t)
	snapshot := filepath.Dir(files(t, dir)[1])
	if err := os.Remove(filepath.Join(snapshot, sumFile)); err != nil {
		t.Fatal(err)
	}
	if err := look(dir); err != nil {
		t.Errorf("the log has all that it would have held: %v", err)
	}
	if _, err := os.Stat(snapshot); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it is still there: %v", err)
	}
	s, err := openStore(filepath.Join(dir, logFile))
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(s.DeleteRange(1, 3), s.Close())
	if err != nil {
		t.Fatal(err)
	}
	if err := look(dir); err == nil || !strings.Contains(err.Error(), "no snapshot those up to 3") {
		t.Errorf("a log whose beginning nothing stands for: %v", err)
	}
}

func TestALogThatRaftWasStoppedBeforeItHadEmptiedBeginsAnew(t *testing.T) {
	file := filepath.Join(t.TempDir(), logFile)
	s, err := openStore(file)
	if err != nil {
		t.Fatal(err)
	}
	entry := func(index uint64) *raft.Log {
		return &raft.Log{Index: index, Term: 1, Type: raft.LogCommand, Data: []byte("x")}
	}
	before, after := []*raft.Log{entry(1), entry(2)}, []*raft.Log{entry(10), entry(11)} // a snapshot from elsewhere stands for those up to 9
	if err := errors.Join(s.StoreLogs(before), s.StoreLogs(after), s.Close()); err != nil {
		t.Fatal(err)
	}
	if first, last, err := verifyStore(file); first != 10 || last != 11 || err != nil {
		t.Errorf("it holds the entries from %d to %d: %v", first, last, err)
	}
}

func TestTheStoreKeepsTheContractOfRaftsOwn(t *testing.T) {
	s, err := openStore(filepath.Join(t.TempDir(), logFile))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Get([]byte("no")); err == nil || err.Error() != "not found" {
		t.Errorf("what is not there: %v", err)
	}
	if err := errors.Join(s.SetUint64([]byte("term"), 7), s.Set([]byte("vote"), []byte("c2"))); err != nil {
		t.Fatal(err)
	}
	term, err1 := s.GetUint64([]byte("term"))
	vote, err2 := s.Get([]byte("vote"))
	if term != 7 || string(vote) != "c2" || err1 != nil || err2 != nil {
		t.Errorf("term %d, vote %q: %v, %v", term, vote, err1, err2)
	}
	if err := s.GetLog(1, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("an entry that is not there: %v", err)
	}
	for i := range uint64(5) {
		if err := s.StoreLog(&raft.Log{Index: i + 1, Term: 2, Type: raft.LogCommand, Data: []byte{byte(i)}, Extensions: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(s.DeleteRange(1, 2), s.DeleteRange(5, 5)); err != nil {
		t.Fatal(err)
	}
	first, _ := s.FirstIndex()
	last, _ := s.LastIndex()
	var got raft.Log
	if err := s.GetLog(3, &got); err != nil || first != 3 || last != 4 || got.Index != 3 || got.Term != 2 || got.Data[0] != 2 || string(got.Extensions) != "x" {
		t.Errorf("from %d to %d, with %+v: %v", first, last, got, err)
	}
	if err := s.DeleteRange(3, 4); err != nil {
		t.Fatal(err)
	}
	if last, _ := s.LastIndex(); last != 0 {
		t.Errorf("an empty log ends at %d", last)
	}
}
