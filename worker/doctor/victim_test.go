package doctor

import (
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/internal/workload"
	workerapi "drover/worker/api"
	"drover/worker/keeper"
	"drover/worker/stat"
)

// A victim is this test binary, started again as a tree to look at. It does what its argument says, makes a file to say that
// it is ready, and waits for its end.
const victimEnv = "DROVER_DOCTOR_VICTIM"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 { // drover on a test host; see hosts_test.go
		switch os.Args[1] {
		case "keeper":
			os.Exit(keeper.Main(os.Args[2:]))
		case "hand":
			os.Exit(byHand(os.Args[2:]))
		}
	}
	if what := os.Getenv(victimEnv); what != "" {
		if err := beVictim(what); err != nil {
			_ = os.WriteFile("failed", []byte(err.Error()), 0o600)
			os.Exit(1)
		}
		_ = os.WriteFile("ready", nil, 0o600)
		end := make(chan os.Signal, 1)
		signal.Notify(end, unix.SIGTERM)
		<-end
		return
	}
	// What whoever started the test left open is not the victims'.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		fmt.Fprintln(os.Stderr, "keep descriptors from the victims:", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// kept keeps what a victim opened from being closed as garbage.
var kept []any

func keep[T any](v T, err error) error {
	kept = append(kept, v)
	return err
}

// deeds are what a victim can do. Its working directory is its own.
var deeds = map[string]func() error{
	"nothing": func() error { return nil },
	"io_uring": func() error {
		var params [120]byte
		fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 8, uintptr(unsafe.Pointer(&params[0])), 0)
		return keep(fd, errnoOrNil(errno))
	},
	"userfaultfd": func() error {
		fd, _, errno := unix.Syscall(unix.SYS_USERFAULTFD, 0, 0, 0)
		return keep(fd, errnoOrNil(errno))
	},
	"eventfd": func() error { return keep(unix.Eventfd(0, 0)) },
	"mptcp": func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_MPTCP)
		return errors.Join(err, unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), unix.Listen(fd, 1))
	},
	"vsock":    func() error { return keep(unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)) },
	"device":   func() error { return keep(unix.Open("/dev/fuse", unix.O_RDWR, 0)) },
	"null":     func() error { return keep(unix.Open("/dev/urandom", unix.O_RDONLY, 0)) },
	"terminal": openTerminal,
	"pty pair": func() error {
		master, slave, err := openPTY()
		kept = append(kept, master, slave)
		return err
	},
	"shm": func() error {
		id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 4096, unix.IPC_CREAT|0o600)
		if err != nil {
			return err
		}
		_, err = unix.SysvShmAttach(id, 0, 0)
		_, gone := unix.SysvShmCtl(id, unix.IPC_RMID, nil) // it goes with the last process that has it
		return errors.Join(err, gone)
	},
	"listener": func() error { return keep(net.Listen("tcp4", "127.0.0.1:0")) },
	"udp":      func() error { return keep(net.ListenPacket("udp4", "127.0.0.1:0")) },
	"loopback": func() error {
		ln, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			return err
		}
		c, err := net.Dial("tcp4", ln.Addr().String())
		if err != nil {
			return err
		}
		d, err := ln.Accept()
		kept = append(kept, ln, c, d)
		return err
	},
	"caller": func() error { return keep(net.Dial("tcp4", os.Getenv("PEER"))) },
	"unix":   func() error { return keep(net.Dial("unix", os.Getenv("PEER"))) },
	"unix listener": func() error {
		if err := os.Mkdir("sockets", 0o700); err != nil {
			return err
		}
		return keep(net.Listen("unix", "sockets/s"))
	},
	"log": func() error {
		f, err := os.OpenFile("log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err == nil {
			_, err = f.WriteString("12345")
		}
		return keep(f, err)
	},
	"lock": func() error {
		f, err := os.Create("pidfile")
		if err == nil {
			err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
		}
		return keep(f, err)
	},
	"deleted": func() error {
		f, err := os.Create("big")
		if err == nil {
			err = errors.Join(f.Truncate(3<<20), os.Remove("big"))
		}
		return keep(f, err)
	},
	"unlinked": func() error {
		f, err := os.Create("first")
		if err == nil {
			err = errors.Join(os.Link("first", "second"), os.Remove("first"))
		}
		return keep(f, err)
	},
	"odd name": func() error { return keep(os.Create("x (deleted)")) },
	"memfd":    func() error { return keep(unix.MemfdCreate("m", 0)) },
	"pipe":     func() error { r, w, err := os.Pipe(); kept = append(kept, r, w); return err },
	"child":    func() error { return child("nothing", nil) },
	"stopped child": func() error {
		return child("nothing", func(c *exec.Cmd) error {
			return errors.Join(c.Process.Signal(unix.SIGSTOP), waitFor(func() bool { return stateOf(c.Process.Pid) == "T" }))
		})
	},
	"nested": func() error { return child("nothing", nil, unix.CLONE_NEWPID) },
}

func errnoOrNil(e unix.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

func beVictim(what string) error {
	for deed := range strings.SplitSeq(what, ",") {
		if err := deeds[deed](); err != nil {
			return fmt.Errorf("%s: %w", deed, err)
		}
	}
	return nil
}

func openPTY() (master, slave *os.File, err error) {
	if master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	return master, slave, err
}

// openTerminal opens the slave whose name it is given; the test has the master.
func openTerminal() error {
	return keep(os.OpenFile(os.Getenv("TERMINAL"), os.O_RDWR|unix.O_NOCTTY, 0))
}

// child starts a victim below this one, in a directory of its own, and waits until it is ready.
func child(what string, then func(*exec.Cmd) error, flags ...uintptr) error {
	if err := os.Mkdir("child", 0o700); err != nil {
		return err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir = "child"
	cmd.Env = append(os.Environ(), victimEnv+"="+what)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	for _, f := range flags {
		cmd.SysProcAttr.Cloneflags |= f
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := waitFor(func() bool { _, err := os.Stat("child/ready"); return err == nil }); err != nil || then == nil {
		return err
	}
	return then(cmd)
}

func waitFor(ok func() bool) error {
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); {
		if ok() {
			return nil
		}
		time.Sleep(time.Millisecond) //nolint:forbidigo // it waits for a condition, of another process
	}
	return errors.New("it never came to be")
}

func stateOf(pid int) string {
	p, _ := stat.Read(pid)
	return p.State
}

// victim starts a tree that does what is said, in a session of its own, and returns its root and its directory. change may
// change how it is started.
func victim(t *testing.T, what string, change ...func(*exec.Cmd)) (engine.Tree, string) {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), victimEnv+"="+what, "GODEBUG=multipathtcp=0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: unix.SIGKILL}
	for _, c := range change {
		c(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tree, _ := treeOf(cmd.Process.Pid)
		for _, p := range tree {
			_ = unix.Kill(p.pid, unix.SIGKILL)
		}
		_ = cmd.Wait()
	})
	err := waitFor(func() bool {
		if why, err := os.ReadFile(filepath.Join(dir, "failed")); err == nil {
			t.Fatalf("the victim failed: %s", why)
		}
		_, err := os.Stat(filepath.Join(dir, "ready"))
		return err == nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return engine.Tree{Pid: cmd.Process.Pid}, dir
}

var here = workerapi.HostFacts{Name: "alpha", Engine: engine.Features{Version: "4.2.1", Kernel: "6.18.0"}, MemoryFree: 1 << 40, DiskFree: 1 << 40}

func adopted(change ...func(*workload.Spec)) workload.Spec {
	s := workload.Spec{Name: "victim", Kind: workload.Adopt}
	for _, c := range change {
		c(&s)
	}
	return s
}

func inspect(t *testing.T, tree engine.Tree, spec workload.Spec) workerapi.Inventory {
	t.Helper()
	inv, err := Inspect(t.Context(), tree, spec, 3, here)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}
