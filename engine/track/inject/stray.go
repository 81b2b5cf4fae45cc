package inject

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const kcmpFile = 0 // KCMP_FILE of kcmp(2)

// Stray says whether process pid holds a copy of u: a child that another thread forked while u's own process had it.
func Stray(pid int, u Uffd) bool {
	link, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, u.Number))
	if link != "anon_inode:[userfaultfd]" {
		return false
	}
	order, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(pid), kcmpFile, uintptr(u.FD), uintptr(u.Number), 0)
	return e == 0 && order == 0
}

// CloseStray closes a copy that Stray has found.
func CloseStray(ctx context.Context, pid, pidfd int, u Uffd) error {
	var stopped time.Duration
	err := inThread(ctx, pid, pidfd, func(t *thread) error {
		_, err := t.call(unix.SYS_CLOSE, uint64(u.Number))
		return err
	}, &stopped)
	if err != nil {
		return fmt.Errorf("close descriptor %d that pid %d inherited: %w", u.Number, pid, err)
	}
	return nil
}
