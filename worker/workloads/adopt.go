package workloads

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"

	"drover/internal/errs"
	"drover/internal/workload"
	"drover/worker/cgroup"
	"drover/worker/keeper"
)

// adopt takes a tree that runs already under a keeper's watch. Its processes are moved into a cgroup of drover's unless they
// have one for themselves.
func (h *Host) adopt(ctx context.Context, r *record, u *undo) error {
	ps, err := readProcesses()
	if err != nil {
		return err
	}
	root, err := h.find(ctx, r.Spec.Find, ps)
	if err != nil {
		return err
	}
	if err := h.mayAdopt(root, ps); err != nil {
		return err
	}
	tree := ps.tree(root)
	own, err := h.ownGroup(tree)
	if err != nil {
		return err
	}
	r.Place = place{Cgroup: own, Foreign: own != ""}
	if own == "" {
		r.Place.Cgroup = string(cgroup.For(h.mount, r.Spec.Name))
		back, err := cgroup.Of(strconv.Itoa(root))
		if err != nil {
			return err
		}
		group := cgroup.Group(r.Place.Cgroup)
		u.add(func(ctx context.Context) error { return group.Remove(ctx) })
		u.add(func(context.Context) error { return moveAll(group, cgroup.Group(filepath.Join(h.mount, back))) })
		if err := gather(root, group); err != nil {
			return err
		}
	}
	u.add(func(ctx context.Context) error {
		return errors.Join(h.endKeeper(ctx, r.Spec.Name), h.disconnect(ctx, r.Spec))
	})
	if err := h.connect(ctx, r.Spec, false); err != nil {
		return err
	}
	k, err := h.spawn(ctx, r.Spec, r.Place)
	if err != nil {
		return err
	}
	birth, _, err := keeper.Birth(root)
	if err != nil {
		return err
	}
	if err := k.Watch(ctx, root, birth); err != nil {
		return err
	}
	r.State, r.Pid, r.Birth = workload.Running, root, birth
	return nil
}

// find is the pid of the root that was asked for.
func (h *Host) find(ctx context.Context, f workload.Find, ps processes) (int, error) {
	switch {
	case f.Pid != 0:
		p, ok := ps[f.Pid]
		if !ok || p.Zombie() {
			return 0, errs.New(errs.NotFound, "there is no living process %d on this host", f.Pid).WithNext("find it with `ps -ef`")
		}
		return f.Pid, nil
	case f.Unit != "":
		path, err := groupOfUnit(ctx, f.Unit)
		if err != nil {
			return 0, err
		}
		return h.topmost(path, ps)
	}
	return h.topmost(f.Cgroup, ps)
}

// topmost is the one process of a cgroup whose parent is not in it.
func (h *Host) topmost(path string, ps processes) (int, error) {
	group := cgroup.Group(filepath.Join(h.mount, path))
	if !group.Exists() || filepath.Clean("/"+path) == "/" {
		return 0, errs.New(errs.NotFound, "there is no cgroup %s on this host", path).WithNext("give its path below %s", h.mount)
	}
	pids, err := group.Pids()
	if err != nil {
		return 0, err
	}
	in := map[int]bool{}
	for _, pid := range pids {
		in[pid] = true
	}
	var tops []int
	for _, pid := range pids {
		if p, ok := ps[pid]; ok && !p.Zombie() && !in[p.Parent] {
			tops = append(tops, pid)
		}
	}
	switch len(tops) {
	case 0:
		return 0, errs.New(errs.NotFound, "cgroup %s has no process", path)
	case 1:
		return tops[0], nil
	}
	return 0, errs.New(errs.Refused, "cgroup %s holds %d trees, with the roots %v", path, len(tops), tops).WithNext("adopt one of them with --pid")
}

func groupOfUnit(ctx context.Context, unit string) (string, error) {
	conn, err := dbus.NewSystemConnectionContext(ctx)
	if err != nil {
		return "", errs.New(errs.Refused, "unit %s cannot be looked up: no systemd answers on this host: %w", unit, err).WithNext("adopt it with --pid or --cgroup")
	}
	defer conn.Close()
	if !strings.Contains(unit, ".") {
		unit += ".service"
	}
	p, err := conn.GetUnitTypePropertyContext(ctx, unit, "Service", "ControlGroup")
	if err != nil {
		return "", errs.New(errs.NotFound, "unit %s: %w", unit, err).WithNext("see `systemctl status %s`", unit)
	}
	path, _ := p.Value.Value().(string)
	if path == "" {
		return "", errs.New(errs.NotFound, "unit %s does not run", unit).WithNext("start it with `systemctl start %s`", unit)
	}
	return path, nil
}

// findAnother is the next step for who asked for a process that is no service's.
const findAnother = "give the root of the service that is to move: `ps -ef --forest` shows it"

// mayAdopt refuses what must not or cannot be moved.
func (h *Host) mayAdopt(root int, ps processes) error {
	tree := ps.tree(root)
	switch {
	case root == 1:
		return errs.New(errs.Refused, "process 1 is the host's init: a host does not move").WithNext(findAnother)
	case ps[root].Kernel:
		return errs.New(errs.Refused, "process %d (%s) is a kernel thread", root, ps[root].Comm).WithNext(findAnother)
	}
	self := os.Getpid()
	for _, pid := range tree {
		if pid == self {
			return errs.New(errs.Refused, "process %d has drover's own worker below it", root).WithNext(findAnother)
		}
	}
	if own, err := h.isDrover(root); err != nil || own {
		return errors.Join(err, errs.New(errs.Refused, "process %d is drover's own", root).WithNext(findAnother))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.all {
		if !e.rec.alive() || e.rec.State == workload.Starting {
			continue
		}
		for _, pid := range append(tree, ps.ancestors(root)...) {
			if pid == e.rec.Pid {
				return errs.New(errs.Conflict, "process %d belongs to workload %s already", root, e.name).WithNext("see `drover show %s`", e.name)
			}
		}
	}
	return nil
}

// isDrover says whether a process runs drover's binary or lives in the keepers' cgroup.
func (h *Host) isDrover(pid int) (bool, error) {
	own, err1 := os.Stat("/proc/self/exe")
	its, err2 := os.Stat("/proc/" + strconv.Itoa(pid) + "/exe")
	if err1 == nil && err2 == nil && os.SameFile(own, its) {
		return true, nil
	}
	path, err := cgroup.Of(strconv.Itoa(pid))
	if err != nil {
		return false, err
	}
	return path == "/drover/"+keeper.Group, nil
}

// ownGroup is the cgroup that the tree and nothing else is in, "" if it has none.
func (h *Host) ownGroup(tree []int) (string, error) {
	path, err := cgroup.Of(strconv.Itoa(tree[0]))
	if err != nil || path == "/" || strings.HasPrefix(path, "/..") {
		return "", err
	}
	group := cgroup.Group(filepath.Join(h.mount, path))
	in, err := group.Pids()
	if err != nil {
		return "", err
	}
	mine := map[int]bool{}
	for _, pid := range tree {
		mine[pid] = true
	}
	for _, pid := range in {
		if !mine[pid] {
			return "", nil
		}
	}
	if len(in) != len(tree) {
		return "", nil
	}
	return string(group), nil
}

// gather moves a whole tree into a group. It is done when a look finds nobody outside: children of those inside are born
// inside.
func gather(root int, group cgroup.Group) error {
	if err := group.Make(); err != nil {
		return err
	}
	const looks = 100 // a tree that forks faster than it can be moved
	for range looks {
		ps, err := readProcesses()
		if err != nil {
			return err
		}
		inside, err := group.Pids()
		if err != nil {
			return err
		}
		in := map[int]bool{}
		for _, pid := range inside {
			in[pid] = true
		}
		outside := 0
		for _, pid := range ps.tree(root) {
			if in[pid] || ps[pid].Zombie() {
				continue
			}
			outside++
			if err := group.Move(pid); err != nil && !gonePid(pid) {
				return err
			}
		}
		if outside == 0 {
			return nil
		}
	}
	return errs.New(errs.Refused, "the tree of process %d forks faster than its processes can be moved into a cgroup", root)
}

func gonePid(pid int) bool {
	_, zombie, err := keeper.Birth(pid)
	return err != nil || zombie
}

func moveAll(from, to cgroup.Group) error {
	pids, err := from.Pids()
	for _, pid := range pids {
		if e := to.Move(pid); e != nil && !gonePid(pid) {
			err = errors.Join(err, e)
		}
	}
	return err
}
