// Command shm is two processes that play ping-pong through shared memory, on every page of it. Each checks what the other wrote.
// The parent says how it goes, on standard output:
//
//	{"rounds":5120,"pages":256,"faults":0,"longest_gap_ms":1.4}
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"drover/testenv/victims/vital"
)

// memoryFd is where the child finds the memory, if it is a file.
const memoryFd = 3

func main() {
	size := vital.Size(1 << 20)
	flag.Var(&size, "size", "how much memory to share")
	kind := flag.String("kind", "memfd", "of memory: memfd, anonymous, sysv (needs an IPC namespace of its own to be moved) or the path of a file")
	child := flag.Int("child", -1, "set by shm itself for its child: the id of sysv memory, or 0")
	say := flag.Duration("say", time.Second, "how often to report; 0 is only at the end")
	lasts := flag.Duration("for", 0, "how long to play; 0 is until a signal")
	flag.Parse()

	if *child >= 0 {
		memory, err := attach(*kind, *child, size)
		if err == nil {
			err = (&table{memory: memory}).answer()
		}
		vital.Exit(err, 0)
	}
	t, stop, err := lay(*kind, size)
	if err != nil {
		vital.Exit(err, 0)
	}
	err = t.serve(*lasts, vital.Every{Period: *say})
	vital.Say(t.report())
	vital.Exit(errors.Join(err, stop()), t.faults)
}

// lay makes the memory and starts the child on it; stop ends the child and removes the memory.
func lay(kind string, size vital.Size) (t *table, stop func() error, err error) {
	cmd := exec.Command("/proc/self/exe", "-kind", kind, "-size", size.String(), "-child")
	cmd.Args[0] = "shm"
	cmd.Stderr = os.Stderr
	id, remove := 0, func() error { return nil }
	if kind == "sysv" {
		id, err = unix.SysvShmGet(unix.IPC_PRIVATE, int(size), 0o600)
		remove = func() error { _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); return err }
	} else {
		var file *os.File
		if file, err = openMemory(kind, int64(size)); err == nil {
			cmd.ExtraFiles = []*os.File{file} // memoryFd
		}
	}
	if err != nil {
		return nil, nil, fmt.Errorf("make %s memory: %w", kind, err)
	}
	memory, err := mapMemory(kind, cmd.ExtraFiles, id, size)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("map %s memory: %w", kind, err), remove())
	}
	cmd.Args = append(cmd.Args, fmt.Sprint(id))
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(err, remove())
	}
	shut(kind, cmd.ExtraFiles)
	return &table{memory: memory}, func() error {
		_ = cmd.Process.Signal(unix.SIGTERM)
		_ = cmd.Wait() // it ends by the signal
		return remove()
	}, nil
}

func openMemory(kind string, size int64) (*os.File, error) {
	var file *os.File
	switch kind {
	case "anonymous": // what a program maps and forks; as this child begins another program, it is given it as what the kernel makes of it
		memory, err := unix.Mmap(-1, 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
		if err != nil {
			return nil, err
		}
		at := uintptr(unsafe.Pointer(&memory[0]))
		return os.OpenFile(fmt.Sprintf("/proc/self/map_files/%x-%x", at, at+uintptr(size)), os.O_RDWR, 0)
	case "memfd":
		fd, err := unix.MemfdCreate("shm", unix.MFD_CLOEXEC)
		if err != nil {
			return nil, err
		}
		file = os.NewFile(uintptr(fd), kind)
	default:
		var err error
		if file, err = os.OpenFile(kind, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600); err != nil {
			return nil, err
		}
	}
	return file, file.Truncate(size)
}

func attach(kind string, id int, size vital.Size) ([]byte, error) {
	files := []*os.File{os.NewFile(memoryFd, "memory")}
	defer shut(kind, files)
	return mapMemory(kind, files, id, size)
}

// shut closes the way to anonymous memory, which is no part of it.
func shut(kind string, files []*os.File) {
	if kind == "anonymous" {
		files[0].Close()
	}
}

func mapMemory(kind string, files []*os.File, id int, size vital.Size) ([]byte, error) {
	if kind == "sysv" {
		return unix.SysvShmAttach(id, 0, 0)
	}
	return unix.Mmap(int(files[0].Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}
