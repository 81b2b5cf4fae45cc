package keeper

import (
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"drover/engine"
)

// tempRoot is the directory that CRIU makes to build a tree's mounts below, as its log names it (criu/mount.c).
var tempRoot = regexp.MustCompile(`/tmp/\.criu\.mntns\.[A-Za-z0-9]{6}`)

// sweepTemp removes the empty directory that a restore leaves in /tmp when it is not carried through. Other restores have
// theirs beside it. The log tells which it was, unless CRIU was killed just before it had put anything there: then it is one that no CRIU
// can be using.
func sweepTemp(images *os.File, log *slog.Logger) {
	dir := namedTemp(images)
	if dir == "" {
		sweepUnnamed("/tmp", "/proc", keepersPids, log)
		return
	}
	if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT {
		log.Warn("CRIU's temporary directory is left", "dir", dir, "error", err)
	}
}

// namedTemp is the directory that a restore's log names, "" if it names none.
func namedTemp(images *os.File) string {
	fd, err := unix.Openat(int(images.Fd()), "restore.log", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "" // it came to nothing before it wrote a log
	}
	f := os.NewFile(uintptr(fd), "restore.log")
	defer f.Close()
	const maxLog = 64 << 20
	b, err := io.ReadAll(io.LimitReader(f, maxLog))
	if err != nil {
		return ""
	}
	return string(tempRoot.Find(b))
}

// sweepUnnamed removes what killed CRIUs have left in tmp, as long as none lives that could need one. What it then leaves, the next sweep takes.
// works are the processes among which one may be a CRIU of another name.
func sweepUnnamed(tmp, proc string, works func() ([]int, error), log *slog.Logger) {
	left, _ := filepath.Glob(tmp + "/.criu.mntns.??????") // before the look at who lives: what is made later is not among them
	if len(left) == 0 || criuLives(proc) {
		return
	}
	if pids, err := works(); err != nil || othersAmong(proc, pids) {
		return
	}
	for _, dir := range left {
		if err := unix.Rmdir(dir); err != nil && err != unix.ENOENT && err != unix.ENOTDIR {
			log.Warn("CRIU's temporary directory is left", "dir", dir, "error", err)
		}
	}
}

// criuLives says whether a CRIU runs on this host, or a process that one has forked and that is no program yet.
func criuLives(proc string) bool {
	names, err := filepath.Glob(proc + "/[0-9]*/comm")
	if err != nil {
		return true
	}
	return slices.ContainsFunc(names, func(name string) bool {
		b, err := os.ReadFile(name)
		return err == nil && string(b) == "criu\n"
	})
}

// othersAmong says whether one of the processes runs another program than this one: CRIU, whatever its file is called.
func othersAmong(proc string, pids []int) bool {
	own, err := os.Stat(filepath.Join(proc, "self", "exe"))
	return err != nil || slices.ContainsFunc(pids, func(pid int) bool {
		runs, err := os.Stat(filepath.Join(proc, strconv.Itoa(pid), "exe"))
		return err == nil && !os.SameFile(own, runs) // one that has ended runs nothing
	})
}

// SweepTemp does the same for a restore into a place whose tree is dead by now: its keeper may have died with CRIU.
func SweepTemp(images string, log *slog.Logger) {
	d, err := os.Open(images)
	if err != nil {
		return // it had none
	}
	defer d.Close()
	sweepTemp(d, log)
}

// sweptHold is a restore's hold that leaves nothing in /tmp when it is aborted.
type sweptHold struct {
	engine.Hold
	images *os.File // its own
	log    *slog.Logger
}

func (h *sweptHold) Commit(ctx context.Context) (engine.Stats, error) {
	stats, err := h.Hold.Commit(ctx)
	if err == nil { // a refused one may still be aborted
		h.images.Close()
	}
	return stats, err
}

func (h *sweptHold) Abort(ctx context.Context) error {
	err := h.Hold.Abort(ctx)
	if err == nil {
		sweepTemp(h.images, h.log)
		h.images.Close()
	}
	return err
}

// swept makes a restore's hold a sweptHold. The images' directory, which is the caller's, is opened once more.
func swept(h engine.Hold, images *os.File, log *slog.Logger) (engine.Hold, error) {
	fd, err := unix.FcntlInt(images.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return &sweptHold{Hold: h, images: os.NewFile(uintptr(fd), images.Name()), log: log}, nil
}
