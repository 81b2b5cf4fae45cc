package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"drover/configs"
	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/pki"
)

// devIn is a throwaway cluster below dir, and its worker's configuration.
func devIn(dir string) (dev, configs.Worker) {
	w := configs.DefaultWorker()
	w.StateDir, w.RunDir = filepath.Join(dir, "worker"), filepath.Join(dir, "run")
	return dev{dir: dir, name: "dev"}, w
}

// The default directory stands where any user may make one: a cluster of theirs in it would make them root here.
func TestDevTrustsWhatNobodyElseCanHaveMade(t *testing.T) {
	const mine = 0o700
	base := filepath.Join(t.TempDir(), "base")
	if err := errors.Join(os.Chmod(filepath.Dir(base), mine), os.Mkdir(base, mine), os.Chmod(base, 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	found := func(name string) (dir, authority, output string) {
		dir = filepath.Join(base, name)
		authority, output = filepath.Join(dir, "coordinator", "authority"), filepath.Join(dir, "worker", "workloads", "web", "output")
		ca, err := pki.NewAuthority()
		if err == nil {
			err = errors.Join(os.MkdirAll(filepath.Dir(authority), mine), os.MkdirAll(output, mine), ca.Save(authority))
		}
		if err != nil {
			t.Fatal(err)
		}
		return dir, authority, output
	}
	give := func(path string) error { // to another user, or to all
		if os.Geteuid() == 0 {
			return os.Chown(path, 65534, 65534)
		}
		return os.Chmod(path, 0o777)
	}
	for what, spoil := range map[string]func(dir, authority, output string) error{
		"another user's directory":        func(dir, _, _ string) error { return give(dir) },
		"one that others may write":       func(dir, _, _ string) error { return os.Chmod(dir, 0o1777) },
		"another user's authority in it":  func(_, authority, _ string) error { return give(authority) },
		"a link to a good one":            func(dir, _, _ string) error { return errors.Join(os.Rename(dir, dir+"-1"), os.Symlink(dir+"-1", dir)) },
		"one below a directory of others": func(string, string, string) error { return os.Chmod(base, 0o777) },
	} {
		dir, authority, output := found("dev")
		d, w := devIn(dir)
		if err := errors.Join(give(output), d.own(w)); err != nil {
			t.Fatalf("its own, with a tree's output: %v", err)
		}
		if err := spoil(dir, authority, output); err != nil {
			t.Fatal(err)
		}
		if err := d.own(w); errs.KindOf(err) != errs.Refused || errs.NextOf(err) == "" {
			t.Errorf("%s: %v", what, err)
		}
		if err := errors.Join(os.Chmod(base, 0o777|os.ModeSticky), os.RemoveAll(dir), os.RemoveAll(dir+"-1")); err != nil {
			t.Fatal(err)
		}
	}
	d, w := devIn(filepath.Join(base, "new"))
	if err := d.own(w); err != nil {
		t.Errorf("one that it makes: %v", err)
	}
}

func TestDevOutlivesACoordinatorThatDoesNotAnswerOnce(t *testing.T) {
	d, _ := devIn("/nowhere")
	refused := errs.New(errs.Unavailable, "leadership is being taken")
	for what, c := range map[string]struct {
		fails int
		want  error
	}{
		"once": {1, nil}, "for a second": {50, nil}, "for good": {1 << 30, refused},
	} {
		synctest.Test(t, func(t *testing.T) {
			begun, asked := time.Now(), 0
			err := d.awaitHeard(t.Context(), begun, func(context.Context) ([]api.Host, error) {
				if asked++; asked <= c.fails {
					return nil, refused
				}
				return []api.Host{{Name: "dev", LastSeen: time.Now()}}, nil
			})
			if !errors.Is(err, c.want) {
				t.Errorf("%s: %v", what, err)
			}
			if took := time.Since(begun); took > devStart+time.Second {
				t.Errorf("%s: it took %s to say so", what, took)
			}
		})
	}
}
