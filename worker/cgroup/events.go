package cgroup

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// settle bounds a wait whose context has no deadline of its own: a task in an uninterruptible sleep can keep a group from
// freezing for as long as its disk or its NFS server likes.
const settle = 30 * time.Second

// await returns once key has the value in cgroup.events. The kernel wakes pollers of that file at every change.
func (g Group) await(ctx context.Context, key, want string) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	f, err := os.Open(filepath.Join(string(g), "cgroup.events"))
	if err != nil {
		return gone(err)
	}
	defer f.Close()
	for {
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 4096))
		if err != nil {
			return gone(err)
		}
		if eventIn(string(b), key) == want {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return errs.New(errs.KindOf(err), "%s is not %s yet: %w", key, want, err)
		}
		// The slice bounds how late a cancelled context is noticed.
		fds := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, 20); err != nil && err != unix.EINTR {
			return err
		}
	}
}

func (g Group) event(key string) (string, error) {
	b, err := os.ReadFile(filepath.Join(string(g), "cgroup.events"))
	if err != nil {
		return "", err
	}
	return eventIn(string(b), key), nil
}

// eventIn finds a key in cgroup.events, lines of "key value".
func eventIn(text, key string) string {
	for line := range strings.Lines(text) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == key {
			return v
		}
	}
	return ""
}
