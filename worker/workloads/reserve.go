package workloads

import (
	"context"
	"errors"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/lazy"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
	"drover/worker/keeper"
	"drover/worker/tree"
)

// shell is the place for a tree that comes with a migration, on the target.
type shell struct {
	h      *Host
	e      *entry
	id     migration.ID
	rec    record
	client *keeper.Client
	opts   engine.Options
	hold   engine.Hold
}

// Reserve makes the place a tree will be restored into. What is remembered of an ended workload of that name goes.
func (h *Host) Reserve(ctx context.Context, inv workerapi.Inventory, epoch migration.Epoch, id migration.ID) (tree.Shell, error) {
	if err := errors.Join(inv.Spec.Validate(), id.Valid()); err != nil {
		return nil, err
	}
	e := h.entry(inv.Spec.Name)
	done, err := e.take(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	old := h.record(e)
	if old.Migration == id && old.Role == migration.Target {
		return h.shellOf(ctx, e, old)
	}
	if err := old.notOlder(epoch); err != nil {
		return nil, err
	}
	if err := h.cfg.Fit(); err != nil {
		return nil, errs.New(errs.KindOf(err), "make place for workload %s: %w", e.name, err)
	}
	switch {
	case old.State == reserved:
		return nil, errs.New(errs.Conflict, "workload %s is just moving to this host, with migration %s", e.name, old.Migration)
	case old.State == workload.Fenced:
		return nil, errs.New(errs.Conflict, "workload %s left a stopped tree on this host when it moved away", e.name).
			WithNext("remove it with `drover rm %s --host HOST`, by this host's name", e.name)
	case old.alive():
		return nil, errs.New(errs.Conflict, "workload %s has a tree on this host, %s", e.name, old.State).WithNext("remove it with `drover rm --force %s`", e.name)
	case old.State != gone:
		if err := h.forget(ctx, e, old, dropOutput); err != nil {
			return nil, err
		}
		old = h.record(e)
	}
	s, err := h.reserve(ctx, e, old, inv, epoch, id)
	if err != nil {
		return nil, errs.New(errs.KindOf(err), "make place for workload %s: %w", e.name, err)
	}
	return s, nil
}

func (h *Host) reserve(ctx context.Context, e *entry, old record, inv workerapi.Inventory, epoch migration.Epoch, id migration.ID) (*shell, error) {
	p, err := h.plan(inv.Spec, true)
	if err != nil {
		return nil, err
	}
	r := record{
		Spec: inv.Spec, Epoch: epoch, State: reserved, Boot: h.boot, Place: p,
		Migration: id, Role: migration.Target, KeepStopped: inv.StoppedPids, Options: inv.Options,
	}
	var u undo
	defer u.run(ctx, h)
	u.add(func(context.Context) error { return h.put(e, old) })
	u.add(func(ctx context.Context) error { return h.tearDown(ctx, r.Spec, r.Place, moveAway) })
	if err := h.put(e, r); err != nil {
		return nil, err
	}
	if _, err := h.make(ctx, r.Spec, &r.Place, true); err != nil {
		return nil, err
	}
	if err := h.makeImages(e.name); err != nil {
		return nil, err
	}
	if err := h.put(e, r); err != nil {
		return nil, err
	}
	s, err := h.shellOf(ctx, e, r)
	if err != nil {
		return nil, err
	}
	u.keep()
	return s, nil
}

func (h *Host) shellOf(ctx context.Context, e *entry, r record) (*shell, error) {
	s := &shell{h: h, e: e, id: r.Migration, rec: r, client: h.client(e.name), opts: h.restoreOptions(r)}
	if _, err := h.spawn(ctx, r.Spec, r.Place); err != nil {
		return nil, err
	}
	var err error
	if s.hold, err = s.client.HoldOf(ctx, true); err != nil {
		return nil, errs.New(errs.KindOf(err), "ask the keeper of workload %s: %w", e.name, err)
	}
	return s, nil
}

// restoreOptions map the dump's external mounts to this host's directories.
func (h *Host) restoreOptions(r record) engine.Options {
	opts := withSafe(r.Options)
	opts.External, opts.Root = nil, ""
	if r.Spec.Kind != workload.Run {
		return opts
	}
	opts.Root = h.keeperDir(r.Spec.Name).Root()
	opts.External = []string{"mnt[" + outputKey + "]:" + h.store.output(r.Spec.Name)}
	for i, v := range r.Place.Volumes {
		opts.External = append(opts.External, "mnt["+volumeKey(i)+"]:"+v.at())
	}
	return opts
}

func (s *shell) Cgroup() string          { return s.rec.Place.Cgroup }
func (s *shell) Engine() engine.Engine   { return s.client }
func (s *shell) Options() engine.Options { return s.opts }
func (s *shell) Hold() engine.Hold       { return s.hold }
func (s *shell) Images() string          { return s.h.images(s.e.name) }

func (s *shell) Inherit() map[string]string {
	if path := s.h.netns(s.rec.Spec); path != "" {
		return map[string]string{netKey: path}
	}
	return nil
}

// Accept makes the tree this host's workload. The verdict that released it brought the epoch.
func (s *shell) Accept(ctx context.Context, pid int, epoch migration.Epoch, stopped bool) error {
	done, err := s.e.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	r := s.h.record(s.e)
	if r.Migration != s.id || r.Role != migration.Target {
		return errs.New(errs.Conflict, "migration %s has no place for workload %s here any more", s.id, s.e.name)
	}
	if err := r.notOlder(epoch); err != nil {
		return err
	}
	first := r.State == reserved
	if first {
		st, err := s.client.State(ctx)
		if err != nil {
			return err
		}
		if st.Pid != pid {
			return errs.New(errs.Conflict, "the keeper of workload %s has process %d, not %d", s.e.name, st.Pid, pid)
		}
		r.Pid, r.Birth, r.Epoch, r.Started = pid, st.Birth, epoch, time.Now().UTC()
		r.State = workload.Running
		if stopped {
			r.State = workload.Stopped
		} else {
			r.KeepStopped = nil
		}
	}
	// The tree is out of reach until this is done: the disk can wait. Whoever crashes in between repeats it all.
	if err := s.h.unfence(ctx, r.Spec); err != nil {
		return err
	}
	if err := s.h.put(s.e, r); err != nil {
		return err
	}
	if first {
		s.h.follow(s.e)
	}
	// The tree runs: what follows is tidying up.
	if err := errors.Join(s.h.settleVolumes(&r), s.h.removeImages(s.e.name)); err != nil {
		s.h.log.Error("a moved workload's files are not all in their place", "workload", s.e.name, "error", err)
	}
	s.rec = r
	return s.h.put(s.e, r)
}

// settleVolumes puts the directories the tree already uses where the spec says they are: a mount follows its directory. What
// stood there belonged to an earlier stay of the workload, or to nobody.
func (h *Host) settleVolumes(r *record) error {
	var all error
	vols := append([]volume(nil), r.Place.Volumes...)
	for i := range vols {
		v := &vols[i]
		if v.Aside != "" {
			if err := h.setAside(v.Aside, v.Host); err != nil {
				all = errors.Join(all, err)
				continue
			}
			v.Aside = ""
		}
		if v.Staged == "" {
			continue
		}
		err := os.Rename(v.Staged, v.Host)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
			if err = unix.Renameat2(unix.AT_FDCWD, v.Staged, unix.AT_FDCWD, v.Host, unix.RENAME_EXCHANGE); err == nil {
				err = h.setAside(v.Staged, v.Host)
			}
		}
		if _, there := os.Lstat(v.Host); errors.Is(err, unix.ENOENT) && there == nil {
			err = nil // it was done before this worker's predecessor died
		}
		if err != nil {
			all = errors.Join(all, err)
			continue
		}
		v.Staged, v.Brought = "", true
	}
	r.Place.Volumes = vols
	return all
}

// setAside keeps what a volume's directory held before its workload came, once; it is the user's to remove. Repeating it does not
// touch what was kept.
func (h *Host) setAside(old, host string) error {
	if err := os.Remove(old); err == nil || errors.Is(err, unix.ENOENT) {
		return nil // it held nothing, or this was done before
	}
	aside := host + ".drover-replaced"
	if err := os.RemoveAll(aside); err != nil {
		return err
	}
	h.log.Warn("a volume's directory held other files: they have been set aside", "volume", host, "aside", aside)
	return os.Rename(old, aside)
}

// Alive says whether the accepted tree's root still runs.
func (s *shell) Alive() (alive bool, code, signal int) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r := s.h.record(s.e)
	if r.Migration != s.id || r.Pid == 0 {
		return false, 0, 0
	}
	st, err := s.client.State(ctx)
	switch {
	case err == nil && st.Pid == r.Pid && st.Exited:
		return false, st.Code, st.Signal
	case err == nil && st.Pid == r.Pid:
		return true, 0, 0
	case r.State == workload.Exited:
		return false, r.ExitCode, r.Signal
	}
	return sameProcess(r.Pid, r.Birth) && !gonePid(r.Pid), 0, 0
}

// Discard removes the place with whatever is in it, accepted or not. Repeating it is no error.
func (s *shell) Discard(ctx context.Context) error {
	done, err := s.e.take(ctx)
	if err != nil {
		return err
	}
	defer done()
	r := s.h.record(s.e)
	if r.Migration != s.id || r.Role != migration.Target {
		return nil
	}
	// From here on nobody takes the tree's end for news.
	r.State = reserved
	if err := s.h.put(s.e, r); err != nil {
		return err
	}
	return s.h.forget(ctx, s.e, r, moveAway)
}

// Fills implements tree.Shell.
func (s *shell) Fills(ctx context.Context) error {
	f, err := s.Engine().Probe(ctx)
	if err == nil && !f.LazyPages {
		err = errs.New(errs.Unavailable, "CRIU or the kernel of this host cannot restore a tree without its memory: %s", strings.Join(f.Missing, "; "))
	}
	return err
}

// Fill implements tree.Shell.
func (s *shell) Fill(ctx context.Context, memory lazy.Files, eager bool) (letGo func(), err error) {
	return keeper.StartFiller(ctx, s.h.keeperDir(s.e.name), s.Images(), s.Cgroup(), memory, eager, s.h.cfg.Binary)
}

// Filling implements tree.Shell.
func (s *shell) Filling() (tree.Filling, error) {
	f, err := keeper.ReadFilling(s.h.keeperDir(s.e.name))
	return tree.Filling{Done: f.Done, All: f.All, Over: f.Over, Took: f.Took, Beats: f.Beats}, err
}
