package rootfs

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// Build makes the root file system unless it is there already, and returns its path. It installs the host tools it needs
// through apt, takes about a minute, and may be interrupted: what is half built is never taken for whole. Several builds at
// once wait for each other, and a rebuild waits until no bed uses the old one.
func Build(ctx context.Context, log io.Writer) (string, error) {
	if err := requireDebian(); err != nil {
		return "", err
	}
	bed, err := Testbed()
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(bed, 0o755); err != nil {
		return "", errs.New(errs.Failed, "make the test bed's folder: %w", err)
	}
	dir := filepath.Join(bed, "rootfs")
	if built(bed) {
		fmt.Fprintf(log, "%s is up to date\n", dir)
		return dir, nil
	}
	unlock, err := lock(ctx, log, bed, unix.LOCK_EX)
	if err != nil {
		return "", err
	}
	defer unlock()
	if built(bed) { // by the one we waited for
		return dir, nil
	}
	started := time.Now()
	if err := build(ctx, log, bed, dir); err != nil {
		return "", err
	}
	fmt.Fprintf(log, "built %s in %s\n", dir, time.Since(started).Round(time.Second))
	return dir, nil
}

// Use keeps the root file system from being rebuilt until the returned function is called or the process ends.
func Use(ctx context.Context, log io.Writer) (release func(), err error) {
	bed, err := Testbed()
	if err != nil {
		return nil, err
	}
	return lock(ctx, log, bed, unix.LOCK_SH)
}

func build(ctx context.Context, log io.Writer, bed, dir string) error {
	if err := Install(ctx, log, "mmdebstrap", "gcc", "libc6-dev"); err != nil {
		return err
	}
	from, err := mirror(ctx)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(bed, "building-")
	if err != nil {
		return errs.New(errs.Failed, "make a folder to build in: %w", err)
	}
	defer os.RemoveAll(scratch)
	fmt.Fprintf(log, "building %s (Debian %s, criu from %s); this takes about a minute\n", dir, suite, criuSuite)
	fresh := filepath.Join(scratch, "rootfs")
	if err := bootstrap(ctx, from, scratch, fresh); err != nil {
		return err
	}
	if err := addTools(ctx, fresh); err != nil {
		return err
	}
	return replace(bed, dir, fresh)
}

func bootstrap(ctx context.Context, mirror, scratch, fresh string) error {
	if err := os.Chmod(scratch, 0o755); err != nil {
		return errs.New(errs.Failed, "open the build folder to apt's own user: %w", err)
	}
	prefs := filepath.Join(scratch, "preferences")
	if err := os.WriteFile(prefs, preferences, 0o644); err != nil {
		return errs.New(errs.Failed, "write apt's preferences: %w", err)
	}
	cmd := exec.CommandContext(ctx, "mmdebstrap", bootstrapArgs(fresh, prefs)...)
	cmd.Stdin = strings.NewReader(sources(mirror))
	if out, err := cmd.CombinedOutput(); err != nil {
		return errs.New(errs.Failed, "mmdebstrap: %w: %s", err, lastLines(string(out), 8)).
			WithNext("see that the mirror of this machine's apt sources holds %s and %s", suite, criuSuite)
	}
	return nil
}

// addTools puts the criu wrapper first in PATH and the shim it may preload beside it.
func addTools(ctx context.Context, fresh string) error {
	tools := filepath.Join(fresh, toolDir)
	if err := os.MkdirAll(tools, 0o755); err != nil {
		return errs.New(errs.Failed, "make the folder for the test bed's tools: %w", err)
	}
	source := filepath.Join(tools, "shim.c")
	if err := os.WriteFile(source, shimSource, 0o644); err != nil {
		return errs.New(errs.Failed, "write the shim's source: %w", err)
	}
	gcc := exec.CommandContext(ctx, "gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", filepath.Join(tools, "shim.so"), source, "-ldl")
	if out, err := gcc.CombinedOutput(); err != nil {
		return errs.New(errs.Failed, "compile the criu shim: %w: %s", err, lastLines(string(out), 5))
	}
	if err := os.WriteFile(filepath.Join(fresh, "usr/local/sbin/criu"), criuWrapper, 0o755); err != nil {
		return errs.New(errs.Failed, "write the criu wrapper: %w", err)
	}
	return nil
}

// replace puts the fresh root file system in the old one's place. The stamp goes first and comes last, so that a crash between
// leaves nothing that looks built.
func replace(bed, dir, fresh string) error {
	if err := os.RemoveAll(stampFile(bed)); err != nil {
		return errs.New(errs.Failed, "remove the old stamp: %w", err)
	}
	if err := os.RemoveAll(dir); err != nil {
		return errs.New(errs.Failed, "remove the old root file system: %w", err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		return errs.New(errs.Failed, "put the root file system in place: %w", err)
	}
	if err := os.WriteFile(stampFile(bed), []byte(Recipe()), 0o644); err != nil {
		return errs.New(errs.Failed, "write the stamp: %w", err)
	}
	return nil
}

// lock takes the folder's lock, shared by those who use the root file system, exclusive for the one who replaces it.
func lock(ctx context.Context, log io.Writer, bed string, how int) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(bed, "rootfs.lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, errs.New(errs.Failed, "open the test bed's lock: %w", err)
	}
	said := false
	for {
		err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, errs.New(errs.Failed, "lock %s: %w", f.Name(), err)
		}
		if !said {
			fmt.Fprintln(log, "waiting for a running bed or another build to let go of the root file system")
			said = true
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, errs.New(errs.Timeout, "wait for %s: %w", f.Name(), ctx.Err()).
				WithNext("close the beds that run: `go run ./testenv/testbed list`")
		case <-time.After(100 * time.Millisecond):
		}
	}
}
