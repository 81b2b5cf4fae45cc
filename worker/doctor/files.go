package doctor

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/internal/workload"
)

// deletedMark is what the kernel puts after the path of a file that has lost its name.
const deletedMark = " (deleted)"

type inode struct{ dev, ino uint64 }

// descriptors looks at what a process has open.
func (l *look) descriptors(p *process) error {
	dir := proc(p.pid, "fd")
	fds, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, fd := range fds {
		link := filepath.Join(dir, fd.Name())
		path, err := os.Readlink(link)
		if err != nil {
			continue // closed meanwhile
		}
		info, _ := os.ReadFile(proc(p.pid, "fdinfo/"+fd.Name()))
		if locksIn(string(info)) {
			l.seen.locks = append(l.seen.locks, p.has(path))
		}
		l.descriptor(p, fd.Name(), link, path, string(info))
	}
	return nil
}

// locksIn says whether a descriptor's fdinfo lists a lock.
func locksIn(info string) bool {
	return strings.HasPrefix(info, "lock:") || strings.Contains(info, "\nlock:")
}

func (l *look) descriptor(p *process, fd, link, path, info string) {
	kind, _, _ := strings.Cut(path, ":")
	switch {
	case kind == "socket":
		if _, known := l.sockets[path]; !known {
			n, _ := strconv.Atoi(fd)
			l.sockets[path] = heldSocket{p.has(""), p.pid, n}
		}
	case kind == "pipe":
		l.pipe(p, path, info)
	case kind == "anon_inode":
		l.anonymous(p, path)
	case strings.HasPrefix(path, "/"):
		l.opened(p, link, path, info)
	}
}

// dumpable are the anonymous inodes that CRIU dumps.
var dumpable = []string{"eventfd", "eventpoll", "inotify", "signalfd", "timerfd", "fanotify", "pidfd", "bpf-map"}

func (l *look) anonymous(p *process, path string) {
	name := strings.Trim(strings.TrimPrefix(path, "anon_inode:"), "[]")
	if !slices.Contains(dumpable, name) {
		l.seen.anon = append(l.seen.anon, p.has(name))
	}
}

// opened looks at a descriptor of something that has or had a path.
func (l *look) opened(p *process, link, path, info string) {
	var st unix.Stat_t
	if unix.Stat(link, &st) != nil {
		return // closed meanwhile
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR, unix.S_IFBLK:
		l.device(p, path, info, st)
	case unix.S_IFREG, unix.S_IFDIR, unix.S_IFIFO:
		flags, _ := strconv.ParseUint(strings.Join(field(info, "flags"), ""), 8, 64)
		l.file(p, link, path, st, false, flags&unix.O_ACCMODE != unix.O_RDONLY)
	}
}

// mappings looks at the files a process has mapped. What is seen of them goes through map_files, which leads to the very file
// that is mapped, whatever has become of its path.
func (l *look) mappings(p *process) error {
	b, err := os.ReadFile(proc(p.pid, "maps"))
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(b)) {
		span, path, ok := mapped(line)
		switch {
		case !ok:
		case strings.HasPrefix(path, "/SYSV"):
			l.seen.shm = append(l.seen.shm, p.has(strings.TrimSuffix(path, deletedMark)))
		case strings.HasPrefix(path, "/secretmem"):
			l.seen.anon = append(l.seen.anon, p.has("secretmem"))
		case strings.HasPrefix(path, "/dmabuf"):
			l.seen.anon = append(l.seen.anon, p.has("dmabuf"))
		case strings.HasPrefix(path, "anon_inode:"):
			l.anonymous(p, path)
		case strings.HasPrefix(path, "/"):
			link := proc(p.pid, "map_files/"+span)
			var st unix.Stat_t
			if unix.Stat(link, &st) != nil {
				continue // unmapped meanwhile
			}
			switch st.Mode & unix.S_IFMT {
			case unix.S_IFREG:
				l.file(p, link, path, st, true, false)
			case unix.S_IFCHR, unix.S_IFBLK:
				l.device(p, path, "", st)
			}
		}
	}
	return nil
}

// mapped are the address range, as map_files names it, and the path in a line of /proc/PID/maps; ok is false for anonymous
// memory and the kernel's own mappings.
func mapped(line string) (span, path string, ok bool) {
	f := strings.SplitN(strings.TrimRight(line, "\n"), " ", 6) // address perms offset device inode path
	if len(f) < 6 {
		return "", "", false
	}
	path = strings.ReplaceAll(strings.TrimLeft(f[5], " "), `\012`, "\n")
	if path == "" || path[0] == '[' {
		return "", "", false
	}
	from, to, _ := strings.Cut(f[0], "-")
	return strings.TrimLeft(from, "0") + "-" + strings.TrimLeft(to, "0"), path, true
}

// file notes a file that is open or mapped, at most once.
func (l *look) file(p *process, link, path string, st unix.Stat_t, isMapped, writable bool) {
	if unnamed(path) {
		return
	}
	if gone, ok := strings.CutSuffix(path, deletedMark); ok && !l.exists(p, path, st) {
		l.lost(p, gone, st)
		return
	}
	if l.comesAlong(link, path) {
		return
	}
	f, known := l.files[path]
	if !known && len(l.files) >= maxFiles {
		l.inv.Truncated = true
		return
	}
	f.Path, f.Mode = path, st.Mode
	if st.Mode&unix.S_IFMT == unix.S_IFREG {
		f.Size = st.Size
	}
	f.Mapped, f.Append = f.Mapped || isMapped, f.Append || writable
	if isMapped {
		f.BuildID = l.buildID(link, st)
	}
	l.files[path] = f
}

// unnamed says whether a path is one of the kernel's for memory that never had a name.
func unnamed(path string) bool {
	for _, p := range []string{"/memfd:", "/dev/zero", "/anon_hugepage", "/[aio]", "/drm", "/i915"} {
		if strings.HasPrefix(path, p) {
			return true
		}
	}
	return false
}

// exists says whether the file really is called so: a name may end in " (deleted)".
func (l *look) exists(p *process, path string, st unix.Stat_t) bool {
	var now unix.Stat_t
	return unix.Stat(proc(p.pid, "root")+path, &now) == nil && now.Ino == st.Ino && now.Dev == st.Dev
}

// lost notes a file without its name.
func (l *look) lost(p *process, path string, st unix.Stat_t) {
	id := inode{st.Dev, st.Ino}
	if l.deletedIno[id] || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return
	}
	l.deletedIno[id] = true
	f := file{owner: p.has(""), path: path, size: st.Size}
	_, f.carried = volumeOf(l.spec, path)
	if st.Nlink == 0 {
		l.seen.deleted = append(l.seen.deleted, f)
	} else {
		l.seen.unlinked = append(l.seen.unlinked, f)
	}
}

// comesAlong says whether the target need not have a file: it is on a volume that is carried, CRIU carries it with a mount
// of the tree's own, or the kernel makes it.
func (l *look) comesAlong(link, path string) bool {
	if v, ok := volumeOf(l.spec, path); ok {
		return !v.Shared
	}
	var fs unix.Statfs_t
	if unix.Statfs(link, &fs) != nil {
		return true // gone
	}
	switch uint32(fs.Type) {
	case unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.DEVPTS_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.CGROUP_SUPER_MAGIC,
		unix.NSFS_MAGIC, mqueueMagic, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC, unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC:
		return true
	case unix.TMPFS_MAGIC:
		return l.inv.OwnMountNS && !onRoot(link, l.procs[0].pid)
	}
	// A started tree's output is mounted below its /dev and carried.
	return l.spec.Kind == workload.Run && strings.HasPrefix(path, "/dev/")
}

const mqueueMagic = 0x19800202 // linux/magic.h has it only in ipc/mqueue.c

// onRoot says whether a file is on the file system of the tree's root, which drover mounts and does not carry.
func onRoot(link string, root int) bool {
	var a, b unix.Stat_t
	return unix.Stat(link, &a) == nil && unix.Stat(proc(root, "root"), &b) == nil && a.Dev == b.Dev
}

func (l *look) workingDirectory(p *process) {
	link := proc(p.pid, "cwd")
	path, err := os.Readlink(link)
	var st unix.Stat_t
	if err == nil && unix.Stat(link, &st) == nil {
		l.file(p, link, path, st, false, false)
	}
}

// volumeOf is the volume that a path of the tree is on, the innermost if there are several.
func volumeOf(spec workload.Spec, path string) (v workload.Volume, ok bool) {
	for _, each := range spec.Volumes {
		if (path == each.Inside || strings.HasPrefix(path, each.Inside+"/")) && len(each.Inside) > len(v.Inside) {
			v, ok = each, true
		}
	}
	return v, ok
}

// carriedBytes is how much is carried in volumes.
func carriedBytes(ctx context.Context, spec workload.Spec) (total int64, err error) {
	for _, v := range spec.Volumes {
		if v.Shared {
			continue
		}
		err := filepath.WalkDir(v.Host, func(path string, d fs.DirEntry, err error) error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil || !d.Type().IsRegular() {
				return nil //nolint:nilerr // what cannot be read now is found when it is carried
			}
			if info, err := d.Info(); err == nil {
				total += info.Size()
			}
			return nil
		})
		if err != nil {
			return 0, errs.New(errs.KindOf(err), "add up volume %s: %w", v.Host, err)
		}
	}
	return total, nil
}
