//go:build halts

package session

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"drover/worker/session/rules"
)

// haltsDir is where a test leaves a named pipe, ROLE.OP, that it reads from.
const haltsDir = "/run/drover-halts"

// halt stands still before an op for which a test has left a pipe: it says so by a byte, and goes on when the test has closed its end,
// however that came. A pipe that nobody reads halts nothing, and each halts once.
func (s *session) halt(op rules.Op) {
	at := filepath.Join(haltsDir, string(s.req.Role)+"."+op.String())
	fd, err := unix.Open(at, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	_ = os.Remove(at)
	if _, err := unix.Write(fd, []byte{'.'}); err != nil {
		return
	}
	s.log.Info("halted", "op", op.String())
	for { // until the pipe has no reader any more
		p := []unix.PollFd{{Fd: int32(fd)}}
		if n, err := unix.Poll(p, -1); n > 0 || err != unix.EINTR {
			return
		}
	}
}
