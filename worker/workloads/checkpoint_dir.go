package workloads

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/internal/owned"
)

// checkpointDir is the directory of one checkpoint, root's alone. It is held open: whatever its path may come to name, what is written,
// read, and cleared after a failure, is in this one. Only who has its workload's turn uses it.
type checkpointDir struct {
	file  *os.File // its name is the path that was asked for
	root  *os.Root // the same directory
	made  bool
	wrote map[string]fileID // what may be cleared once the checkpoint's own call is over; nil before: all
}

// openCheckpointDir opens one that is there. One that somebody else may have put there, or may write, is errs.Refused; none is fs.ErrNotExist.
func openCheckpointDir(path string) (*checkpointDir, error) {
	f, err := owned.Open(path)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", f.Fd())) // by its path it might be another one by now
	if err != nil {
		f.Close()
		return nil, err
	}
	return &checkpointDir{file: f, root: root}, nil
}

// takeCheckpointDir makes the directory of a new checkpoint, or takes it if it is there and empty, mode 0700.
func takeCheckpointDir(path string) (*checkpointDir, error) {
	if !filepath.IsAbs(path) || filepath.Clean(path) != path {
		return nil, errs.New(errs.Invalid, "checkpoint directory %q is not a clean absolute path", path)
	}
	d, err := openCheckpointDir(path)
	made := errors.Is(err, fs.ErrNotExist)
	if made {
		if err := os.Mkdir(path, 0o700); err != nil {
			return nil, errs.New(errs.Failed, "make checkpoint directory %s: %w", path, err).WithNext("its parent must exist")
		}
		if d, err = openCheckpointDir(path); err != nil {
			_ = unix.Rmdir(path)
			return nil, errs.New(errs.Refused, "checkpoint directory: %w, though it was made just now", err).
				WithNext("choose one on a file system where what root makes is root's, which NFS with root_squash is not, in a directory that nobody else writes")
		}
		d.made = true
	}
	if err != nil {
		return nil, errs.New(errs.Refused, "checkpoint directory: %w", err).WithNext("choose one that does not exist: it holds all that the tree has in memory, and root restores what is in it")
	}
	entries, err := d.entries()
	switch {
	case err != nil:
		err = errs.New(errs.Refused, "checkpoint directory %s: %w", path, err)
	case len(entries) > 0:
		err = errs.New(errs.Refused, "checkpoint directory %s is not empty", path).WithNext("choose a new one")
	default:
		err = d.file.Chmod(0o700)
	}
	if err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Close closes it. One whose checkpoint could never be undone is closed with the process.
func (d *checkpointDir) Close() error { return errors.Join(d.root.Close(), d.file.Close()) }

func (d *checkpointDir) path() string { return d.file.Name() }

func (d *checkpointDir) entries() ([]fs.DirEntry, error) { return fs.ReadDir(d.root.FS(), ".") }

// inPlace fails if the path does not lead to the directory any more: nobody would find there what was written.
func (d *checkpointDir) inPlace() error {
	here, err := d.file.Stat()
	if err != nil {
		return err
	}
	if named, err := os.Lstat(d.path()); err != nil || !os.SameFile(here, named) {
		return errs.New(errs.Conflict, "checkpoint directory %s is another one than that which was written to: it was moved, or something was mounted there", d.path()).
			WithNext("let it stand where it is while a checkpoint is written")
	}
	return nil
}

// settle notes what is there: what comes later is not of this checkpoint, and is not cleared.
func (d *checkpointDir) settle() error {
	d.wrote = map[string]fileID{}
	entries, err := d.entries()
	for _, e := range entries {
		id, failed := d.identify(e.Name())
		if failed != nil {
			err = errors.Join(err, failed)
			continue
		}
		d.wrote[e.Name()] = id
	}
	return err
}

// clear takes back what a checkpoint that failed has written, and closes the directory. What else is in it stays, and is an error.
func (d *checkpointDir) clear() error {
	defer d.Close()
	if d.wrote == nil {
		if err := d.settle(); err != nil {
			return d.uncleared(err)
		}
	}
	var failed error
	for name, was := range d.wrote {
		if id, err := d.identify(name); err == nil && id == was {
			failed = errors.Join(failed, d.root.Remove(name))
		}
	}
	left, err := d.entries()
	if err == nil && len(left) > 0 {
		err = errs.New(errs.Conflict, "%s and %d more are there", left[0].Name(), len(left)-1)
	}
	if err = errors.Join(failed, err); err == nil && d.made {
		if err = d.inPlace(); err == nil {
			err = unix.Rmdir(d.path())
		}
	}
	return d.uncleared(err)
}

func (d *checkpointDir) uncleared(err error) error {
	if err == nil {
		return nil
	}
	return errs.New(errs.KindOf(err), "clear checkpoint directory %s: %w", d.path(), err)
}

// fileID tells a file from every other one that has had its name. The number of one that is gone is given to the next that is made: by when
// they were made they differ, where the file system notes that.
type fileID struct {
	major, minor uint32
	inode        uint64
	made         unix.StatxTimestamp
}

func (d *checkpointDir) identify(name string) (fileID, error) {
	var st unix.Statx_t
	err := unix.Statx(int(d.file.Fd()), name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_INO|unix.STATX_BTIME, &st)
	return fileID{st.Dev_major, st.Dev_minor, st.Ino, st.Btime}, err
}
