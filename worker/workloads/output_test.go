package workloads

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"drover/internal/workload"
	workerapi "drover/worker/api"
)

// A tree's output directory is its user's, and a tree sees it: what is put there for root to open, or to give away, is not.
func TestATreesOutputLeadsNowhereElse(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("root's"), 0o600); err != nil {
		t.Fatal(err)
	}
	h := &Host{store: store{t.TempDir()}, all: map[string]*entry{}}
	spec := workload.Spec{Name: "web", Kind: workload.Run, User: "65534:65534"}
	h.entry("web").rec = record{Spec: spec, State: workload.Exited}
	if err := h.makeOutput(spec); err != nil {
		t.Fatal(err)
	}
	dir := h.store.output("web")
	out := filepath.Join(dir, "stdout")
	if err := os.WriteFile(out, []byte("the tree's"), 0o600); err != nil {
		t.Fatal(err)
	}
	logs := func() (string, error) {
		var b bytes.Buffer
		err := h.Logs(t.Context(), "web", workerapi.LogOptions{Stream: "stdout"}, &b)
		return b.String(), err
	}
	if err := h.makeOutput(spec); err != nil {
		t.Errorf("again: %v", err)
	}
	if said, err := logs(); said != "the tree's" || err != nil {
		t.Errorf("it has said %q, %v", said, err)
	}
	for what, put := range map[string]func() error{
		"a link to a file of root's": func() error { return os.Symlink(secret, out) },
		"a link that leads up":       func() error { return os.Symlink("../record.json", out) },
		"a pipe":                     func() error { return unix.Mkfifo(out, 0o600) },
	} {
		if err := errors.Join(os.Remove(out), put(), os.WriteFile(h.store.file("web"), []byte("root's"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if said, err := logs(); said != "" || err == nil {
			t.Errorf("%s: shown is %q, %v", what, said, err)
		}
		if err := h.makeOutput(spec); err == nil {
			t.Errorf("%s: it is taken for the tree's output", what)
		}
		for _, file := range []string{secret, h.store.file("web")} {
			var st unix.Stat_t
			if err := unix.Stat(file, &st); err != nil || int(st.Uid) != os.Geteuid() {
				t.Errorf("%s: %s belongs to %d, %v", what, file, st.Uid, err)
			}
		}
	}
}
