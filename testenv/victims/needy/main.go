// Command needy has things that take a capability to give back: those that its arguments name, see things. It says "ready" when it has
// them and counts into a file from then on, /data/said, so that one can see that it goes on.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// dir is writable for everybody.
const dir = "/data"

// www is www-data, whom every Debian has.
const www = 33

// things are what it may have. Those of a child are had by a process of its own.
var things = map[string]func() error{
	"a port below 1024": port,
	"a watch":           watch,
	"a deleted file":    deletedFile,
	"locked memory":     lockedMemory,
	"a terminal":        terminal,
	"a private file":    func() error { return child(www, "private") },
	"a semaphore":       func() error { return child(www, "semaphore") },
	"a user":            func() error { return child(www, "") },
	"a high priority":   func() error { return child(0, "priority") },
	"a bound":           func() error { return child(0, "bound") },
}

// ofChild are what a child does before it is ready.
var ofChild = map[string]func() error{
	"": func() error { return nil },
	"private": func() error {
		return kept(os.OpenFile(dir+"/private/file", os.O_CREATE|os.O_WRONLY, 0o600))
	},
	"semaphore": func() error {
		if _, _, e := unix.Syscall(unix.SYS_SEMGET, unix.IPC_PRIVATE, 1, 0o600); e != 0 {
			return e
		}
		return nil
	},
	"priority": func() error { return unix.Setpriority(unix.PRIO_PROCESS, 0, -5) },
	"bound":    func() error { return unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_NET_RAW, 0, 0, 0) },
}

// keep is what is not to be collected.
var keep []any

func kept[T any](v T, err error) error {
	keep = append(keep, v)
	return err
}

func main() {
	fmt.Println("needy:", run(os.Args[1:]))
	os.Exit(1)
}

// run does not end but with an error.
func run(args []string) error {
	if len(args) == 2 && args[0] == "child" {
		if err := ofChild[args[1]](); err != nil {
			return err
		}
		fmt.Println("has it")
		for {
			<-time.After(time.Hour)
		}
	}
	for _, what := range args {
		have, ok := things[what]
		if !ok {
			return fmt.Errorf("nothing is called %q", what)
		}
		if err := have(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	said, err := os.OpenFile(dir+"/said", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for n := 0; ; n++ {
		if _, err := fmt.Fprintln(said, n); err != nil {
			return err
		}
		<-time.After(20 * time.Millisecond)
	}
}

// child returns when a child of that user has what.
func child(uid uint32, what string) error {
	cmd := exec.Command("/proc/self/exe", "child", what)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{uid}}}
	says, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	said := make([]byte, 100)
	n, err := says.Read(said) // the pipe stays: what it is written to is this process
	if err != nil || !strings.HasPrefix(string(said[:n]), "has it") {
		return fmt.Errorf("the child says %q: %w", said[:n], err)
	}
	return kept(says, nil)
}

// port is a connection of it with itself.
func port() error {
	var plain net.ListenConfig
	plain.SetMultipathTCP(false) // which CRIU does not know
	l, err := plain.Listen(context.Background(), "tcp4", "127.0.0.1:80")
	if err != nil {
		return err
	}
	c, err := net.Dial("tcp4", "127.0.0.1:80")
	if err != nil {
		return err
	}
	a, err := l.Accept()
	keep = append(keep, l, c)
	return kept(a, err)
}

// watch is on a tmpfs: an overlay's files have no handles.
func watch() error {
	fd, err := unix.InotifyInit1(0)
	if err != nil {
		return err
	}
	_, err = unix.InotifyAddWatch(fd, "/dev/shm", unix.IN_CREATE)
	return err
}

func deletedFile() error {
	const name = dir + "/deleted"
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	if _, err := f.WriteString("nobody can open this"); err != nil {
		return err
	}
	return kept(f, os.Remove(name))
}

// lockedMemory is more than RLIMIT_MEMLOCK lets anybody lock, 8 MiB.
func lockedMemory() error {
	m, err := unix.Mmap(-1, 0, 16<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	return unix.Mlock(slices.Clip(m))
}

// terminal is both ends of a pair, whose slave is another user's.
func terminal() error {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return err
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	keep = append(keep, master)
	return kept(slave, slave.Chown(www, 5))
}
