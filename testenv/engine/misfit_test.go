package engine_test

import (
	"fmt"
	"net"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A misfit is this binary as one process that holds something which a dump or a restore stumbles over.
const misfitEnv = "DROVER_ENGINETEST_MISFIT"

// misfits says what each holds.
var misfits = map[string]func() error{
	"nothing":     func() error { return nil },
	"io_uring":    func() error { var p [120]byte; return keep(unix.Syscall(425, 4, uintptr(unsafe.Pointer(&p[0])), 0)) },
	"userfaultfd": func() error { return keep(unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|1, 0, 0)) },
	"fscontext": func() error {
		name := []byte("tmpfs\x00")
		return keep(unix.Syscall(unix.SYS_FSOPEN, uintptr(unsafe.Pointer(&name[0])), 0, 0))
	},
	"mptcp": func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 262)
		if err != nil {
			return err
		}
		return unix.Listen(fd, 1)
	},
	"connection": func() error {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		held = append(held, l)
		c, err := net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr))
		if err != nil {
			return err
		}
		a, err := l.Accept() // one that waits to be accepted is another failure
		held = append(held, c, a)
		return err
	},
	"waiting connection": func() error {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			return err
		}
		c, err := net.DialTCP("tcp4", nil, l.Addr().(*net.TCPAddr))
		held = append(held, l, c)
		return err
	},
	"lock": func() error {
		f, err := open("/run/misfit-lock")
		if err != nil {
			return err
		}
		return unix.Flock(int(f.Fd()), unix.LOCK_EX)
	},
	"ghost": func() error {
		f, err := open("/root/misfit-ghost")
		if err != nil {
			return err
		}
		if _, err := f.Write(make([]byte, 2<<20)); err != nil {
			return err
		}
		return os.Remove(f.Name())
	},
	"lost name": func() error {
		f, err := open("/root/misfit-name")
		if err != nil {
			return err
		}
		if err := os.Link(f.Name(), "/root/misfit-other"); err != nil {
			return err
		}
		return os.Remove(f.Name())
	},
	"sysv shm": func() error {
		id, err := unix.SysvShmGet(unix.IPC_PRIVATE, 1<<16, unix.IPC_CREAT|0o600)
		if err != nil {
			return err
		}
		b, err := unix.SysvShmAttach(id, 0, 0)
		if err != nil {
			return err
		}
		b[0] = 1
		_, err = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		return err
	},
	"file": func() error {
		f, err := open("/root/misfit-file")
		if err != nil {
			return err
		}
		_, err = f.WriteString("twelve bytes")
		return err
	},
	"port":    func() error { return listen("127.0.0.1:7077") },
	"address": func() error { return listen("10.77.0.1:7078") },
}

// held keeps what a misfit holds from being collected.
var held []any

func keep(fd, _ uintptr, e unix.Errno) error {
	if e != 0 {
		return e
	}
	return nil
}

func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	held = append(held, f)
	return f, err
}

func listen(at string) error {
	addr, err := net.ResolveTCPAddr("tcp4", at)
	if err != nil {
		return err
	}
	l, err := net.ListenTCP("tcp4", addr)
	held = append(held, l)
	return err
}

// misfit is the life of the process: it says on its file that it is ready and does nothing more.
func misfit(what string) {
	err := misfits[what]()
	if said := os.WriteFile(os.Getenv(countersEnv), []byte(fmt.Sprint(err)), 0o600); said != nil || err != nil {
		os.Exit(1)
	}
	for {
		time.Sleep(time.Hour)
	}
}
