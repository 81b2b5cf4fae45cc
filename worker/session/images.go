package session

import (
	"errors"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/internal/migration"
)

// imagesOf is where a source's images are. The dot keeps them apart from those of trees that come, which go by workload.
func (r *Registry) imagesOf(id migration.ID) string {
	return filepath.Join(r.cfg.Images, "."+string(id))
}

// An engine whose worker has died may write on for a moment.
const (
	writesOn = 5 * time.Second
	tryAgain = 10 * time.Millisecond
)

// removeImages removes a directory of images, which hold the tree's secrets. One that is not there is no error.
func removeImages(dir string) error {
	err := os.RemoveAll(dir)
	for end := time.Now().Add(writesOn); errors.Is(err, unix.ENOTEMPTY) && time.Now().Before(end); err = os.RemoveAll(dir) {
		<-time.After(tryAgain)
	}
	if err != nil {
		return errs.New(errs.Failed, "remove images: %w", err).WithNext("remove %s by hand: it holds the tree's memory", dir)
	}
	return nil
}

// sweepImages removes what a worker that crashed left of sources whose migrations have ended. What cannot be removed keeps no worker
// from its trees: the next that starts tries again.
func (r *Registry) sweepImages() error {
	left, err := filepath.Glob(filepath.Join(r.cfg.Images, ".*"))
	if err != nil {
		return err
	}
	for _, dir := range left {
		if s, err := r.find(migration.ID(filepath.Base(dir)[1:])); err == nil && !s.over() && !s.facts().Nothing { // what is held may need them
			continue
		}
		if err := removeImages(dir); err != nil {
			r.cfg.Log.Error("images of a migration that has ended are left", "error", err, "next", errs.NextOf(err))
		}
	}
	return nil
}
