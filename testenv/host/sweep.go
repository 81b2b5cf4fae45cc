package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// closeTimeout bounds the end of a bed; the kernel ends a thousand processes well within it.
const closeTimeout = 30 * time.Second

// A bed's folder holds a lock that its owner keeps as long as it lives: the kernel lets go of it however the owner dies.

// claim makes a bed's folder and takes its lock.
func claim(id string) (dir string, unlock func(), err error) {
	beds, err := bedsDir()
	if err != nil {
		return "", nil, err
	}
	alone, err := lockBeds(beds)
	if err != nil {
		return "", nil, err
	}
	defer alone()
	dir = filepath.Join(beds, id)
	if err := os.Mkdir(dir, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return "", nil, errs.New(errs.Conflict, "a bed %s is open already", id).WithNext("choose another name")
		}
		return "", nil, errs.New(errs.Failed, "make the bed's folder: %w", err)
	}
	lock, err := lockFile(filepath.Join(dir, "lock"), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return "", nil, errs.New(errs.Failed, "lock the bed's folder: %w", err)
	}
	return dir, func() { lock.Close() }, nil
}

// Sweep removes what beds left whose owner died without closing them.
func Sweep(ctx context.Context) error {
	beds, err := bedsDir()
	if err != nil {
		return err
	}
	groups, err := bedsGroup()
	if err != nil {
		return err
	}
	alone, err := lockBeds(beds)
	if err != nil {
		return err
	}
	defer alone()
	folders, err := os.ReadDir(beds)
	if err != nil {
		return errs.New(errs.Failed, "list the beds: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	for _, f := range folders {
		if !f.IsDir() {
			continue
		}
		dir := filepath.Join(beds, f.Name())
		lock, err := lockFile(filepath.Join(dir, "lock"), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue // its owner lives
		}
		if err != nil {
			return errs.New(errs.Failed, "lock the bed %s: %w", f.Name(), err)
		}
		err = erase(ctx, dir, groups.child(f.Name()))
		lock.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// erase removes a bed's processes with their namespaces and mounts, its cgroups and its files.
func erase(ctx context.Context, dir string, cgroup group) error {
	if cgroup != "" {
		if err := cgroup.remove(ctx); err != nil {
			return err
		}
		_ = os.Remove(filepath.Dir(string(cgroup))) // fails while there are other beds, rightly
	}
	for { // a host's mount namespace goes a moment after its last process
		err := os.RemoveAll(dir)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return errs.New(errs.Failed, "remove the bed's files: %w", err)
		}
		if waited := pause(ctx); waited != nil {
			return errs.New(errs.Timeout, "remove the bed's files: %w", err)
		}
	}
}

// lockBeds keeps beds from being made while others are swept.
func lockBeds(beds string) (unlock func(), err error) {
	if err := os.MkdirAll(beds, 0o755); err != nil {
		return nil, errs.New(errs.Failed, "make the beds' folder: %w", err)
	}
	f, err := lockFile(filepath.Join(beds, "lock"), unix.LOCK_EX)
	if err != nil {
		return nil, errs.New(errs.Failed, "lock the beds' folder: %w", err)
	}
	return func() { f.Close() }, nil
}

func lockFile(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return f, nil
		}
		if err != unix.EINTR {
			f.Close()
			return nil, err
		}
	}
}
