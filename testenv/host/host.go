package host

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// Path is PATH in a host.
const Path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// Options are a host's properties; the zero value is a host without an address.
type Options struct {
	Address  string // of eth0, with its prefix: "10.77.0.1/24"; "" for none
	FirstPid int    // where its pids start; 0 for a range of its own in the bed
}

// Host is one host of a bed. It is up from Bed.Host or Boot until Kill. Its methods may be called from several goroutines, but
// not while it boots or is being killed.
type Host struct {
	Name    string
	Options Options

	bed    *Bed
	dir    string
	cgroup group
	link   *Link

	mu   sync.Mutex
	pid  int       // of pid 1 as the machine sees it; 0 when it is down
	life io.Closer // the end of the host when closed
	gone chan struct{}
}

// pidsApart is the distance between the first pids of a bed's hosts.
const pidsApart = 3000

func newHost(b *Bed, name string, index int, o Options) *Host {
	if o.FirstPid == 0 {
		o.FirstPid = 1000 + index%9*pidsApart
	}
	h := &Host{Name: name, Options: o, bed: b, dir: filepath.Join(b.dir, name), cgroup: b.cgroup.child(name)}
	h.link = &Link{host: h, index: index, segment: b.segment}
	return h
}

// Boot starts a host that was killed, with the disk it had: what it wrote outside /run, /tmp and /dev is there again. Its cable
// is as new: no shape, not cut.
func (h *Host) Boot(ctx context.Context) error {
	if h.Up() {
		return errs.New(errs.Conflict, "boot host %s: it is up", h.Name)
	}
	if err := h.boot(ctx); err != nil {
		kill, cancel := context.WithTimeout(context.Background(), closeTimeout)
		defer cancel()
		return errors.Join(errs.New(errs.Failed, "boot host %s: %w", h.Name, err), h.Kill(kill))
	}
	return nil
}

func (h *Host) boot(ctx context.Context) error {
	for _, dir := range []string{"upper", "work", "root"} {
		if err := os.MkdirAll(filepath.Join(h.dir, dir), 0o755); err != nil {
			return err
		}
	}
	for _, g := range []group{h.cgroup, h.cgroup.child("init"), h.cgroup.child("system")} {
		if err := g.make(); err != nil {
			return err
		}
	}
	if err := h.startPid1(ctx); err != nil {
		return err
	}
	if err := h.cgroup.child("init").write("cgroup.procs", strconv.Itoa(h.pid)); err != nil {
		return err
	}
	if err := h.cgroup.delegate(); err != nil {
		return err
	}
	if err := h.link.plug(h.pid, h.Options.Address); err != nil {
		return err
	}
	return os.WriteFile(h.pidFile(), []byte(strconv.Itoa(h.pid)), 0o600)
}

// startPid1 returns when pid 1 runs in the finished host.
func (h *Host) startPid1(ctx context.Context) error {
	say, err := json.Marshal(plan{Name: h.Name, Lower: h.bed.rootfs, Dir: h.dir, FirstPid: h.Options.FirstPid})
	if err != nil {
		return err
	}
	console, err := os.OpenFile(h.console(), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	cgroup, err := os.Open(string(h.cgroup))
	if err != nil {
		return err
	}
	defer cgroup.Close()
	lifeIn, life, err := os.Pipe()
	if err != nil {
		return err
	}
	defer lifeIn.Close()
	ready, readyIn, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ready.Close()

	cmd := again(bootName, string(say))
	cmd.Stdout, cmd.Stderr = console, console
	cmd.ExtraFiles = []*os.File{lifeIn, readyIn} // lifeFd, readyFd
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET,
		UseCgroupFD: true, CgroupFD: int(cgroup.Fd()),
		Setsid: true,
	}
	err = cmd.Start()
	readyIn.Close()
	if err != nil {
		life.Close()
		return err
	}
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // how it ended is on the console; that it ended is what matters
		close(gone)
	}()
	h.mu.Lock()
	h.pid, h.life, h.gone = cmd.Process.Pid, life, gone
	h.mu.Unlock()
	return h.awaitReady(ctx, ready)
}

func (h *Host) awaitReady(ctx context.Context, ready *os.File) error {
	stop := context.AfterFunc(ctx, func() { ready.Close() })
	defer stop()
	if n, _ := ready.Read(make([]byte, 8)); n > 0 {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	said, err := os.ReadFile(h.console())
	if err != nil {
		return err
	}
	return errors.New(strings.TrimSpace(string(said)))
}

func (h *Host) console() string { return filepath.Join(h.dir, "console.log") }

// pidFile holds the machine's pid of the host's pid 1, for other processes that want to enter; see Find.
func (h *Host) pidFile() string { return filepath.Join(h.dir, "pid") }

// Up says whether the host runs (or is paused).
func (h *Host) Up() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.pid == 0 {
		return false
	}
	select {
	case <-h.gone:
		return false
	default:
		return true
	}
}

// Kill cuts the host's power: all its processes end at once, its memory and its cable are gone, its disk stays. A host that is
// down is no error.
func (h *Host) Kill(ctx context.Context) error {
	h.mu.Lock()
	pid, life, gone := h.pid, h.life, h.gone
	h.pid = 0
	h.mu.Unlock()
	if pid == 0 {
		return nil
	}
	var failed []error
	failed = append(failed, h.cgroup.remove(ctx))
	failed = append(failed, life.Close())
	select {
	case <-gone:
	case <-ctx.Done():
		failed = append(failed, ctx.Err())
	}
	failed = append(failed, h.link.unplug())
	if err := errors.Join(failed...); err != nil {
		return errs.New(errs.Failed, "kill host %s: %w", h.Name, err)
	}
	return nil
}

// Pause freezes every process of the host until Resume: to the others it looks like a host that hangs.
func (h *Host) Pause(ctx context.Context) error { return h.cgroup.freeze(ctx, true) }

// Resume ends a Pause.
func (h *Host) Resume(ctx context.Context) error { return h.cgroup.freeze(ctx, false) }

// Pid is the host's pid 1 as the machine sees it, 0 when it is down.
func (h *Host) Pid() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.pid
}

// Link is the host's cable.
func (h *Host) Link() *Link { return h.link }
