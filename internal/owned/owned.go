// Package owned says whether somebody else can have put, or can change, what a path names.
//
// Keys, records and images are believed because of where they lie: whoever writes them there is believed in their place, and drover is root
// where it acts. A directory that stands where anybody may make one, as below /tmp, is therefore looked at before anything in it is read.
// What is looked at is the owner and the mode, which an ACL's mask is part of. A directory that was open to others once and is not any more
// cannot be told from one that never was.
package owned

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// writers are the bits by which others than a file's owner may write.
const writers = 0o022

// Open opens a directory that belongs to this process's user and that nobody else may write; the caller closes it. A link that
// stands for one is refused, as is all that is no directory. What belongs to others is errs.Refused, what is not there fs.ErrNotExist.
func Open(dir string) (*os.File, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil, errs.New(errs.Refused, "%s is a link, or no directory", dir)
	case err != nil:
		return nil, err
	}
	info, err := f.Stat()
	if err == nil {
		err = Check(dir, info)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// Check refuses (errs.Refused) what does not belong to this process's user, and what others may write. path is what the error calls it.
func Check(path string, info fs.FileInfo) error {
	if uid, own := owner(info), os.Geteuid(); uid != own {
		return errs.New(errs.Refused, "%s belongs to uid %d, not to uid %d, who uses it", path, uid, own)
	}
	if mode := info.Mode(); mode&fs.ModeSymlink == 0 && mode.Perm()&writers != 0 {
		return errs.New(errs.Refused, "%s may be written by others than its owner (mode %04o)", path, mode.Perm())
	}
	return nil
}

// Tree checks dir and all that is in it, where a link is refused too. What is in a directory that opaque names is not looked at,
// only the directory itself.
func Tree(dir string, opaque ...string) error {
	f, err := Open(dir)
	if err != nil {
		return err
	}
	f.Close()
	return filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if errors.Is(err, fs.ErrNotExist) { // somebody of this user's works in there
			return nil
		}
		if err == nil {
			err = Check(path, info)
		}
		if err == nil && info.Mode()&fs.ModeSymlink != 0 {
			err = errs.New(errs.Refused, "%s is a link", path)
		}
		for _, o := range opaque {
			if err == nil && path == o {
				return fs.SkipDir
			}
		}
		return err
	})
}

// Above refuses a path that somebody else may make name another thing: one of the directories that it leads through is neither root's
// nor this user's, or others may write it and it is not sticky, as /tmp is.
func Above(path string) error {
	real, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return err
	}
	for _, at := range []string{filepath.Dir(path), real} {
		for ; ; at = filepath.Dir(at) {
			info, err := os.Lstat(at)
			if err != nil {
				return err
			}
			if uid := owner(info); uid != 0 && uid != os.Geteuid() {
				return errs.New(errs.Refused, "%s belongs to uid %d, who could put something else in the place of %s", at, uid, path)
			}
			if mode := info.Mode(); mode&(fs.ModeSymlink|fs.ModeSticky) == 0 && mode.Perm()&writers != 0 {
				return errs.New(errs.Refused, "%s may be written by others than its owner (mode %04o), who could put something else in the place of %s", at, mode.Perm(), path)
			}
			if at == filepath.Dir(at) {
				break
			}
		}
	}
	return nil
}

func owner(info fs.FileInfo) int {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return -1
	}
	return int(st.Uid)
}
