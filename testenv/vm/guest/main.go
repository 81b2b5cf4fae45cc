// Command guest is the first process of a test's virtual machine: it finds the disk, makes it the root, and carries out what comes
// through the machine's virtio port.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"drover/testenv/rootfs"
)

func main() {
	work := serve
	if os.Getpid() == 1 {
		work = begin
	}
	err := work() // it returns only when it fails
	fmt.Fprintln(os.Stderr, "guest:", err)
	if os.Getpid() == 1 {
		unix.Sync()
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) // nothing is left to do if even this fails
	}
	os.Exit(1)
}

// begin is pid 1's work: it sets the machine up, and from then on reaps. Serving is a child's work, because a process that reaps
// whatever ends cannot also wait for its own.
func begin() error {
	for _, step := range []struct {
		does string
		run  func() error
	}{
		{"mount devices", func() error { return mount("devtmpfs", "/dev") }},
		{"load modules", loadModules},
		{"change to the disk", changeRoot},
		{"mount the system's file systems", mountSystem},
		{"start the loopback interface", startLoopback},
		{"make a test bed of the disk", makeTestbed},
	} {
		if err := step.run(); err != nil {
			return fmt.Errorf("%s: %w", step.does, err)
		}
	}
	server := &exec.Cmd{Path: "/proc/1/exe", Args: []string{"guest"}, Stdout: os.Stdout, Stderr: os.Stderr,
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8", rootfs.TestbedEnv + "=" + testbed}}
	if err := server.Start(); err != nil {
		return err
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if pid == server.Process.Pid || errors.Is(err, unix.ECHILD) {
			return fmt.Errorf("the server has ended")
		}
	}
}

func loadModules() error {
	files, err := filepath.Glob("/modules/*.ko")
	if err != nil {
		return err
	}
	for _, name := range files { // numbered, so in order
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			fmt.Fprintf(os.Stderr, "guest: %s: %v\n", name, err) // what is missing shows where it is used
		}
	}
	return nil
}

// changeRoot puts the disk over the initramfs.
func changeRoot() error {
	if err := os.Mkdir("/disk", 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/dev/vda", "/disk", "ext4", 0, ""); err != nil {
		return err
	}
	if err := unix.Unmount("/dev", unix.MNT_DETACH); err != nil {
		return err
	}
	if err := os.Chdir("/disk"); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return err
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

func mountSystem() error {
	for _, m := range [][2]string{
		{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"devpts", "/dev/pts"}, {"tmpfs", "/dev/shm"},
		{"cgroup2", "/sys/fs/cgroup"}, {"tmpfs", "/run"}, {"tmpfs", "/tmp"},
	} {
		if err := mount(m[0], m[1]); err != nil {
			return fmt.Errorf("%s: %w", m[1], err)
		}
	}
	// A Go program reserves far more memory than it uses; restoring it in a small machine needs the kernel's leave.
	return os.WriteFile("/proc/sys/vm/overcommit_memory", []byte("1"), 0)
}

func startLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	return netlink.LinkSetUp(lo)
}

const testbed = "/testbed"

// makeTestbed lets test hosts run in the machine: its disk is a copy of their root file system, and serves as that too.
func makeTestbed() error {
	root := filepath.Join(testbed, "rootfs")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("/", root, "", unix.MS_BIND, ""); err != nil {
		return err
	}
	return os.WriteFile(root+".stamp", []byte(rootfs.Recipe()), 0o644)
}

func mount(fstype, at string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	options := ""
	if fstype == "devpts" {
		options = "newinstance,ptmxmode=0666"
	}
	return unix.Mount(fstype, at, fstype, 0, options)
}
