package network

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// within runs f in the network namespace bound to nsPath, on a thread that it has to itself; f must not start goroutines that
// count on the namespace. With "" it runs f where the caller is.
func within(nsPath string, f func() error) error {
	if nsPath == "" {
		return f()
	}
	ns, err := openNamespace(nsPath)
	if err != nil {
		return err
	}
	defer ns.Close()
	return onOwnThread(func() error {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return errs.New(errs.Failed, "enter network namespace %s: %w", nsPath, err)
		}
		return f()
	})
}

// Within runs f in a network namespace, "" for the host's own; nsPath may be a process's /proc/PID/ns/net. Sockets that f opens
// stay in that namespace. f must not start goroutines that count on it.
func Within(nsPath string, f func() error) error { return within(nsPath, f) }

// onOwnThread runs f on a thread that may change its network namespace. The thread is given back to the runtime only once it
// is in its first namespace again; one that cannot get back ends with its goroutine.
func onOwnThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- errs.New(errs.Failed, "open this thread's network namespace: %w", err)
			return
		}
		defer home.Close()
		err = f()
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// openNamespace opens the network namespace bound to path; errs.NotFound if nothing is.
func openNamespace(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errs.New(errs.NotFound, "there is no network namespace at %s: %w", path, err)
	}
	if err != nil {
		return nil, errs.New(errs.Failed, "open network namespace: %w", err)
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		f.Close()
		return nil, errs.New(errs.NotFound, "%s is a file, but no network namespace is bound to it", path)
	}
	return f, nil
}

// makeNamespace binds a new network namespace to path, whose directory is made if need be.
func makeNamespace(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return errs.New(errs.Failed, "make room for network namespace %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o600)
	if err != nil {
		return errs.New(errs.Failed, "make the file that names network namespace %s: %w", path, err)
	}
	f.Close()
	err = onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return errs.New(errs.Failed, "make network namespace %s: %w", path, err).WithNext("the worker must run as root")
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return errs.New(errs.Failed, "bind a network namespace to %s: %w", path, err)
		}
		return nil
	})
	if err != nil {
		os.Remove(path)
	}
	return err
}

// Delete takes the namespace's address off the network at once and unbinds the namespace, which ends with the last process in
// it. One that is not there is no error.
func Delete(ctx context.Context, nsPath string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if nsPath == "" {
		return errs.New(errs.Invalid, "the host's own network is not for deleting")
	}
	err := within(nsPath, removeEth0)
	if err != nil && errs.KindOf(err) != errs.NotFound {
		return errs.New(errs.Failed, "delete network namespace %s: %w", nsPath, err)
	}
	// Only what is bound is unmounted, and a mount may hide another one below it.
	for err == nil {
		if err := unix.Unmount(nsPath, unix.MNT_DETACH); err != nil {
			return errs.New(errs.Failed, "unbind network namespace %s: %w", nsPath, err)
		}
		var ns *os.File
		if ns, err = openNamespace(nsPath); err == nil {
			ns.Close()
		}
	}
	if err := os.Remove(nsPath); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.Failed, "remove the file of network namespace %s: %w", nsPath, err)
	}
	return nil
}

// Inode is the number by which /proc/PID/ns/net and CRIU know the namespace.
func Inode(nsPath string) (uint64, error) {
	ns, err := openNamespace(nsPath)
	if err != nil {
		return 0, err
	}
	defer ns.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(ns.Fd()), &st); err != nil {
		return 0, errs.New(errs.Failed, "look at network namespace %s: %w", nsPath, err)
	}
	return st.Ino, nil
}
