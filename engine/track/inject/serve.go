package inject

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Serve is an injector's process. It does what it is asked at the socket, one after the other, until the other end is closed, which the end
// of whoever asked does too; what it has begun by then it finishes. It ignores the signals that ask a program to end: its asker's
// end is what it goes by.
func Serve(socket *os.File) error {
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
	conn, err := net.FileConn(socket)
	socket.Close()
	if err != nil {
		return fmt.Errorf("serve at descriptor %d: %w", SocketFD, err)
	}
	defer conn.Close()
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("serve at descriptor %d: it is a socket of another kind: %T", SocketFD, conn)
	}
	type asked struct {
		request
		pidfd int
	}
	ctx, gone := context.WithCancel(context.Background())
	all, failed := make(chan asked), make(chan error, 1)
	go func() {
		defer close(all)
		defer gone() // it is looked at between two threads
		for {
			var r request
			pidfd, err := receive(c, &r)
			if err != nil {
				failed <- err
				return
			}
			all <- asked{r, pidfd}
		}
	}()
	for r := range all {
		a, fd := r.serve(ctx, r.pidfd)
		// If nobody is there to take it, all ends with the descriptors.
		if fd >= 0 {
			_ = send(c, a, fd)
			unix.Close(fd)
		}
		_ = send(c, a, -1)
		if r.pidfd >= 0 {
			unix.Close(r.pidfd)
		}
	}
	if err := <-failed; !errors.Is(err, io.EOF) {
		return fmt.Errorf("read what is to be injected: %w", err)
	}
	return nil
}

// serve does what is asked. The descriptor, -1 if there is none, is the caller's.
func (r request) serve(ctx context.Context, pidfd int) (a answer, fd int) {
	fd = -1
	var err error
	switch {
	case !Supported:
		err = ErrMachine
	case pidfd < 0:
		err = fmt.Errorf("no descriptor of pid %d came along", r.Pid)
	case r.Close != nil:
		err = closeIn(ctx, r.Pid, pidfd, *r.Close, &a)
	default:
		fd, err = userfaultfd(ctx, r.Pid, pidfd, &a)
	}
	if err != nil {
		a.fail(err)
	}
	return a, fd
}
