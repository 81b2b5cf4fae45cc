package workloads

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/internal/workload"
	"drover/worker/tree"
)

// maxPath bounds a carried path, as the kernel's PATH_MAX does.
const maxPath = 4095

// Receive writes one carried file, whole or not at all. No path and no link leads out of its volume: os.Root sees to that.
func (s *shell) Receive(ctx context.Context, f tree.CarriedFile, data io.Reader) error {
	dir, err := s.volumeDir(f.Volume)
	if err != nil {
		return err
	}
	if !filepath.IsLocal(f.Path) || len(f.Path) > maxPath || filepath.Clean(f.Path) != f.Path {
		return errs.New(errs.Invalid, "carried file %q is not a path below its volume", f.Path)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return errs.New(errs.Failed, "open volume %s: %w", dir, err)
	}
	defer root.Close()
	if err := receive(root, f, data); err != nil {
		return errs.New(errs.Failed, "write carried file %s of workload %s: %w", f.Path, s.e.name, err)
	}
	return nil
}

// volumeDir is where a volume's files are received.
func (s *shell) volumeDir(i int) (string, error) {
	switch {
	case i == outputVolume && s.rec.Spec.Kind == workload.Run:
		return s.h.store.output(s.e.name), nil
	case i < 0 || i >= len(s.rec.Place.Volumes) || s.rec.Place.Volumes[i].Shared:
		return "", errs.New(errs.Invalid, "workload %s has no volume %d that is carried", s.e.name, i)
	}
	return s.rec.Place.Volumes[i].at(), nil
}

func receive(root *os.Root, f tree.CarriedFile, data io.Reader) error {
	if f.Deleted {
		if f.Path == "." {
			return errs.New(errs.Invalid, "a volume's own directory cannot be deleted")
		}
		return root.RemoveAll(f.Path)
	}
	if err := root.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	var err error
	switch f.Mode & typeBits {
	case unix.S_IFDIR:
		err = receiveDir(root, f)
	case unix.S_IFREG:
		return receiveFile(root, f, data)
	case unix.S_IFLNK:
		err = replaceBy(root, f.Path, func() error { return root.Symlink(f.Link, f.Path) })
	case unix.S_IFIFO:
		err = replaceBy(root, f.Path, func() error {
			return inParent(root, f.Path, func(d int, name string) error { return unix.Mkfifoat(d, name, 0o600) })
		})
	default:
		return errs.New(errs.Invalid, "it is of a type (%#o) that is not carried", f.Mode&typeBits)
	}
	if err != nil {
		return err
	}
	return dress(root, f.Path, f)
}

func receiveDir(root *os.Root, f tree.CarriedFile) error {
	info, err := root.Lstat(f.Path)
	if err == nil && info.IsDir() {
		return nil
	}
	return replaceBy(root, f.Path, func() error { return root.Mkdir(f.Path, 0o700) })
}

// replaceBy removes what stands at path and calls make.
func replaceBy(root *os.Root, path string, make func() error) error {
	if err := root.RemoveAll(path); err != nil {
		return err
	}
	return make()
}

// receiveFile writes a regular file beside its place and renames it there.
func receiveFile(root *os.Root, f tree.CarriedFile, data io.Reader) error {
	tmp := filepath.Join(filepath.Dir(f.Path), ".drover-receiving")
	if err := root.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	out, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, err := io.CopyN(out, data, f.Size)
	if n < f.Size && (err == nil || errors.Is(err, io.EOF)) {
		err = errs.New(errs.Failed, "only %d of %d bytes came: %w", n, f.Size, io.ErrUnexpectedEOF)
	}
	err = errors.Join(err, out.Close())
	if err == nil {
		err = dress(root, tmp, f)
	}
	if err == nil {
		if info, e := root.Lstat(f.Path); e == nil && info.IsDir() {
			err = root.RemoveAll(f.Path)
		}
	}
	if err == nil {
		err = root.Rename(tmp, f.Path)
	}
	if err != nil {
		_ = root.Remove(tmp)
	}
	return err
}

// dress gives what stands at path the owner, mode and time of f. The owner comes first: changing it clears set-id bits.
func dress(root *os.Root, path string, f tree.CarriedFile) error {
	if err := root.Lchown(path, f.UID, f.GID); err != nil {
		return err
	}
	if f.Mode&typeBits != unix.S_IFLNK { // a link has no mode
		if err := root.Chmod(path, permissions(f.Mode)); err != nil {
			return err
		}
		if err := keptSetID(root, path, f.Mode); err != nil {
			return err
		}
	}
	return inParent(root, path, func(d int, name string) error {
		t := unix.NsecToTimespec(time.Unix(0, f.Mtime).UnixNano())
		return unix.UtimesNanoAt(d, name, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
	})
}

// keptSetID says whether the kernel gave path the set-id bits of the mode: it leaves one out, without an error, for who may not set it.
func keptSetID(root *os.Root, path string, mode uint32) error {
	want := permissions(mode) & (fs.ModeSetuid | fs.ModeSetgid)
	if want == 0 {
		return nil
	}
	info, err := root.Lstat(path)
	if err != nil {
		return err
	}
	if have := info.Mode() & want; have != want {
		return errs.New(errs.Forbidden, "the kernel did not set all of %s's set-id bits", path).WithNext("give the worker CAP_FSETID")
	}
	return nil
}

// inParent calls f with a descriptor of path's directory and its name there.
func inParent(root *os.Root, path string, f func(dir int, name string) error) error {
	d, err := root.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return f(int(d.Fd()), filepath.Base(path))
}
