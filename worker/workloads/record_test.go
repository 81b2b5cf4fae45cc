package workloads

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"drover/internal/errs"
	"drover/internal/workload"
)

func TestRecordsComeBackAsTheyWereSaved(t *testing.T) {
	s := store{t.TempDir()}
	if all, err := s.load(); err != nil || len(all) != 0 {
		t.Fatalf("an empty store holds %v, %v", all, err)
	}
	r := record{
		Spec: workload.Spec{Name: "w", Kind: workload.Run, Command: []string{"x"}}, Epoch: 7, State: workload.Migrating, Pid: 5, Birth: 6,
		Migration: "m", Role: "source", Place: place{Cgroup: "/c", Made: []string{"/a"}}, KeepStopped: []int{3},
	}
	if err := s.save(r); err != nil {
		t.Fatal(err)
	}
	r.Epoch = 8
	if err := s.save(r); err != nil {
		t.Fatal(err)
	}
	all, err := s.load()
	if err != nil || len(all) != 1 || !reflect.DeepEqual(all[0], r) {
		t.Fatalf("loaded %+v, %v; want %+v", all, err, r)
	}
	info, err := os.Stat(s.file("w"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the record's mode is %v, %v", info.Mode(), err)
	}
}

func TestATornRecordIsAnErrorNotAForgottenTree(t *testing.T) {
	for _, content := range []string{"", "{", `{"spec":{"name":"other"}}`} {
		s := store{t.TempDir()}
		if err := os.MkdirAll(s.home("w"), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, s.file("w"), content)
		if _, err := s.load(); err == nil || errs.NextOf(err) == "" {
			t.Errorf("a record of %q was loaded: %v", content, err)
		}
	}
}

func TestTheLastLinesOfAStream(t *testing.T) {
	long := strings.Repeat("x", 40<<10) // more than one block
	for _, c := range []struct {
		content string
		lines   int
		want    string
	}{
		{"a\nb\nc\n", 2, "b\nc\n"},
		{"a\nb\nc", 2, "b\nc"},
		{"a\nb\n", 0, "a\nb\n"},
		{"a\nb\n", 9, "a\nb\n"},
		{"", 3, ""},
		{"\n\n\n", 1, "\n"},
		{"a\n" + long + "\nc\n", 2, long + "\nc\n"},
	} {
		dir, err := os.OpenRoot(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		write(t, dir.Name()+"/out", c.content)
		tl, err := openTail(dir, "out", c.lines)
		if err != nil {
			t.Fatal(err)
		}
		var got strings.Builder
		if err := copyAll([]*tail{tl}, &got); err != nil || got.String() != c.want {
			t.Errorf("the last %d of %.20q: %.20q, %v", c.lines, c.content, got.String(), err)
		}
		tl.file.Close()
		dir.Close()
	}
}
