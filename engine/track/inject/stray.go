package inject

import (
	"fmt"
	"os"

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
