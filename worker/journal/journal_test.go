package journal

import (
	"encoding/json"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/internal/migration"
)

func open(t *testing.T, path string) (*Journal, Contents) {
	t.Helper()
	j, got, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j, got
}

func write(t *testing.T, j *Journal, steps ...string) {
	t.Helper()
	for _, s := range steps {
		if err := j.Append(Record{Migration: "m-1", Step: s, Data: json.RawMessage(`{"pid":42}`)}); err != nil {
			t.Fatal(err)
		}
	}
}

func steps(c Contents) string {
	var s []string
	for _, r := range c.Records {
		s = append(s, r.Step)
	}
	return strings.Join(s, " ")
}

func TestWhatWasAppendedIsThereAfterReopening(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _ := open(t, path)
	write(t, j, "open", "freeze")
	j.Close()
	j, got := open(t, path)
	if steps(got) != "open freeze" || got.Torn != 0 || string(got.Records[1].Data) != `{"pid":42}` {
		t.Errorf("got %+v", got)
	}
	write(t, j, "held")
	j.Close()
	if _, got = open(t, path); steps(got) != "open freeze held" || got.Records[2].Seq != 3 {
		t.Errorf("got %+v", got)
	}
}

func TestAnEndCutOffAnywhereLosesOnlyTheLastRecord(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _ := open(t, path)
	write(t, j, "open", "freeze")
	two, _ := os.ReadFile(path)
	write(t, j, "held")
	j.Close()
	three, _ := os.ReadFile(path)
	for cut := len(two); cut < len(three); cut++ {
		if err := os.WriteFile(path, three[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		j, got := open(t, path)
		if steps(got) != "open freeze" || got.Torn != cut-len(two) {
			t.Fatalf("cut at byte %d: %q, torn %d", cut, steps(got), got.Torn)
		}
		write(t, j, "again")
		j.Close()
		j, got = open(t, path)
		if steps(got) != "open freeze again" {
			t.Fatalf("cut at byte %d, then appended: %q", cut, steps(got))
		}
		j.Close()
	}
}

func TestATailOfZerosIsTorn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _ := open(t, path)
	write(t, j, "open")
	j.Close()
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if _, got := open(t, path); steps(got) != "open" || got.Torn != 4096 {
		t.Errorf("got %+v", got)
	}
}

func TestAnyDamageBeforeTheLastRecordIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _ := open(t, path)
	write(t, j, "open")
	first, _ := os.ReadFile(path)
	write(t, j, "freeze", "held")
	j.Close()
	whole, _ := os.ReadFile(path)
	for at := range len(first) {
		bad := append([]byte(nil), whole...)
		bad[at] ^= 0x21
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		j, _, err := Open(path)
		if err == nil {
			j.Close()
			t.Fatalf("a byte changed at %d was not noticed", at)
		}
		if !strings.Contains(err.Error(), path) || errs.NextOf(err) == "" {
			t.Fatalf("the error names no file or no next step: %v", err)
		}
	}
}

func TestAMissingRecordIsNoticed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _ := open(t, path)
	write(t, j, "open", "freeze", "held")
	j.Close()
	raw, _ := os.ReadFile(path)
	lines := strings.SplitAfter(string(raw), "\n")
	for _, rest := range []string{lines[0] + lines[2], lines[1] + lines[2]} {
		if err := os.WriteFile(path, []byte(rest), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := Open(path); err == nil || !strings.Contains(err.Error(), "missing") {
			t.Errorf("got %v", err)
		}
	}
}

func TestOnlyOneProcessHasTheJournal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _ := open(t, path)
	if _, _, err := Open(path); errs.KindOf(err) != errs.Conflict {
		t.Errorf("a second opening gave %v", err)
	}
	if err := j.Compact(func(Record) bool { return true }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := Open(path); errs.KindOf(err) != errs.Conflict {
		t.Errorf("a second opening after a rewrite gave %v", err)
	}
}

func TestCompactDropsWhatIsNoLongerWanted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _ := open(t, path)
	write(t, j, "open", "freeze")
	if err := j.Append(Record{Migration: "m-2", Step: "open"}); err != nil {
		t.Fatal(err)
	}
	if err := j.Compact(func(r Record) bool { return r.Migration == migration.ID("m-2") }); err != nil {
		t.Fatal(err)
	}
	write(t, j, "later")
	j.Close()
	if _, got := open(t, path); steps(got) != "open later" || got.Records[0].Migration != "m-2" {
		t.Errorf("got %+v", got)
	}
}

// A disk that was full for a while costs a record, not the journal: the worker goes on as soon as there is room.
func TestARecordThatHadNoRoomIsWrittenOnceThereIsSome(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _ := open(t, path)
	write(t, j, "open")
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: uint64(st.Size()) + 7, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	err = j.Append(Record{Migration: "m-1", Step: "freeze"})
	if back := unix.Setrlimit(unix.RLIMIT_FSIZE, &before); back != nil {
		t.Fatal(back)
	}
	if errs.KindOf(err) != errs.Failed || !strings.Contains(errs.NextOf(err), "free space") {
		t.Errorf("without room: %v", err)
	}
	write(t, j, "held")
	j.Close()
	if _, got := open(t, path); steps(got) != "open held" || got.Torn != 0 {
		t.Errorf("got %+v", got)
	}
}

// The old file has no name any more: a record in it would be lost.
func TestNoRecordIsLostAfterARewriteThatLacksADescriptor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "journal")
	j, _ := open(t, path)
	write(t, j, "open", "freeze")
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	spare, err := unix.Dup(int(j.file.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(spare) // enough for the new file, and no more for the directory
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(spare) + 1, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	rewritten := j.Compact(func(Record) bool { return true })
	if back := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); back != nil {
		t.Fatal(back)
	}
	want := "open freeze"
	if j.Append(Record{Migration: "m-1", Step: "held"}) == nil {
		want += " held"
	}
	j.Close()
	if _, got := open(t, path); steps(got) != want {
		t.Errorf("got %q, want %q; the rewrite said: %v", steps(got), want, rewritten)
	}
}

func TestAfterAFailedWriteNothingIsAppended(t *testing.T) {
	j, _ := open(t, filepath.Join(t.TempDir(), "journal"))
	j.file.Close()
	if err := j.Append(Record{Step: "open"}); err == nil {
		t.Fatal("a write to a closed file succeeded")
	}
	if err := j.Append(Record{Step: "freeze"}); err == nil || !strings.Contains(err.Error(), "failed before") {
		t.Errorf("got %v", err)
	}
}

func FuzzParse(f *testing.F) {
	line, _ := Encode(Record{Seq: 1, Step: "open"})
	f.Add(line)
	f.Add(append(append([]byte{}, line...), line...))
	f.Add([]byte("\n\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := Parse(raw)
		if err == nil && got.Torn > len(raw) {
			t.Errorf("torn %d of %d bytes", got.Torn, len(raw))
		}
	})
}
