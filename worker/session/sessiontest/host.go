package sessiontest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"drover/engine"
	"drover/engine/image"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/tree"
)

// Host is one host's workloads: a tree.Host. It plays the keepers and the kernel, so it stays when a worker is restarted.
type Host struct {
	world *World
	name  string
	dir   string // of images

	mu     sync.Mutex
	places map[string]*place
}

// place is a workload's place on a host: with a tree of its own, lent or not, or reserved for one that comes.
type place struct {
	host *Host
	name string

	mu        sync.Mutex
	tree      *Copy
	held      *hold
	filler    *filler
	migration migration.ID
	role      migration.Role
	epoch     migration.Epoch
	accepted  bool
	files     map[string]string // that came
}

// Host makes a host; dir is for the images of trees that come.
func (w *World) Host(name, dir string) *Host {
	return &Host{world: w, name: name, dir: dir, places: map[string]*place{}}
}

// Run starts a workload with a few pages of memory.
func (h *Host) Run(workload string, epoch migration.Epoch) *Copy {
	p := h.place(workload)
	c := h.world.born(workload, h.name, Running)
	c.Write(image.Space{Kind: image.Process, ID: 1}, 0x10000, 40)
	c.Write(image.Space{Kind: image.Process, ID: 7}, 0x20000, 5)
	c.Write(image.Space{Kind: image.Shmem, ID: 3}, 0, 3)
	p.tree, p.epoch = c, epoch
	return c
}

// Copy is the copy of the workload that is on this host, nil if there never was one.
func (h *Host) Copy(workload string) *Copy { return h.place(workload).copy() }

// Files are the files that were carried here with the workload.
func (h *Host) Files(workload string) map[string]string {
	p := h.place(workload)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.files
}

// Epoch is the newest epoch the host has seen of the workload.
func (h *Host) Epoch(workload string) migration.Epoch {
	p := h.place(workload)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.epoch
}

// LoseHold kills the engine's process that holds the workload's tree, if one does.
func (h *Host) LoseHold(workload string) {
	p := h.place(workload)
	p.mu.Lock()
	held := p.held
	p.mu.Unlock()
	if held != nil {
		held.lose()
	}
}

// LoseKeeper kills the keeper of a workload: what it held is known to nobody, the tree stays as it is.
func (h *Host) LoseKeeper(workload string) {
	h.LoseHold(workload)
	p := h.place(workload)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = nil
}

// Crash takes the workload's tree and all that held it, as when the host goes down.
func (h *Host) Crash(workload string) {
	h.LoseKeeper(workload)
	p := h.place(workload)
	if c := p.copy(); c != nil {
		c.Kill(9)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.migration = ""
}

// Busy says whether a migration has the workload's place.
func (h *Host) Busy(workload string) bool {
	p := h.place(workload)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.migration != ""
}

func (h *Host) place(workload string) *place {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.places[workload]
	if p == nil {
		p = &place{host: h, name: workload, files: map[string]string{}}
		h.places[workload] = p
	}
	return p
}

func (p *place) step(name string) error { return p.host.world.step(p.host.name + ":" + name) }

func (p *place) copy() *Copy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.tree
}

func (p *place) put(c *Copy) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tree = c
}

func (p *place) keep(h *hold) *hold {
	h.gone = make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held = h
	return h
}

// Lend is tree.Host's.
func (h *Host) Lend(_ context.Context, name string, epoch migration.Epoch, id migration.ID) (tree.Lent, error) {
	p := h.place(name)
	if err := p.step("lend"); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.tree == nil:
		return nil, errs.New(errs.NotFound, "%s is not on %s", name, h.name)
	case epoch < p.epoch || p.migration != "" && p.migration != id && !p.accepted:
		return nil, errs.New(errs.Conflict, "%s is at %s and lent to %q", name, p.epoch, p.migration)
	}
	p.migration, p.role, p.epoch, p.held, p.accepted = id, migration.Source, epoch, nil, false
	return lent{p}, nil
}

// Reserve is tree.Host's.
func (h *Host) Reserve(_ context.Context, inv workerapi.Inventory, epoch migration.Epoch, id migration.ID) (tree.Shell, error) {
	p := h.place(inv.Spec.Name)
	if err := p.step("reserve"); err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if epoch < p.epoch || p.migration != "" && p.migration != id || p.tree != nil && p.tree.State() != Dead {
		return nil, errs.New(errs.Conflict, "%s has no place for %s", h.name, p.name)
	}
	p.migration, p.role, p.epoch, p.held, p.tree, p.accepted, p.filler = id, migration.Target, epoch, nil, nil, false, nil
	return shell{p}, os.MkdirAll(shell{p}.Images(), 0o700)
}

// Find is tree.Host's. Its step is "find", a space and the workload.
func (h *Host) Find(_ context.Context, id migration.ID) (tree.Lent, tree.Shell, error) {
	p, role := h.of(id)
	if p == nil {
		return nil, nil, errs.New(errs.NotFound, "%s has nothing of migration %s", h.name, id)
	}
	if err := p.step("find " + p.name); err != nil {
		return nil, nil, err
	}
	if role == migration.Source {
		return lent{p}, nil, nil
	}
	return nil, shell{p}, nil
}

// of is the place that a migration has, nil if it has none.
func (h *Host) of(id migration.ID) (*place, migration.Role) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range h.places {
		p.mu.Lock()
		mine, role := p.migration == id, p.role
		p.mu.Unlock()
		if mine {
			return p, role
		}
	}
	return nil, ""
}

type lent struct{ *place }

func (l lent) Tree() engine.Tree       { return engine.Tree{Pid: l.copy().Pid, Cgroup: "/" + l.name} }
func (l lent) Engine() engine.Engine   { return model{l.place} }
func (l lent) Options() engine.Options { return engine.Options{} }
func (l lent) Hold() engine.Hold       { return l.hold() }

func (p *place) hold() engine.Hold {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		return nil
	}
	return p.held
}

func (l lent) Freeze(context.Context) error {
	if err := l.step("freeze"); err != nil {
		return err
	}
	if c := l.copy(); c.State() == Running {
		c.set(Frozen)
	}
	return nil
}

func (l lent) Thaw(context.Context) error {
	if err := l.step("thaw"); err != nil {
		return err
	}
	if c := l.copy(); c.State() == Frozen {
		c.set(Running)
	}
	return nil
}

// Throttle is tree.Lent's. The model's tree is not slower for it: who plays the program reads Throttled.
func (l lent) Throttle() (tree.Throttle, error) { return throttle(l), l.step("may-throttle") }

func (l lent) Unthrottle(before string) error { return l.step("unthrottle-" + before) }

type throttle struct{ *place }

func (throttle) Before() string { return "as-before" }
func (throttle) How() string    { return "words" }

func (t throttle) Set(percent int) error {
	if c := t.copy(); c.State() == Running {
		c.throttled(percent)
	}
	return t.step(fmt.Sprintf("throttle-%d", percent))
}

func (t throttle) End(context.Context) error {
	if c := t.copy(); c.State() == Frozen { // the end of a real one would have thawed it
		c.wrong("its throttle was ended while it was held")
	}
	t.copy().throttled(0)
	return t.step("throttle-end")
}

func (l lent) Fence(context.Context) error {
	if err := l.step("fence"); err != nil {
		return err
	}
	l.copy().fence(true)
	return nil
}

func (l lent) Unfence(context.Context) error {
	if err := l.step("unfence"); err != nil {
		return err
	}
	l.copy().fence(false)
	return nil
}

func (l lent) Carry(_ context.Context, f func(tree.CarriedFile, io.Reader) error) error {
	if err := l.step("carry"); err != nil {
		return err
	}
	data := "written by " + l.name
	return f(tree.CarriedFile{Volume: -1, Path: "stdout", Size: int64(len(data))}, strings.NewReader(data))
}

func (l lent) Return(_ context.Context, epoch migration.Epoch) error {
	if err := l.step("return"); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.migration, l.epoch, l.held = "", max(l.epoch, epoch), nil
	return nil
}

func (l lent) Leave(_ context.Context, final migration.FinalState) error {
	if err := l.step("leave"); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.migration, l.epoch, l.held = "", l.epoch+1, nil
	return nil
}

type shell struct{ *place }

func (s shell) Cgroup() string             { return "/" + s.name }
func (s shell) Engine() engine.Engine      { return model{s.place} }
func (s shell) Options() engine.Options    { return engine.Options{} }
func (s shell) Hold() engine.Hold          { return s.hold() }
func (s shell) Inherit() map[string]string { return nil }
func (s shell) Images() string             { return filepath.Join(s.host.dir, "images-"+s.name) }

func (s shell) Receive(_ context.Context, f tree.CarriedFile, data io.Reader) error {
	if err := s.step("receive"); err != nil {
		return err
	}
	b, err := io.ReadAll(data)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[f.Path] = string(b)
	return err
}

func (s shell) Accept(_ context.Context, pid int, epoch migration.Epoch, _ bool) error {
	if err := s.step("accept"); err != nil {
		return err
	}
	s.mu.Lock()
	c := s.tree
	s.epoch, s.accepted = epoch, true
	s.mu.Unlock()
	if c == nil || c.Pid != pid {
		return errors.New("no such process")
	}
	c.fence(false)
	return nil
}

func (s shell) Alive() (bool, int, int) {
	c := s.copy()
	if c == nil {
		return false, 0, 0
	}
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	return c.state != Dead, 0, c.killed
}

func (s shell) Discard(context.Context) error {
	if err := s.step("discard"); err != nil {
		return err
	}
	if c := s.copy(); c != nil && c.State() != Dead {
		c.Kill(9)
	}
	s.mu.Lock()
	s.migration, s.held = "", nil
	s.mu.Unlock()
	return os.RemoveAll(s.Images())
}
