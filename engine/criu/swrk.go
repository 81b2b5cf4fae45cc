package criu

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/checkpoint-restore/go-criu/v8/rpc"
	"golang.org/x/sys/unix"

	"drover/engine"
)

// maxMessage bounds one message from CRIU; error texts are the largest and stay below 4 KiB.
const maxMessage = 64 << 10

// swrk is one `criu swrk` process and the conversation with it: one request, notifications with an answer each, one result
// (criu/cr-service.c). It is used by one goroutine at a time but for kill and gone.
type swrk struct {
	cmd  *exec.Cmd
	conn *net.UnixConn
	gone chan struct{} // closed when the process has been reaped; how it ended is then in cmd.ProcessState

	images     *os.File    // a descriptor of our own for the images directory, nil without one
	stderr     *os.File    // what it says before it has opened its log
	beside     []io.Closer // what must stay open as long as the process lives
	closeFiles sync.Once

	forked   forked
	workers  *os.File // at its end once the process and all that it has forked have ended; nil without patience
	cutShort bool     // what it has forked was killed after patience; known once gone is closed
}

// forked says what becomes of what CRIU has forked when CRIU has ended before it. The zero value has it killed: it would wait for CRIU.
type forked struct {
	lives    bool          // it is a restored tree
	patience time.Duration // for as long it may work on before it is killed
}

// firstFD is the number that the first of start's files has in CRIU's process; the socket is 3.
const firstFD = 4

// start runs CRIU with files as descriptors from firstFD up and nothing else of this process. It does nothing until it is sent
// a request. images, if not nil, stays open until kill or close, whatever the caller does with it.
func start(path string, images *os.File, files ...*os.File) (*swrk, error) {
	return startFrom(nil, forked{}, path, images, files...)
}

// startFrom is start from a thread that is prepared first, which nothing undoes: what it has become CRIU is, too.
func startFrom(prepare []func() error, rest forked, path string, images *os.File, files ...*os.File) (_ *swrk, err error) {
	s := &swrk{gone: make(chan struct{}), forked: rest}
	defer func() {
		if err != nil {
			s.release()
		}
	}()
	theirs, err := s.connect()
	if err != nil {
		return nil, fmt.Errorf("make a socket for criu: %w", err)
	}
	defer theirs.Close()
	if images != nil {
		fd, err := unix.FcntlInt(images.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, fmt.Errorf("keep the images directory open: %w", err)
		}
		s.images = os.NewFile(uintptr(fd), images.Name())
	}
	fd, err := unix.MemfdCreate("criu-stderr", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make a file for criu's complaints: %w", err)
	}
	s.stderr = os.NewFile(uintptr(fd), "criu-stderr")
	s.cmd = exec.Command(path, "swrk", "3")
	s.cmd.Stderr = s.stderr
	s.cmd.ExtraFiles = append([]*os.File{theirs}, files...)
	if rest.patience > 0 {
		ours, inherited, err := os.Pipe()
		if err != nil {
			return nil, fmt.Errorf("make a pipe for criu: %w", err)
		}
		defer inherited.Close()
		s.workers, s.beside = ours, append(s.beside, ours)
		s.cmd.ExtraFiles = append(s.cmd.ExtraFiles, inherited)
	}
	s.cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// What this process was left by its own parent must not reach CRIU either: Go's own descriptors are all marked already.
	if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return nil, fmt.Errorf("keep descriptors from criu: %w", err)
	}
	begin := s.cmd.Start
	if len(prepare) > 0 {
		begin = func() error { return onDoomedThread(append(slices.Clone(prepare), s.cmd.Start)) }
	}
	if err := begin(); err != nil {
		return nil, fmt.Errorf("start criu: %w", err)
	}
	go func() {
		if !rest.lives {
			s.endGroup()
		}
		_ = s.cmd.Wait()       // ProcessState says it
		_ = s.conn.CloseRead() // what it has sent can still be read; what it has forked holds its end open, and would be waited for
		close(s.gone)
	}()
	return s, nil
}

// endGroup waits until the process has ended, and ends what is left of its process group before anybody else can have that number.
func (s *swrk) endGroup() {
	pid := s.cmd.Process.Pid
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if s.workers != nil {
		_ = s.workers.SetReadDeadline(time.Now().Add(s.forked.patience)) // where it cannot be set, the read fails at once
		_, err := s.workers.Read(make([]byte, 1))
		s.cutShort = !errors.Is(err, io.EOF)
	}
	_ = unix.Kill(-pid, unix.SIGKILL) // its own zombie is in it
}

// onDoomedThread calls each of steps, until one fails, on a thread that ends with the last. The process's first thread would not: Go parks it
// for ever instead, and the whole process would seem to have what it has become (a filter, the tree's network namespace).
func onDoomedThread(steps []func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never let go
		if unix.Gettid() == unix.Getpid() {
			defer runtime.UnlockOSThread()
			done <- onDoomedThread(steps) // elsewhere: who waits here keeps this thread
			return
		}
		for _, step := range steps {
			if err := step(); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	return <-done
}

// connect makes the socket of the conversation and returns CRIU's end.
func (s *swrk) connect() (theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "criu"), os.NewFile(uintptr(fds[1]), "criu")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, err
	}
	s.conn = conn.(*net.UnixConn)
	return theirs, nil
}

// release closes what this process holds of the conversation.
func (s *swrk) release() {
	s.closeFiles.Do(func() {
		if s.conn != nil {
			s.conn.Close()
		}
		for _, c := range s.beside {
			c.Close()
		}
		for _, f := range []*os.File{s.stderr, s.images} {
			if f != nil {
				f.Close()
			}
		}
	})
}

// send sends one request or answer.
func (s *swrk) send(req *rpc.CriuReq) error {
	b, err := req.MarshalVT()
	if err != nil {
		return fmt.Errorf("encode criu request: %w", err)
	}
	if _, err := s.conn.Write(b); err != nil {
		return fmt.Errorf("send to criu: %w", err)
	}
	return nil
}

// answer answers a notification. False is how an abort is said: a socket that closes means "go on" to parts of CRIU.
func (s *swrk) answer(ok bool) error {
	return s.send(&rpc.CriuReq{Type: rpc.CriuReqType_NOTIFY.Enum(), NotifySuccess: ptr(ok)})
}

// receive waits for the next message until ctx is done. It fails with engine.ErrLost when CRIU has ended.
func (s *swrk) receive(ctx context.Context) (*rpc.CriuResp, error) {
	b := make([]byte, maxMessage)
	n, err := s.read(ctx, b)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil || n == 0:
		if how := s.end(); how != nil {
			err = how // how it ended says more than that it cannot be read from
		}
		return nil, fmt.Errorf("%w: %v", engine.ErrLost, err) //nolint:errorlint // it is lost, whatever else its end may look like
	}
	resp := new(rpc.CriuResp)
	if err := resp.UnmarshalVT(b[:n]); err != nil {
		return nil, fmt.Errorf("decode criu's answer: %w", err)
	}
	return resp, nil
}

// read reads one message into b, until ctx is done.
func (s *swrk) read(ctx context.Context, b []byte) (int, error) {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		n, err := s.conn.Read(b)
		if !errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			return n, err
		}
		_ = s.conn.SetReadDeadline(time.Time{}) // that of an earlier context; if it cannot be set, the next read says why
		if ctx.Err() != nil {                   // done between the two, and its deadline undone
			return 0, ctx.Err()
		}
	}
}

// ended says whether the process has ended.
func (s *swrk) ended() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}

// end waits a moment for the process whose socket has closed and says how it ended and what it said before it had a log.
func (s *swrk) end() error {
	select {
	case <-s.gone:
	case <-time.After(time.Second):
		return nil
	}
	how := s.cmd.ProcessState.String()
	said := make([]byte, 4096)
	n, _ := s.stderr.ReadAt(said, 0)
	if text := strings.TrimSpace(string(said[:n])); text != "" {
		how += ": " + text
	}
	return errors.New(how)
}

// talk sends a request and receives until the result. Each notification goes to on, which returns the answer, or hold to
// return at once with the notification unanswered.
func (s *swrk) talk(ctx context.Context, req *rpc.CriuReq, on func(*rpc.CriuNotify) (ok, hold bool)) (*rpc.CriuResp, error) {
	if err := s.send(req); err != nil {
		return nil, err
	}
	return s.listen(ctx, on)
}

// listen is talk after the request has been sent.
func (s *swrk) listen(ctx context.Context, on func(*rpc.CriuNotify) (ok, hold bool)) (*rpc.CriuResp, error) {
	for {
		resp, err := s.receive(ctx)
		if err != nil {
			return nil, err
		}
		if resp.GetType() != rpc.CriuReqType_NOTIFY {
			return resp, nil
		}
		ok, hold := on(resp.GetNotify())
		if hold {
			return resp, nil
		}
		if err := s.answer(ok); err != nil {
			return nil, err
		}
	}
}

// result waits for the result that follows the answer to a held notification; what CRIU asks on the way gets the same answer.
// A verdict is carried out whatever becomes of ctx, which only counts for its values.
func (s *swrk) result(ctx context.Context, ok bool) (*rpc.CriuResp, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), defaultTimeout)
	defer cancel()
	return s.listen(ctx, func(*rpc.CriuNotify) (bool, bool) { return ok, false })
}

// leave lets CRIU undo its work and end by itself, refusing all it asks; false means that it has not within the time.
func (s *swrk) leave(within time.Duration) bool {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	for {
		resp, err := s.receive(ctx)
		if errors.Is(err, engine.ErrLost) {
			return s.exited()
		}
		if err != nil {
			return false
		}
		if resp.GetType() == rpc.CriuReqType_NOTIFY {
			_ = s.answer(false) // if it cannot be heard, the next receive says why
		}
	}
}

// exited says whether the process has ended by itself, with whatever code, and not by a signal.
func (s *swrk) exited() bool {
	return s.ended() && s.cmd.ProcessState.Exited()
}

// close ends the conversation and waits for the process, killing it if it does not go by itself within a second.
func (s *swrk) close() {
	s.conn.Close()
	select {
	case <-s.gone:
	case <-time.After(time.Second):
	}
	s.kill()
}

// kill ends the process at once, if it has not ended, and waits for it, and for what it has forked as long as that may work on.
func (s *swrk) kill() {
	s.conn.Close()
	_ = s.cmd.Process.Kill() // it may have ended
	<-s.gone
	s.release()
}

// ptr is v where CRIU's messages want a pointer.
func ptr[T any](v T) *T { return &v }
