package workloads

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
	"drover/internal/workload"
	"drover/worker/cgroup"
	"drover/worker/tree"
)

// outputVolume is the output directory's index among a tree's volumes.
const outputVolume = -1

type fileKey struct {
	volume int
	path   string
}

// signature tells whether a file may have changed since it was looked at. settled is false if it was changed so shortly before
// that a later change could bear the same times.
type signature struct {
	mode, uid, gid uint32
	inode          uint64
	size           int64
	mtime, ctime   int64
	settled        bool
}

// settledAfter is more than the coarsest time stamp a kernel gives (a jiffy of 10 ms).
const settledAfter = 100 * time.Millisecond

// Carry hands over what changed. It remembers only what f has taken, so that a call that failed is made up for by the next.
// Sockets are left out: CRIU makes them again.
func (l *lent) Carry(ctx context.Context, f func(tree.CarriedFile, io.Reader) error) error {
	if l.rec.Spec.Kind == workload.Adopt {
		return nil // its files are the host's
	}
	l.h.mu.Lock()
	if l.e.carrier != l.id {
		l.e.carried, l.e.carrier = map[fileKey]signature{}, l.id
	}
	c := carrier{seen: l.e.carried, send: f, mapped: mappedFiles(l.group()), now: l.now}
	l.h.mu.Unlock()

	dirs := map[int]string{outputVolume: l.h.store.output(l.e.name)}
	for i, v := range l.rec.Place.Volumes {
		if !v.Shared {
			dirs[i] = v.at()
		}
	}
	for _, i := range sortedKeys(dirs) {
		if err := c.volume(ctx, i, dirs[i]); err != nil {
			return errs.New(errs.KindOf(err), "carry the files of workload %s in %s: %w", l.e.name, dirs[i], err)
		}
	}
	return nil
}

func sortedKeys(m map[int]string) []int {
	var keys []int
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// carrier is one pass over a tree's files.
type carrier struct {
	seen   map[fileKey]signature
	mapped map[uint64]bool // inodes that the tree maps writable and shared: their times do not tell when they change
	send   func(tree.CarriedFile, io.Reader) error
	now    func() time.Time
}

// volume hands over what changed below dir: what is in a directory before the directory itself, so that its times are set last,
// and in the end what is no longer there.
func (c carrier) volume(ctx context.Context, index int, dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	there := map[string]bool{}
	if err := c.directory(ctx, root, index, ".", there); err != nil {
		return err
	}
	var missing []string
	for k := range c.seen {
		if k.volume == index && !there[k.path] {
			missing = append(missing, k.path)
		}
	}
	slices.Sort(missing)
	slices.Reverse(missing) // what is in a directory before the directory
	for _, p := range missing {
		if err := c.send(tree.CarriedFile{Volume: index, Path: p, Deleted: true}, strings.NewReader("")); err != nil {
			return err
		}
		delete(c.seen, fileKey{index, p})
	}
	return nil
}

func (c carrier) directory(ctx context.Context, root *os.Root, index int, path string, there map[string]bool) error {
	d, err := root.Open(path)
	if err != nil {
		return vanished(err)
	}
	entries, err := d.ReadDir(-1)
	d.Close()
	if err != nil {
		return vanished(err)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := filepath.Join(path, e.Name())
		if e.IsDir() {
			err = c.directory(ctx, root, index, p, there)
		} else {
			err = c.entry(root, index, p, there)
		}
		if err != nil {
			return err
		}
	}
	return c.entry(root, index, path, there)
}

// entry hands over one file, directory or link if it may have changed.
func (c carrier) entry(root *os.Root, index int, path string, there map[string]bool) error {
	info, err := root.Lstat(path)
	if err != nil {
		return vanished(err)
	}
	st, ok := info.Sys().(*unixStat)
	if !ok || info.Mode()&fs.ModeSocket != 0 {
		return nil
	}
	there[path] = true
	key, now := fileKey{index, path}, signed(st, c.now())
	if old, known := c.seen[key]; known && old == now && now.settled && !c.mapped[st.Ino] {
		return nil
	}
	file := tree.CarriedFile{
		Volume: index, Path: path, Mode: st.Mode, UID: int(st.Uid), GID: int(st.Gid), Mtime: now.mtime,
	}
	var content io.Reader = strings.NewReader("")
	switch {
	case info.Mode().IsRegular():
		f, err := root.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
		if err != nil {
			return vanished(err)
		}
		defer f.Close()
		file.Size = info.Size()
		content = exactly(f, file.Size)
	case info.Mode()&fs.ModeSymlink != 0:
		if file.Link, err = root.Readlink(path); err != nil {
			return vanished(err)
		}
	}
	if err := c.send(file, content); err != nil {
		return err
	}
	c.seen[key] = now
	return nil
}

// exactly reads size bytes: a file that is cut short while it is read goes on with zeros, and is carried again.
func exactly(f io.Reader, size int64) io.Reader {
	return io.LimitReader(io.MultiReader(f, zeros{}), size)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// vanished takes a file that went away while it was looked at as one that is not there.
func vanished(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil
	}
	return err
}

func signed(st *unixStat, now time.Time) signature {
	s := signature{
		mode: st.Mode, uid: st.Uid, gid: st.Gid, inode: st.Ino, size: st.Size,
		mtime: time.Unix(st.Mtim.Unix()).UnixNano(), ctime: time.Unix(st.Ctim.Unix()).UnixNano(),
	}
	s.settled = now.UnixNano()-s.ctime > int64(settledAfter)
	return s
}

// mappedFiles are the inodes of files that a process of the group maps writable and shared. After the first write through such
// a mapping the kernel does not touch the file's times again until the page has been written back.
func mappedFiles(g cgroup.Group) map[uint64]bool {
	pids, _ := g.Pids()
	inodes := map[uint64]bool{}
	for _, pid := range pids {
		b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/maps")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line) // address perms offset device inode path
			if len(f) < 6 || len(f[1]) < 4 || f[1][1] != 'w' || f[1][3] != 's' {
				continue
			}
			if n, err := strconv.ParseUint(f[4], 10, 64); err == nil && n != 0 {
				inodes[n] = true
			}
		}
	}
	return inodes
}
