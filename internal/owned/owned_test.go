package owned

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"drover/internal/errs"
)

// private is a directory that only this user may write, whatever the umask is.
func private(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "private")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

// foreign is a directory that belongs to another user.
func foreign(t *testing.T) string {
	t.Helper()
	if os.Geteuid() != 0 {
		return "/usr"
	}
	dir := private(t)
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	return dir
}

func chmod(t *testing.T, path string, mode os.FileMode) string {
	t.Helper()
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestADirectoryIsOpenedThatOnlyItsUserMayWrite(t *testing.T) {
	good := private(t)
	link, file := filepath.Join(good, "link"), filepath.Join(good, "file")
	if err := errors.Join(os.Symlink(private(t), link), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for what, dir := range map[string]string{
		"another user's": foreign(t), "writable by a group": chmod(t, private(t), 0o770), "writable by all": chmod(t, private(t), 0o777),
		"sticky as /tmp": chmod(t, private(t), 0o777|os.ModeSticky), "a link": link, "a file": file,
	} {
		if _, err := Open(dir); errs.KindOf(err) != errs.Refused {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := Open(filepath.Join(good, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that is not there: %v", err)
	}
	for _, dir := range []string{good, chmod(t, private(t), 0o755)} {
		f, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

func TestATreeIsLookedAtToItsLeaves(t *testing.T) {
	for what, spoil := range map[string]func(at string) error{
		"a file that others may write": func(at string) error { return os.Chmod(at, 0o620) },
		"a link":                       func(at string) error { return errors.Join(os.Remove(at), os.Symlink("/etc/passwd", at)) },
	} {
		dir := private(t)
		inner := filepath.Join(dir, "inner")
		leaf := filepath.Join(inner, "leaf")
		if err := errors.Join(os.Mkdir(inner, 0o700), os.WriteFile(leaf, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
		if err := Tree(dir); err != nil {
			t.Fatal(err)
		}
		if err := spoil(leaf); err != nil {
			t.Fatal(err)
		}
		if err := Tree(dir); errs.KindOf(err) != errs.Refused {
			t.Errorf("%s: %v", what, err)
		}
		if err := Tree(dir, inner); err != nil {
			t.Errorf("%s, where nobody looks: %v", what, err)
		}
		chmod(t, inner, 0o770)
		if err := Tree(dir, inner); errs.KindOf(err) != errs.Refused {
			t.Errorf("%s, in a directory that others may write: %v", what, err)
		}
	}
}

func TestNobodyElseMayPutAnotherThingInItsPlace(t *testing.T) {
	open, sticky, others := chmod(t, private(t), 0o777), chmod(t, private(t), 0o777|os.ModeSticky), foreign(t)
	chmod(t, filepath.Dir(open), 0o755) // which the umask may have left open
	chmod(t, filepath.Dir(sticky), 0o755)
	if others == "/usr" { // and root's is fine
		others = open
	}
	through := filepath.Join(sticky, "through")
	if err := errors.Join(os.Symlink(open, through), os.Mkdir(filepath.Join(open, "inner"), 0o700)); err != nil {
		t.Fatal(err)
	}
	for what, path := range map[string]string{
		"below one that others may write": filepath.Join(open, "dir"), "deeper": filepath.Join(open, "inner", "dir"),
		"by a link": filepath.Join(through, "dir"), "below another user's": filepath.Join(others, "dir"),
	} {
		if err := Above(path); errs.KindOf(err) != errs.Refused {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := Above(filepath.Join(sticky, "dir")); err != nil {
		t.Errorf("below a sticky one: %v", err)
	}
}
