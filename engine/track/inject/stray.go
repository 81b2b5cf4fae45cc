package inject

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	kcmpFile = 0                          // KCMP_FILE of kcmp(2)
	link     = "anon_inode:[userfaultfd]" // of every userfaultfd, in /proc/PID/fd
)

// Stray says whether process pid holds a copy of u: a child that another thread forked while u's own process had it.
func Stray(pid int, u Uffd) bool {
	return at(strconv.Itoa(pid), u.Number) == nil && same(pid, u.Number, u.FD) == nil
}

// at is an error unless a process or thread of that pid, or "self", has a userfaultfd at number.
func at(pid string, number int) error {
	is, err := os.Readlink(fmt.Sprintf("/proc/%s/fd/%d", pid, number))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("there is nothing at %d any more: %w", number, ErrTaken)
	case err != nil:
		return err
	case is != link:
		return fmt.Errorf("at %d is %s: %w", number, is, ErrTaken)
	}
	return nil
}

// same is an error unless number there and fd here are one open file. Whoever may trace a process may ask.
func same(pid, number, fd int) error {
	order, _, e := unix.Syscall6(unix.SYS_KCMP, uintptr(os.Getpid()), uintptr(pid), kcmpFile, uintptr(fd), uintptr(number), 0)
	switch {
	case e == unix.EBADF || e == 0 && order != 0:
		return fmt.Errorf("at %d is another: %w", number, ErrTaken)
	case e != 0:
		return fmt.Errorf("compare descriptor %d with a copy: %w", number, e)
	}
	return nil
}
