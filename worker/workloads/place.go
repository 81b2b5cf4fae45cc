package workloads

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/internal/workload"
	"drover/worker/cgroup"
	"drover/worker/keeper"
)

// place is what stands on the host for one tree. A record that lists something that is not there is harmless; the opposite
// would leave it behind. So the record is saved first.
type place struct {
	Cgroup string `json:"cgroup,omitempty"` // absolute
	// Foreign says that the cgroup is an adopted tree's own, which drover did not make and does not remove.
	Foreign bool     `json:"foreign,omitempty"`
	Volumes []volume `json:"volumes,omitempty"`
	// Made are directories that drover made in the host's file system, outermost first; they go with the tree if they are empty.
	Made []string `json:"made,omitempty"`
	// Lock is the nftables table that a dump has left around the connections of a tree that stands still, "" if there is none.
	Lock string `json:"lock,omitempty"`
}

// volume is one of Spec.Volumes on this host.
type volume struct {
	workload.Volume
	// Staged is where the volume's files are until the tree is accepted here, "" if they are at Host.
	Staged string `json:"staged,omitempty"`
	// Aside is where what stood at Host is until the tree is accepted here; only for a volume that cannot be staged.
	Aside string `json:"aside,omitempty"`
	// Brought says that the files came with a migration: they leave with the tree.
	Brought bool `json:"brought,omitempty"`
}

// at is where the volume's files are now.
func (v volume) at() string {
	if v.Staged != "" {
		return v.Staged
	}
	return v.Host
}

// endTime bounds the ending of keepers and cgroups.
const endTime = 20 * time.Second

// rootfs is the directory that becomes the tree's root, "" for a tree in its host's mount namespace.
func rootfs(s workload.Spec) string {
	switch {
	case s.Kind != workload.Run:
		return ""
	case s.Rootfs == "":
		return "/"
	}
	return s.Rootfs
}

// plan is the place a spec needs on this host. It changes nothing. incoming says that its files come with a migration.
func (h *Host) plan(s workload.Spec, incoming bool) (place, error) {
	p := place{Cgroup: string(cgroup.For(h.mount, s.Name))}
	if root := rootfs(s); root != "" {
		if info, err := os.Stat(root); err != nil || !info.IsDir() {
			return p, errs.New(errs.NotFound, "root file system %s of workload %s is not a directory on this host", root, s.Name).
				WithNext("put it there, or choose another --rootfs")
		}
	}
	for _, v := range s.Volumes {
		info, err := os.Lstat(v.Host)
		switch {
		case err == nil && !info.IsDir():
			return p, errs.New(errs.Refused, "volume %s of workload %s is not a directory on this host", v.Host, s.Name)
		case err != nil && !errors.Is(err, os.ErrNotExist):
			return p, errs.New(errs.Failed, "volume %s of workload %s: %w", v.Host, s.Name, err)
		case err != nil && v.Shared:
			return p, errs.New(errs.NotFound, "shared volume %s of workload %s is not on this host", v.Host, s.Name).WithNext("mount it here as on the other hosts")
		}
		vol := volume{Volume: v}
		if incoming && !v.Shared {
			if vol, err = incomingVolume(rootfs(s), v, err == nil); err != nil {
				return p, err
			}
		}
		p.Volumes = append(p.Volumes, vol)
	}
	return p, nil
}

// incomingVolume says where a volume's files are while they come; there says whether its directory exists. They come beside it,
// and take its place when the tree is accepted. Where the tree's mount point lies in that very directory, as with
// --volume /srv/db:/srv/db in the host's own root, they cannot: a mount point that is renamed takes its mount along, and the tree
// would see its files under a name that no other host knows. There they come in place, and what was there stands aside meanwhile.
func incomingVolume(rootfs string, v workload.Volume, there bool) (volume, error) {
	vol := volume{Volume: v, Brought: !there, Staged: stagedFor(v.Host)}
	if !holds(v.Host, filepath.Join(rootfs, v.Inside)) || vol.Staged == "" {
		return vol, nil
	}
	vol.Staged, vol.Brought = "", true
	if !there {
		return vol, nil
	}
	vol.Aside = v.Host + ".drover-aside"
	if _, err := os.Lstat(vol.Aside); err == nil {
		return vol, errs.New(errs.Refused, "volume %s: %s is in the way", v.Host, vol.Aside).WithNext("look at what it holds and move it away")
	}
	return vol, nil
}

// holds says whether path is dir or lies below it.
func holds(dir, path string) bool { return strings.HasPrefix(path+"/", dir+"/") }

// stagedFor is a sibling of the volume's directory, so that it can take its place by a rename; "" if it cannot, because the
// directory is a mount point.
func stagedFor(host string) string {
	var self, parent unix.Stat_t
	if unix.Stat(host, &self) == nil && unix.Stat(filepath.Dir(host), &parent) == nil && self.Dev != parent.Dev {
		return ""
	}
	return host + ".drover-incoming"
}

// make makes what p lists: volumes, mount points, output files, the address, the cgroup, the keeper. Whatever fails, what has
// been made is taken down again by the caller with tearDown.
func (h *Host) make(ctx context.Context, s workload.Spec, p *place, fenced bool) (*keeper.Client, error) {
	for _, v := range p.Volumes {
		if v.Aside != "" {
			err := os.Rename(v.Host, v.Aside)
			if err == nil {
				err = os.Mkdir(v.Host, 0o755)
			}
			if err != nil {
				return nil, errs.New(errs.Failed, "set aside what is in volume %s of workload %s: %w", v.Host, s.Name, err)
			}
		}
		if err := p.mkdirs(v.at(), 0o755); err != nil {
			return nil, errs.New(errs.Failed, "make volume %s of workload %s: %w", v.at(), s.Name, err)
		}
		if err := p.mountPoint(rootfs(s), v.Inside); err != nil {
			return nil, errs.New(errs.Failed, "make the mount point %s in the root of workload %s: %w", v.Inside, s.Name, err)
		}
	}
	if s.Kind == workload.Run {
		if err := h.makeOutput(s); err != nil {
			return nil, err
		}
	}
	if err := h.connect(ctx, s, fenced); err != nil {
		return nil, err
	}
	if err := cgroup.Group(p.Cgroup).Make(); err != nil {
		return nil, err
	}
	return h.spawn(ctx, s, *p)
}

// spawn is the workload's keeper, started if there is none: one that lives is taken as it is, one that died is replaced by
// another that watches the same tree.
func (h *Host) spawn(ctx context.Context, s workload.Spec, p place) (*keeper.Client, error) {
	e := h.entry(s.Name)
	e.spawning.Lock()
	defer e.spawning.Unlock()
	return keeper.Spawn(ctx, h.keeperDir(s.Name), keeper.Config{
		Workload: s.Name, Cgroup: p.Cgroup, Rootfs: rootfs(s), CRIU: h.cfg.CRIU, Debug: h.cfg.Debug,
	}, h.cfg.Binary)
}

// makeOutput makes the two files that the tree's streams go to. They are the command's user's to reopen through /dev/stdout.
func (h *Host) makeOutput(s workload.Spec) error {
	dir := h.store.output(s.Name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return errs.New(errs.Failed, "make the output directory of workload %s: %w", s.Name, err)
	}
	uid, gid, err := keeper.IDs(s.User)
	if err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return errs.New(errs.Failed, "open the output directory of workload %s: %w", s.Name, err)
	}
	defer root.Close()
	for _, name := range []string{"stdout", "stderr"} {
		f, err := openOutput(root, name, os.O_CREATE|os.O_WRONLY)
		if err != nil {
			return errs.New(errs.KindOf(err), "make the output files of workload %s: %w", s.Name, err).WithNext("look at it, and move it away")
		}
		err = f.Chown(uid, gid)
		f.Close()
		if err != nil {
			return err
		}
	}
	return os.Chown(dir, uid, gid)
}

// fate is what becomes of a tree's files when what stood for it is taken down.
type fate int

const (
	keepFiles  fate = iota // it ended: its output can still be read
	dropOutput             // it is forgotten: volumes are the user's
	moveAway               // it lives elsewhere, with its files: volumes that drover made or brought here go too
)

// tearDown removes what stands on the host for a tree, the tree itself first. Repeating it is no error.
func (h *Host) tearDown(ctx context.Context, s workload.Spec, p place, files fate) error {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	var all error
	group := cgroup.Group(p.Cgroup)
	if p.Cgroup != "" {
		all = errors.Join(all, group.Kill(ctx))
	}
	dumped, lock := h.client(s.Name).Images(), h.client(s.Name).NetworkLock() // of a dump that nobody came to note
	all = errors.Join(all, h.endKeeper(ctx, s.Name))
	if p.Cgroup != "" && !p.Foreign {
		all = errors.Join(all, group.Remove(ctx))
	}
	all = errors.Join(all, keeper.EndStrays(h.images(s.Name), dumped))
	keeper.SweepTemp(h.images(s.Name), h.log)
	all = errors.Join(all, h.disconnect(ctx, s), h.unlock(s, p.Lock), h.unlock(s, lock), h.removeImages(s.Name))
	for _, v := range p.Volumes {
		switch {
		case v.Staged != "":
			all = errors.Join(all, os.RemoveAll(v.Staged))
		case v.Aside != "":
			all = errors.Join(all, v.putBack())
		case files == moveAway && !v.Shared && (v.Brought || slices.Contains(p.Made, v.Host)):
			all = errors.Join(all, os.RemoveAll(v.Host))
		}
	}
	if files != keepFiles {
		all = errors.Join(all, os.RemoveAll(h.store.output(s.Name)))
		for i := len(p.Made) - 1; i >= 0; i-- {
			_ = os.Remove(p.Made[i]) // one with something in it stays
		}
	}
	if all != nil {
		return errs.New(errs.KindOf(all), "remove what is left of workload %s: %w", s.Name, all)
	}
	return nil
}

// putBack puts what was set aside for a tree that did not come back into its place. If nothing was set aside yet, what stands
// there was always there.
func (v volume) putBack() error {
	if _, err := os.Lstat(v.Aside); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := os.RemoveAll(v.Host); err != nil {
		return err
	}
	return os.Rename(v.Aside, v.Host)
}

// endKeeper ends the workload's keeper and what fills in memory there, and removes its directory. A hold it still has ends with it: the tree is dead by now.
func (h *Host) endKeeper(ctx context.Context, name string) error {
	c := h.client(name)
	if err := c.Quit(ctx); err != nil && errs.KindOf(err) != errs.Unavailable {
		if hold, err := c.Hold(ctx); err == nil && hold != nil {
			_ = hold.Abort(ctx)
		}
		_ = c.Quit(ctx)
	}
	if err := keeper.Gone(ctx, c.Dir); err != nil {
		return err
	}
	if err := keeper.EndFiller(ctx, c.Dir); err != nil {
		return err
	}
	return os.RemoveAll(string(c.Dir))
}

// mkdirs makes a directory and those above it and notes the new ones.
func (p *place) mkdirs(path string, mode os.FileMode) error {
	var missing []string
	for d := path; ; d = filepath.Dir(d) {
		if _, err := os.Lstat(d); !errors.Is(err, os.ErrNotExist) {
			break
		}
		missing = append(missing, d)
	}
	for i := len(missing) - 1; i >= 0; i-- {
		if err := os.Mkdir(missing[i], mode); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		p.Made = append(p.Made, missing[i])
	}
	return nil
}

// mountPoint makes a directory inside a root, whose links are the root's own, and notes what is new.
func (p *place) mountPoint(root, inside string) error {
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	parent, err := unix.Dup(fd)
	if err != nil {
		return err
	}
	defer func() { unix.Close(parent) }()
	for _, step := range ancestry(inside) {
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
		next, err := unix.Openat2(fd, step, &how)
		if errors.Is(err, unix.ENOENT) {
			if err := unix.Mkdirat(parent, filepath.Base(step), 0o755); err != nil {
				return err
			}
			p.Made = append(p.Made, filepath.Join(root, step))
			next, err = unix.Openat2(fd, step, &how)
		}
		if err != nil {
			return err
		}
		unix.Close(parent)
		parent = next
	}
	return nil
}

// ancestry lists a path's own prefixes: /a, /a/b, /a/b/c.
func ancestry(path string) []string {
	var all []string
	for ; path != "/" && path != "."; path = filepath.Dir(path) {
		all = append([]string{path}, all...)
	}
	return all
}
