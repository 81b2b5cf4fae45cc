package keeper

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// makeWorld turns the calling process's fresh mount namespace into the tree's: the root and nothing else of the host but the
// volumes, with its own /proc and /dev. There is no sysfs: CRIU would have to find the same devices on the target.
func makeWorld(p plan) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	// Directories of the host are taken hold of before the host is out of sight.
	mounts := append([]Mount{{Host: p.Output, Inside: OutputInside}}, p.Volumes...)
	handles := make([]int, len(mounts))
	for i, m := range mounts {
		fd, err := unix.OpenTree(unix.AT_FDCWD, m.Host, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return errs.New(errs.NotFound, "volume directory %s cannot be mounted: %w", m.Host, err).WithNext("it must exist on this host")
		}
		handles[i] = fd
	}
	if err := changeRoot(p.Root); err != nil {
		return err
	}
	if err := mountSystem(); err != nil {
		return err
	}
	for i, m := range mounts {
		if err := os.MkdirAll(m.Inside, 0o755); err != nil {
			return fmt.Errorf("make the mount point of volume %s: %w", m.Inside, err)
		}
		if err := unix.MoveMount(handles[i], "", unix.AT_FDCWD, m.Inside, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount volume %s at %s: %w", m.Host, m.Inside, err)
		}
		unix.Close(handles[i])
	}
	return nil
}

// changeRoot makes root, a mount point, the only thing there is. pivot_root(2) allows both names to be one directory: the
// old root is then mounted over the new one, and detached.
func changeRoot(root string) error {
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot into the root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the host's root: %w", err)
	}
	return os.Chdir("/")
}

// systemMounts are made afresh in every tree.
var systemMounts = []struct {
	source, at, kind string
	flags            uintptr
	data             string
}{
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"tmpfs", "/dev", "tmpfs", unix.MS_NOSUID | unix.MS_STRICTATIME, "mode=755,size=64k"},
	{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620"},
	{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
}

// devices are all the nodes a tree sees, by their numbers in the kernel's admin-guide/devices.txt.
var devices = []struct {
	name         string
	major, minor uint32
}{
	{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0},
}

var deviceLinks = map[string]string{
	"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
}

func mountSystem() error {
	for _, m := range systemMounts {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return fmt.Errorf("make %s in the root: %w", m.at, err)
		}
		if err := unix.Mount(m.source, m.at, m.kind, m.flags, m.data); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	for _, d := range devices {
		at := filepath.Join("/dev", d.name)
		if err := unix.Mknod(at, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("make %s: %w", at, err)
		}
	}
	for name, to := range deviceLinks {
		if err := os.Symlink(to, filepath.Join("/dev", name)); err != nil {
			return fmt.Errorf("make /dev/%s: %w", name, err)
		}
	}
	return nil
}

// openStreams gives the command its three streams. Output is appended: after a move the file on the target goes on where
// the carried one ended.
func openStreams() error {
	for fd, s := range []struct {
		path  string
		flags int
	}{
		{"/dev/null", unix.O_RDONLY},
		{filepath.Join(OutputInside, "stdout"), unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT},
		{filepath.Join(OutputInside, "stderr"), unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT},
	} {
		opened, err := unix.Open(s.path, s.flags|unix.O_NOCTTY|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return fmt.Errorf("open %s: %w", s.path, err)
		}
		if err := unix.Dup3(opened, fd, 0); err != nil {
			return fmt.Errorf("make %s stream %d: %w", s.path, fd, err)
		}
		unix.Close(opened)
	}
	return nil
}

// mountRoot mounts the tree's root in the keeper's own mount namespace. The root must be a mount, and a private one: CRIU
// restores into it by pivot_root.
func mountRoot(dir Dir, rootfs string) error {
	// What the host unmounts goes here too; nothing that is mounted here shows on the host.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("part from the host's mounts: %w", err)
	}
	if err := os.MkdirAll(dir.Root(), 0o700); err != nil {
		return fmt.Errorf("make the root's mount point: %w", err)
	}
	info, err := os.Stat(rootfs)
	if err != nil || !info.IsDir() {
		return errs.New(errs.NotFound, "root file system %s is not a directory on this host", rootfs).WithNext("put it there, or choose another --rootfs")
	}
	if err := unix.Mount(rootfs, dir.Root(), "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount the root %s: %w", rootfs, err)
	}
	if err := unix.Mount("", dir.Root(), "", unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the root's mount private: %w", err)
	}
	return nil
}
