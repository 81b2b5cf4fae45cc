package host

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// plan is what boot is told about the host it makes.
type plan struct {
	Name     string // its hostname
	Lower    string // the root file system, read only
	Dir      string // holds upper, work and root
	FirstPid int    // pids start here
}

// Descriptors that a booting host is given.
const (
	lifeFd  = 3 // read end of a pipe that its owner holds: the end of the pipe is the end of the host
	readyFd = 4 // written once when the host is up
)

// boot runs as the first process of new mount, pid, uts, ipc and network namespaces, in the host's cgroup. It builds the host's
// view of the world and becomes its pid 1.
func boot() error {
	if err := unix.CloseRange(readyFd+1, ^uint(0), unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close inherited descriptors: %w", err)
	}
	var p plan
	if err := json.Unmarshal([]byte(os.Args[1]), &p); err != nil {
		return fmt.Errorf("read the plan: %w", err)
	}
	for _, step := range []struct {
		does string
		run  func(plan) error
	}{
		{"enter a cgroup namespace", enterCgroupNamespace},
		{"keep mounts private", func(plan) error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") }},
		{"mount the root", mountRoot},
		{"mount the system's file systems", mountSystem},
		{"give the boot an id", giveBootID},
		{"make the devices", makeDevices},
		{"change the root", changeRoot},
		{"name the host", nameHost},
		{"choose the first pid", chooseFirstPid},
	} {
		if err := step.run(p); err != nil {
			return fmt.Errorf("%s: %w", step.does, err)
		}
	}
	return syscall.Exec("/proc/self/exe", []string{pid1Name, p.Name}, []string{"PATH=" + Path})
}

// enterCgroupNamespace makes the host's cgroup the root of what it sees. The owner moves this process into a leaf of it later.
func enterCgroupNamespace(plan) error {
	return unix.Unshare(unix.CLONE_NEWCGROUP)
}

func mountRoot(p plan) error {
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", p.Lower, filepath.Join(p.Dir, "upper"), filepath.Join(p.Dir, "work"))
	root := filepath.Join(p.Dir, "root")
	if err := unix.Mount("overlay", root, "overlay", 0, options); err != nil {
		return fmt.Errorf("overlay on %s: %w", root, err)
	}
	return os.Chdir(root)
}

// mountSystem mounts relative to the working directory, the new root.
func mountSystem(plan) error {
	const strict = unix.MS_NOSUID | unix.MS_NODEV
	for _, m := range []struct {
		at, fstype string
		flags      uintptr
		options    string
	}{
		{"proc", "proc", strict | unix.MS_NOEXEC, ""},
		{"sys", "sysfs", strict | unix.MS_NOEXEC, ""},
		{"sys/fs/cgroup", "cgroup2", strict | unix.MS_NOEXEC, ""},
		{"dev", "tmpfs", unix.MS_NOSUID, "mode=755"},
		{"dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620,gid=5"},
		{"dev/shm", "tmpfs", strict, "mode=1777"},
		{"run", "tmpfs", strict, "mode=755"},
		{"tmp", "tmpfs", strict, "mode=1777"},
	} {
		if err := os.MkdirAll(m.at, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.fstype, m.at, m.fstype, m.flags, m.options); err != nil {
			return fmt.Errorf("%s on /%s: %w", m.fstype, m.at, err)
		}
	}
	return os.MkdirAll("run/lock", 0o1777)
}

// giveBootID puts an id of this boot over the machine's: what has the host's memory tells by it that the host went down.
func giveBootID(p plan) error {
	var b [16]byte
	_, _ = rand.Read(b[:]) // it never fails
	file := filepath.Join(p.Dir, "boot_id")
	if err := os.WriteFile(file, fmt.Appendf(nil, "%x-%x-%x-%x-%x\n", b[:4], b[4:6], b[6:8], b[8:10], b[10:]), 0o444); err != nil {
		return err
	}
	return unix.Mount(file, "proc/sys/kernel/random/boot_id", "", unix.MS_BIND, "")
}

func makeDevices(plan) error {
	old := unix.Umask(0)
	defer unix.Umask(old)
	if err := os.Mkdir("dev/net", 0o755); err != nil {
		return err
	}
	for _, d := range []struct {
		name         string
		major, minor uint32
	}{
		{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}, {"net/tun", 10, 200},
	} {
		if err := unix.Mknod("dev/"+d.name, unix.S_IFCHR|0o666, int(unix.Mkdev(d.major, d.minor))); err != nil {
			return fmt.Errorf("/dev/%s: %w", d.name, err)
		}
	}
	for name, target := range map[string]string{
		"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, "dev/"+name); err != nil {
			return err
		}
	}
	return nil
}

func changeRoot(plan) error {
	if err := unix.PivotRoot(".", "."); err != nil { // stacks the old root on the new one
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Chdir("/")
}

func nameHost(p plan) error {
	// As long as on every other host: a tree that happens to have it open when it is dumped is not restored beside one of another size.
	if err := os.WriteFile("/etc/hostname", fmt.Appendf(nil, "%-15s\n", p.Name), 0o644); err != nil {
		return err
	}
	hosts := "127.0.0.1 localhost " + p.Name + "\n::1 localhost\n"
	if err := os.WriteFile("/etc/hosts", []byte(hosts), 0o644); err != nil {
		return err
	}
	return unix.Sethostname([]byte(p.Name))
}

// chooseFirstPid keeps the pids of a bed's hosts apart, so that a tree that lived in one host's pid namespace finds its pids
// free on another, as it mostly would on real hosts.
func chooseFirstPid(p plan) error {
	if p.FirstPid == 0 {
		return nil
	}
	return os.WriteFile("/proc/sys/kernel/ns_last_pid", fmt.Append(nil, p.FirstPid-1), 0o644)
}
