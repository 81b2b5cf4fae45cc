package criu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/track"
	"drover/internal/errs"
	"drover/internal/migration"
)

// defaultTimeout bounds a dump or restore up to its hold.
const defaultTimeout = 60 * time.Second

// Config says which CRIU to drive.
type Config struct {
	Path string       // of the criu program; "" looks for criu in PATH
	Log  *slog.Logger // nil discards
}

// Engine drives CRIU. Its zero value is not usable; New makes one.
type Engine struct {
	path string
	log  *slog.Logger
}

var _ engine.Engine = (*Engine)(nil)

// New makes an engine. It starts nothing and looks at nothing; Probe says whether CRIU is there.
func New(c Config) *Engine {
	if c.Path == "" {
		c.Path = "criu"
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Engine{path: c.Path, log: c.Log}
}

// PreDump implements engine.Engine.
func (e *Engine) PreDump(ctx context.Context, req engine.PreDumpRequest) (engine.Stats, error) {
	var none engine.Stats
	if _, err := req.FinalState.Resolve(migration.OpPreDump); err != nil {
		return none, err
	}
	if !softDirty() {
		return none, errs.New(errs.Refused, "pre-dump of pid %d: %w", req.Tree.Pid, engine.ErrNoTracking).WithNext("use the hash tracker, which works on any kernel")
	}
	if err := mayDump(req.Tree); err != nil {
		return none, err
	}
	ctx, cancel := context.WithTimeout(ctx, defaultTimeout)
	defer cancel()
	s, err := startFrom(nil, forked{patience: finishTime}, e.path, req.Images, pagesFile(req.Pages)...)
	if err != nil {
		return none, e.startFailed(err)
	}
	defer s.kill()
	opts := options(req.Options, s.images, preDumpLog)
	opts.Pid = ptr(int32(req.Tree.Pid))
	opts.TrackMem = ptr(true)
	setParent(opts, req.Parent)
	setPages(opts, req.Pages)
	resp, err := s.talk(ctx, &rpc.CriuReq{Type: rpc.CriuReqType_SINGLE_PRE_DUMP.Enum(), Opts: opts}, goOn)
	if err == nil && resp.GetSuccess() {
		return s.dumpStats(), nil
	}
	err = failure(fmt.Sprintf("pre-dump pid %d", req.Tree.Pid), s.images, preDumpLog, resp, err)
	takeNone(req.Pages)
	_ = s.leave(undoTime) // else it is killed, and its child goes on
	if s.kill(); s.cutShort {
		return none, errs.New(errs.KindOf(err), "%w; its child had not ended %s later and was killed", err, finishTime).
			WithNext("look at the tree: a process of it may have died")
	}
	return none, err
}

const (
	preDumpLog = "pre-dump.log"
	// finishTime is how long the child that makes a pre-dump may take when it is not wanted any more, or CRIU was killed. Killed while threads of
	// the tree run its code, some 100 ms for each GiB, it would take a process along. It holds no network and no socket: there is nothing to undo.
	finishTime = time.Minute
)

// goOn answers every notification with "true".
func goOn(*rpc.CriuNotify) (ok, hold bool) { return true, false }

// logInfo is pr_info (criu/include/log.h), which names what errors are about. One level more writes some twenty lines for each MiB of
// memory, in the freeze.
const logInfo = 3

// options are those that every request has.
func options(o engine.Options, images *os.File, logFile string) *rpc.CriuOpts {
	_ = os.Remove(inDir(images, logFile)) // a failure must not be explained by an earlier attempt's log
	opts := &rpc.CriuOpts{
		ImagesDirFd:       ptr(int32(images.Fd())), // CRIU opens it through /proc/<our pid>/fd
		LogLevel:          ptr(int32(logInfo)),
		LogFile:           ptr(logFile),
		NotifyScripts:     ptr(true),
		TcpEstablished:    ptr(o.TCPEstablished),
		FileLocks:         ptr(o.FileLocks),
		LinkRemap:         ptr(o.LinkRemap),
		ShellJob:          ptr(o.ShellJob),
		External:          slices.Clone(o.External),
		NetworkLock:       rpc.CriuNetworkLockMethod_NFTABLES.Enum(),
		ManageCgroups:     ptr(true),
		ManageCgroupsMode: rpc.CriuCgMode_IGNORE.Enum(), // the tree's cgroup is drover's business on both hosts
		ExtUnixSk:         ptr(true),
	}
	if o.GhostLimit > 0 {
		opts.GhostLimit = ptr(o.GhostLimit)
	}
	return opts
}

// pagesFile are start's files for a dump whose pages go to a connected socket, setPages is what tells CRIU.
func pagesFile(pages *os.File) []*os.File {
	if pages == nil {
		return nil
	}
	return []*os.File{pages}
}

func setPages(opts *rpc.CriuOpts, pages *os.File) {
	if pages != nil {
		opts.Ps = &rpc.CriuPageServerInfo{Fd: ptr(int32(firstFD))}
	}
}

func setParent(opts *rpc.CriuOpts, parent string) {
	if parent != "" {
		opts.ParentImg = ptr(parent)
		opts.TrackMem = ptr(true)
	}
}

// startFailed explains why CRIU could not even be started.
func (e *Engine) startFailed(err error) error {
	return errs.New(errs.Unavailable, "%w", err).WithNext("%s", engine.InstallCRIU)
}

// Probe implements engine.Engine.
func (e *Engine) Probe(ctx context.Context) (engine.Features, error) {
	wp := track.ProbeWP()
	f := engine.Features{Engine: "criu", Kernel: kernelRelease(), SoftDirty: softDirty(), WPAsync: wp == nil}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	s, err := start(e.path, nil)
	if err != nil {
		return f, e.startFailed(err)
	}
	defer s.close()
	f.Path = s.cmd.Path
	resp, err := s.talk(ctx, &rpc.CriuReq{Type: rpc.CriuReqType_VERSION.Enum(), KeepOpen: ptr(true)}, goOn)
	if err != nil || !resp.GetSuccess() {
		return f, errs.New(errs.Unavailable, "CRIU at %s could not be asked for its version: %s", f.Path, s.whyNoAnswer(resp, err)).WithNext("run `%s check`; %s", f.Path, engine.InstallCRIU)
	}
	v := resp.GetVersion()
	f.Version = fmt.Sprintf("%d.%d.%d", v.GetMajorNumber(), v.GetMinorNumber(), v.GetSublevel())
	if v.GetMajorNumber() < 4 || v.GetMajorNumber() == 4 && v.GetMinorNumber() < 2 {
		f.Unfit = fmt.Sprintf("CRIU %s at %s is too old: drover needs 4.2 or later", f.Version, f.Path)
		f.Missing = append(f.Missing, "CRIU 4.2 or later: this one's page protocol and images differ, and it cannot dump sockets on recent kernels")
	}
	if err := s.lazyPages(ctx); err != nil {
		f.Missing = append(f.Missing, fmt.Sprintf("lazy pages (%v): the memory goes through CRIU's images, and the blackout grows with it", err))
	} else {
		f.LazyPages = true
	}
	if wp != nil {
		f.Missing = append(f.Missing, fmt.Sprintf("the wp tracker (%v): rounds use another", wp))
	}
	if !f.SoftDirty {
		f.Missing = append(f.Missing, "soft-dirty page tracking (CONFIG_MEM_SOFT_DIRTY): CRIU's own pre-dump does not work, rounds use another tracker")
	}
	return f, nil
}

// whyNoAnswer says why CRIU has not answered a question that holds no tree.
func (s *swrk) whyNoAnswer(resp *rpc.CriuResp, err error) string {
	switch {
	case err == nil:
		return fmt.Sprintf("it answers with errno %d", resp.GetCrErrno())
	case errors.Is(err, context.DeadlineExceeded):
		return "it does not answer"
	}
	if how := s.end(); how != nil {
		return "it ended without an answer: " + how.Error()
	}
	return err.Error()
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// softDirty says whether the kernel marks written pages in bit 55 of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst)
// by looking at a page that was just written: fresh pages are soft-dirty wherever the kernel knows of it.
func softDirty() bool {
	b, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return false
	}
	defer unix.Munmap(b)
	b[0] = 1
	return pagemapBit(b, 55)
}

// inDir is the path at which this process reaches a file in an open directory.
func inDir(dir *os.File, name string) string {
	return filepath.Join(fmt.Sprintf("/proc/self/fd/%d", dir.Fd()), name)
}

// netnsOf is the path of a process's network namespace, "" if it is the caller's own.
func netnsOf(pid int) string {
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	theirs, err := os.Readlink(path)
	own, _ := os.Readlink("/proc/thread-self/ns/net")
	if err != nil || theirs == own || !strings.HasPrefix(theirs, "net:") {
		return ""
	}
	return path
}
