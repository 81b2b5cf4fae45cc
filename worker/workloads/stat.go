package workloads

import (
	"io/fs"
	"syscall"
)

type unixStat = syscall.Stat_t

// The bits of st_mode that fs.FileMode has in other places.
const (
	typeBits  = syscall.S_IFMT
	plainBits = 0o7777
)

// permissions are st_mode's as package os takes them.
func permissions(mode uint32) fs.FileMode {
	m := fs.FileMode(mode & 0o777)
	for bit, is := range map[uint32]fs.FileMode{syscall.S_ISUID: fs.ModeSetuid, syscall.S_ISGID: fs.ModeSetgid, syscall.S_ISVTX: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= is
		}
	}
	return m
}
