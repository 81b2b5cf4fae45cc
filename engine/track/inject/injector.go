package inject

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// SocketFD is the descriptor at which an injector's process finds the socket for Serve.
const SocketFD = 3

// answerWithin is longer than a process may take for one request: four threads that do not stop, and then each limit of thread.go once.
// Only one that is itself kept from running takes longer.
const answerWithin = 5 * time.Minute

// Injector is a process of its own that injects for this one. When this one dies it finishes what it is in the middle of, and ends. It
// is used by one goroutine at a time. After ErrEnded it is of no use any more.
type Injector struct {
	conn  *net.UnixConn
	cmd   *exec.Cmd
	said  bytes.Buffer  // why it broke off, if it did
	ended chan struct{} // closed once it has
}

// Start starts cmd, which must call Serve on SocketFD, and must not end by what ends this process: it needs a session and a cgroup of
// its own. The caller closes the Injector.
func Start(cmd *exec.Cmd) (*Injector, error) {
	ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("make a socket to what injects: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(ends[0]), "injector"), os.NewFile(uintptr(ends[1]), "asker")
	defer ours.Close()
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, fmt.Errorf("make a socket to what injects: %w", err)
	}
	i := &Injector{conn: conn.(*net.UnixConn), cmd: cmd, ended: make(chan struct{})}
	cmd.ExtraFiles, cmd.Stderr = []*os.File{theirs}, &i.said
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start what injects: %w", err)
	}
	go func() {
		defer close(i.ended)
		_ = cmd.Wait() // how it ended stands in cmd
	}()
	return i, nil
}

// Pid is that of the process.
func (i *Injector) Pid() int { return i.cmd.Process.Pid }

// Close lets the process end, which it does by itself. Descriptors that were handed over are not concerned.
func (i *Injector) Close() { i.conn.Close() }

// Uffd is a userfaultfd of another process's memory.
type Uffd struct {
	FD      int           // in this process, close-on-exec; the owner closes it, which ends all that it watches
	Number  int           // what it was in the process, for Stray
	Stopped time.Duration // how long a thread of the process stood still for it
}

// Userfaultfd makes a userfaultfd in the process that pidfd is open for, whose pid is pid. It is neither enabled (UFFDIO_API) nor
// registered for anything. It needs the right to trace the process. It blocks for as long as a thread takes to come to a stop,
// usually microseconds; when ctx ends, the thread that is being tried is seen through and the Injector is of no further use. A process that
// is gone is unix.ESRCH.
//
// Another thread of the process may fork in the microseconds in which the descriptor exists there, and the child then has a copy:
// see Stray.
func (i *Injector) Userfaultfd(ctx context.Context, pid, pidfd int) (Uffd, error) {
	a, fd, err := i.ask(ctx, request{Pid: pid}, pidfd)
	return Uffd{FD: fd, Number: a.Number, Stopped: a.Stopped}, err
}

// CloseStray closes a copy that Stray has found, as Userfaultfd makes one.
func (i *Injector) CloseStray(ctx context.Context, pid, pidfd int, u Uffd) error {
	_, _, err := i.ask(ctx, request{Pid: pid, Close: &u.Number}, pidfd)
	return err
}

// ask sends a request and waits for the answer. There is a descriptor if a userfaultfd was made, and no error then.
func (i *Injector) ask(ctx context.Context, r request, pidfd int) (a answer, fd int, err error) {
	if err := ctx.Err(); err != nil {
		return a, -1, err
	}
	// The process hears of it between two threads. Whoever asked waits for its answer all the same: until then a thread may be traced.
	stop := context.AfterFunc(ctx, func() { _ = i.conn.CloseWrite() })
	defer stop()
	_ = i.conn.SetDeadline(time.Now().Add(answerWithin))
	if err = send(i.conn, r, pidfd); err == nil {
		fd, err = i.answered(&a)
	}
	if err != nil {
		return a, -1, errors.Join(i.broken(err), ctx.Err())
	}
	return a, fd, a.err()
}

// answered waits for the answer. A descriptor comes in a message before it: when the answer is there, its sender has it no more, and the
// caller's is the only one.
func (i *Injector) answered(a *answer) (fd int, err error) {
	fd, err = receive(i.conn, a)
	if err != nil || fd < 0 {
		return fd, err
	}
	_, err = receive(i.conn, a)
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// broken says what has become of the process. That it hangs is no reason to kill it: it may have a thread stopped.
func (i *Injector) broken(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("pid %d injects and has not answered within %s: %w", i.Pid(), answerWithin, ErrEnded)
	}
	select {
	case <-i.ended:
		first, _, _ := bytes.Cut(i.said.Bytes(), []byte("\n"))
		return fmt.Errorf("pid %d, which injects: %w: %s %s", i.Pid(), ErrEnded, i.cmd.ProcessState, first)
	case <-time.After(time.Second): // the socket is closed by its end, which is to be heard of at once
		return fmt.Errorf("pid %d, which injects: %w: %w", i.Pid(), ErrEnded, err)
	}
}
