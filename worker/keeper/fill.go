package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine/lazy"
	"drover/internal/errs"
	"drover/worker/cgroup"
	"drover/worker/pace"
)

// A filler is a process of its own, `drover keeper fill`, that puts the memory of one tree in place (lazy.Filler). It outlives the
// worker that started it, and the keeper: once it has vouched for a tree's memory it ends when all of it is there. The keeper,
// where the engine is, has the tree killed if the filler dies before. How far it is stands in the keeper's directory.

// The descriptors that a filler is given.
const (
	fillReadyFD = 3 + iota // a pipe on which it says that it is ready, or why not
	fillLeashFD            // a pipe: once its other end is closed, nobody will restore what has not been begun
	fillPagesFD            // the memory: lazy.Files
	fillIndexFD
	fillSpilledFD // if it spills
	fillSealsFD
)

// Filling is how far a filler is.
type Filling struct {
	Done uint64 `json:"done"` // bytes in place
	All  uint64 `json:"all"`  // of so many; 0 until the restore is held
	Over bool   `json:"over"` // every page is in place
	// Took is how long it took, once it is over.
	Took time.Duration `json:"took_ns,omitempty"`
	// Beats rises every BeatEvery, unless pages of a tree that runs are missing and none comes to its place. 0: the filler does not say.
	Beats uint64 `json:"-"`
}

// ReadFilling says how far the filler of a directory is, or was: errs.Failed if it has ended before every page was in place,
// errs.NotFound if there never was one.
func ReadFilling(dir Dir) (Filling, error) {
	lock, err := os.Open(dir.fillLock())
	if errors.Is(err, os.ErrNotExist) {
		return Filling{}, errs.New(errs.NotFound, "nobody fills memory in for %s", dir)
	}
	if err != nil {
		return Filling{}, errs.New(errs.Unavailable, "look for what fills in memory: %w", err)
	}
	defer lock.Close()
	ended := unix.Flock(int(lock.Fd()), unix.LOCK_SH|unix.LOCK_NB) == nil // before the file is read: its last word counts
	var f Filling
	if err := readJSON(dir.filling(), &f); err != nil && !errors.Is(err, os.ErrNotExist) {
		return f, errs.New(errs.Unavailable, "look how far the memory is filled in: %w", err)
	}
	f.Beats = readPulse(lock).beats
	if ended && !f.Over {
		return f, errs.New(errs.Failed, "what was to fill in the tree's memory has ended after %d of %d MiB", f.Done>>20, f.All>>20).WithNext("see %s", dir.Log())
	}
	return f, nil
}

// StartFiller starts a filler for a restore from the images directory, into the cgroup, and returns when it listens. The memory's files
// stay the caller's; they are read when the restore begins. eager is lazy.Config.Eager. binary is drover's own, "" for the running one.
// letGo, to be called once, ends a filler whose restore has not begun; another goes on.
func StartFiller(ctx context.Context, dir Dir, images, group string, memory lazy.Files, eager bool, binary string) (letGo func(), err error) {
	into, err := keepersGroup()
	if err != nil {
		return nil, err
	}
	defer into.Close()
	logFile, err := os.OpenFile(dir.Log(), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer logFile.Close()
	ready, readyWrite, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	defer readyWrite.Close()
	held, leash, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer held.Close()
	if binary == "" {
		binary = "/proc/self/exe"
	}
	cmd := exec.Command(binary, "keeper", "fill", strconv.FormatBool(eager), strconv.FormatBool(memory.Spilled != nil), string(dir), images, group)
	cmd.Args[0] = "drover"
	cmd.Env = []string{}
	cmd.Dir = "/"
	cmd.Stderr = logFile
	cmd.ExtraFiles = []*os.File{readyWrite, held, memory.Pages, memory.Index}
	if memory.Spilled != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, memory.Spilled, memory.Seals)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, UseCgroupFD: true, CgroupFD: int(into.Fd())}
	if err := pace.Normally(cmd.Start); err != nil {
		leash.Close()
		return nil, errs.New(errs.Failed, "start what fills in memory: %w", err)
	}
	go func() { _ = cmd.Wait() }() // how it ended stands in the directory
	readyWrite.Close()
	said, err := awaitReady(ctx, ready)
	if err == nil {
		err = said.err()
	}
	if err != nil {
		leash.Close()
		_ = cmd.Process.Kill()
		return nil, errs.New(errs.KindOf(err), "start what fills in memory: %w", err).WithNext("see %s", dir.Log())
	}
	return func() { leash.Close() }, nil
}

// fill is the process.
func fill(eager, spilled bool, dir Dir, images, group string) int {
	last := fillIndexFD
	if spilled {
		last = fillSealsFD
	}
	for fd := fillReadyFD; fd <= last; fd++ {
		unix.CloseOnExec(fd)
	}
	ready, leash := os.NewFile(fillReadyFD, "ready"), os.NewFile(fillLeashFD, "leash")
	memory := lazy.Files{Pages: os.NewFile(fillPagesFD, "pages"), Index: os.NewFile(fillIndexFD, "index")}
	if spilled {
		memory.Spilled, memory.Seals = os.NewFile(fillSpilledFD, "spilled"), os.NewFile(fillSealsFD, "seals")
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, nil)).With("fill", images)
	f, note, err := beginFilling(dir, lazy.Config{
		Memory: func() (lazy.Memory, error) { return lazy.OpenMemory(memory) },
		Kill:   func() error { return killTree(group, log) },
		Eager:  eager,
		Scarce: scarce,
	}, images)
	_ = json.NewEncoder(ready).Encode(orNone(toWire(err))) // who does not hear it lets go of the leash
	ready.Close()
	if err != nil {
		return errs.KindOf(err).ExitCode()
	}
	go func() {
		_, _ = leash.Read(make([]byte, 1))
		f.Dismiss()
	}()
	go note.beat(f)
	stats, err := f.Fill(context.Background(), note.progress)
	f.Close()
	for err == nil {
		failed := note.over(stats.Bytes, stats.Took)
		if failed == nil {
			break
		}
		if note.gone() {
			log.Info("nobody wants to know any more that all is in place")
			break
		}
		log.Error("it cannot be noted that all is in place", "error", failed) // until it is, the source is held
		<-time.After(noteAgain)
	}
	if err != nil {
		log.Warn("memory not filled in", "error", err)
		return errs.KindOf(err).ExitCode()
	}
	log.Info("memory filled in", "bytes", stats.Bytes, "zeros", stats.Zeros, "faults", stats.Faults, "took", stats.Took)
	return 0
}

func beginFilling(dir Dir, c lazy.Config, images string) (*lazy.Filler, *fillingNote, error) {
	lock, err := os.OpenFile(dir.fillLock(), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, nil, errs.New(errs.Conflict, "somebody fills in memory there already")
	}
	d, err := os.OpenFile(string(dir), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	// Through its descriptor: another directory of that name belongs to another stay of the workload, and to another filler.
	n := &fillingNote{dir: d, lock: lock}
	if err := writePulse(lock, pulse{pid: os.Getpid(), beats: 1}); err != nil {
		return nil, nil, err
	}
	if err := n.write(Filling{}); err != nil {
		return nil, nil, err
	}
	f, err := lazy.Listen(images, c)
	return f, n, err
}

// noteAgain is the pause after the end could not be noted.
const noteAgain = 100 * time.Millisecond

// noteEvery is how often it is noted how far the filling is.
const noteEvery = 20 * time.Millisecond

// fillingNote is what stands in the keeper's directory.
type fillingNote struct {
	dir  *os.File
	lock *os.File // until this process ends

	mu   sync.Mutex
	last time.Time
}

func (n *fillingNote) progress(done, all uint64) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if now := time.Now(); now.Sub(n.last) > noteEvery {
		n.last = now
		_ = n.write(Filling{Done: done, All: all}) // the end counts
	}
}

func (n *fillingNote) over(all uint64, took time.Duration) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.write(Filling{Done: all, All: all, Over: true, Took: took})
}

func (n *fillingNote) write(f Filling) error {
	return writeJSON(through(n.dir, filepath.Base(Dir("").filling())), f)
}

// gone says whether the directory has been removed.
func (n *fillingNote) gone() bool {
	var st unix.Stat_t
	return unix.Fstat(int(n.dir.Fd()), &st) != nil || st.Nlink == 0
}

// awaitReady waits for a new process's word, which may be why it cannot get ready; nil is that it is.
func awaitReady(ctx context.Context, ready *os.File) (*wireError, error) {
	_ = ready.SetReadDeadline(time.Now().Add(readyTime))
	stop := context.AfterFunc(ctx, func() { _ = ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	var said wireError
	if err := json.NewDecoder(io.LimitReader(ready, maxPacket)).Decode(&said); err != nil {
		return nil, errors.Join(err, ctx.Err())
	}
	if said.Msg == "" {
		return nil, nil //nolint:nilnil // it is ready
	}
	return &said, nil
}

func orNone(w *wireError) wireError {
	if w == nil {
		return wireError{}
	}
	return *w
}

// killTime bounds one attempt to kill a tree whose memory cannot be filled in.
const killTime = 10 * time.Second

func killTree(group string, log *slog.Logger) error {
	ctx, cancel := context.WithTimeout(context.Background(), killTime)
	defer cancel()
	err := cgroup.Group(group).Kill(ctx)
	log.Error("the tree is killed: its memory cannot be filled in", "cgroup", group, "error", err)
	return err
}
