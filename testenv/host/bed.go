package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/testenv/rootfs"
)

// Bed is a set of hosts on one network segment. Its methods may be called from several goroutines.
type Bed struct {
	ID string // its name, the pid of its owner and a number: "demo-4711.1"

	dir     string
	cgroup  group
	rootfs  string
	segment *segment
	unlock  func() // says to others that the owner lives
	unuse   func() // lets the root file system be rebuilt

	mu     sync.Mutex
	hosts  []*Host
	closed bool
}

// bedsMade tells a process's beds apart.
var bedsMade atomic.Int64

var properName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// NewBed makes an empty bed; the caller closes it. It first removes what beds of dead processes left. Any number of beds can be
// open at once, each with its own segment, so that addresses need not differ between them.
func NewBed(ctx context.Context, name string) (_ *Bed, err error) {
	if os.Geteuid() != 0 {
		return nil, errs.New(errs.Refused, "test hosts need root: they are namespaces with mounts of their own").WithNext("run it as root")
	}
	if !properName.MatchString(name) {
		return nil, errs.New(errs.Invalid, "bed name %q: want small letters, digits and hyphens, a letter first, at most 31", name)
	}
	lower, err := rootfs.Dir()
	if err != nil {
		return nil, err
	}
	if err := Sweep(ctx); err != nil {
		return nil, err
	}
	b := &Bed{ID: fmt.Sprintf("%s-%d.%d", name, os.Getpid(), bedsMade.Add(1)), rootfs: lower}
	defer func() {
		if err != nil {
			err = errors.Join(err, b.Close())
		}
	}()
	if b.unuse, err = rootfs.Use(ctx, os.Stderr); err != nil {
		return nil, err
	}
	groups, err := bedsGroup()
	if err != nil {
		return nil, err
	}
	if b.dir, b.unlock, err = claim(b.ID); err != nil {
		return nil, err
	}
	b.cgroup = groups.child(b.ID)
	if err := b.cgroup.make(); err != nil {
		return nil, err
	}
	for _, g := range []group{groups, b.cgroup} {
		if err := g.delegate(); err != nil {
			return nil, err
		}
	}
	if b.segment, err = newSegment(); err != nil {
		return nil, err
	}
	if lacksSysResource() {
		slog.Info("this machine withholds CAP_SYS_RESOURCE: in test hosts criu runs with the test bed's preload shim")
	}
	return b, nil
}

// Host makes a host and starts it; see Options. Names are unique in a bed.
func (b *Bed) Host(ctx context.Context, name string, o Options) (*Host, error) {
	if !properName.MatchString(name) {
		return nil, errs.New(errs.Invalid, "host name %q: want small letters, digits and hyphens, a letter first, at most 31", name)
	}
	b.mu.Lock()
	if b.closed || b.named(name) != nil {
		b.mu.Unlock()
		return nil, errs.New(errs.Conflict, "host %s: the name is taken or the bed %s is closed", name, b.ID)
	}
	h := newHost(b, name, len(b.hosts), o)
	b.hosts = append(b.hosts, h)
	b.mu.Unlock()
	if err := h.Boot(ctx); err != nil {
		return nil, err
	}
	return h, nil
}

// Hosts lists the bed's hosts, up or down, in the order they were made.
func (b *Bed) Hosts() []*Host {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.hosts)
}

// Link is the cable of the host with that name; it panics if there is none, which is a mistake in the test.
func (b *Bed) Link(name string) *Link {
	b.mu.Lock()
	defer b.mu.Unlock()
	h := b.named(name)
	if h == nil {
		panic("no host " + name + " in bed " + b.ID)
	}
	return h.link
}

func (b *Bed) named(name string) *Host {
	i := slices.IndexFunc(b.hosts, func(h *Host) bool { return h.Name == name })
	if i < 0 {
		return nil
	}
	return b.hosts[i]
}

// Close ends the bed: every process, namespace, cgroup, mount, link and file of it is gone when it returns. It may be called
// twice.
func (b *Bed) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	hosts := b.hosts
	b.mu.Unlock()

	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	var failed []error
	for _, h := range hosts {
		failed = append(failed, h.Kill(ctx))
	}
	if b.segment != nil {
		failed = append(failed, b.segment.close())
	}
	if b.dir != "" {
		failed = append(failed, erase(ctx, b.dir, b.cgroup))
	}
	for _, release := range []func(){b.unlock, b.unuse} {
		if release != nil {
			release()
		}
	}
	return errors.Join(failed...)
}

// lacksSysResource says whether criu needs the preload shim here.
func lacksSysResource() bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return true
	}
	return data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) == 0
}

// bedsDir holds a folder for each bed.
func bedsDir() (string, error) {
	testbed, err := rootfs.Testbed()
	if err != nil {
		return "", err
	}
	return filepath.Join(testbed, "beds"), nil
}
