package agent

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// mountImages makes sure that dir is in memory and nobody else's: what is written there is a tree's memory. If it is not on a
// tmpfs already it mounts one, no larger than limit if there is one, whose pages go to no swap device; release unmounts that again if it is empty.
func mountImages(dir string, limit int64) (release func() error, err error) {
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, errs.New(errs.Failed, "close the image directory to others: %w", err)
	}
	in, err := inMemory(dir)
	if err != nil || in {
		return func() error { return nil }, err
	}
	options := "mode=0700"
	if limit > 0 {
		options = fmt.Sprintf("mode=0700,size=%d", limit)
	}
	mount := func(options string) error {
		return unix.Mount("drover-images", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, options)
	}
	err = mount(options + ",noswap")
	if errors.Is(err, unix.EINVAL) { // a kernel before 6.4 knows no such option
		err = mount(options)
	}
	if err != nil {
		return nil, errs.New(errs.Refused, "%s is on a disk and no tmpfs can be mounted there: %w", dir, err).
			WithNext("choose a run_dir on a tmpfs: a tree's memory must not reach a disk")
	}
	return func() error { return unmountImages(dir) }, nil
}

func inMemory(dir string) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return false, errs.New(errs.Failed, "look at the image directory %s: %w", dir, err)
	}
	return fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC, nil
}

// unmountImages leaves the mount if something is still in it: a migration that is held needs it.
func unmountImages(dir string) error {
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		return err
	}
	if err := unix.Unmount(dir, 0); err != nil && !errors.Is(err, unix.EBUSY) {
		return errs.New(errs.Failed, "unmount %s: %w", dir, err)
	}
	return nil
}
