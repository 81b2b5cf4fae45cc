package workloads

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// images is the directory for a workload's images, in memory.
func (h *Host) images(name string) string { return filepath.Join(h.cfg.RunDir, "images", name) }

// makeImages makes it: images hold a tree's secrets and never touch a disk. A run directory that is not in memory gets a file
// system of its own mounted there.
func (h *Host) makeImages(name string) error {
	dir := h.images(name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return errs.New(errs.Failed, "make the images' directory: %w", err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return err
	}
	if fs.Type == unix.TMPFS_MAGIC {
		return nil
	}
	if err := unix.Mount("drover-images", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700,size=100%"); err != nil {
		return errs.New(errs.Failed, "mount memory for images at %s: %w", dir, err)
	}
	return nil
}

// removeImages removes it with what is in it. One that is not there is no error.
func (h *Host) removeImages(name string) error {
	dir := h.images(name)
	if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return errs.New(errs.Failed, "unmount %s: %w", dir, err)
	}
	return os.RemoveAll(dir)
}
