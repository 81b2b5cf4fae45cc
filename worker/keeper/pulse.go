package keeper

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine/lazy"
	"drover/internal/errs"
)

// BeatEvery is how often a filler says that it goes on.
const BeatEvery = 250 * time.Millisecond

// pulse is what a filler writes into its lock, again and again in the same place: that needs no room, so that a full disk does not
// make a filler look as if it stood still.
type pulse struct {
	pid   int    // of the filler
	beats uint64 // see Filling
}

const pulseSize = 16

func writePulse(lock *os.File, p pulse) error {
	b := binary.LittleEndian.AppendUint64(nil, uint64(p.pid))
	_, err := lock.WriteAt(binary.LittleEndian.AppendUint64(b, p.beats), 0)
	return err
}

// readPulse is the zero pulse if there is none: an earlier drover's filler has none.
func readPulse(lock *os.File) pulse {
	b := make([]byte, pulseSize)
	if _, err := lock.ReadAt(b, 0); err != nil {
		return pulse{}
	}
	return pulse{int(binary.LittleEndian.Uint64(b)), binary.LittleEndian.Uint64(b[8:])}
}

// beat says that the filling goes on, as long as it does and this process lives.
func (n *fillingNote) beat(f *lazy.Filler) {
	p := pulse{pid: os.Getpid(), beats: 1}
	for range time.Tick(BeatEvery) {
		if !f.Stands() {
			p.beats++
			_ = writePulse(n.lock, p) // in its place already
		}
	}
}

// fillerEnds is how long EndFiller waits for a filler that it has killed.
const fillerEnds = 2 * time.Second

// EndFiller kills the filler of a directory, whose tree must be dead: one that stands still would stay for ever. None there is no error, nor is
// one that the kernel does not let go yet.
func EndFiller(ctx context.Context, dir Dir) error {
	lock, err := os.Open(dir.fillLock())
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return errs.New(errs.Failed, "look for what fills in memory: %w", err)
	}
	defer lock.Close()
	fd, err := unix.PidfdOpen(readPulse(lock).pid, 0)
	if err != nil {
		return nil // it has ended
	}
	defer unix.Close(fd)
	// The lock is let go with the process: if it is held now, the process of that number is still the one that wrote it.
	if unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return errs.New(errs.Failed, "end what fills in memory: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, fillerEnds)
	defer cancel()
	for unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil && ctx.Err() == nil {
		<-time.After(time.Millisecond)
	}
	return nil
}
