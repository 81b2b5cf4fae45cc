package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"

	"drover/transfer"
	"drover/transfer/transfertest"
)

// script is a whole small migration: two rounds, files, a final pass, with every kind of frame. It stops at the first error.
func script(ctx context.Context, s *transfer.Sender) error {
	old, hot := pages(300, 1), pages(5, 2)
	warm := bytes.Clone(old[100*page : 110*page]) // changed a little
	for i := 0; i < len(warm); i += page {
		warm[i+700]++
	}
	steps := []func() error{
		func() error { return s.Offer(procA, 0, old[:256*page]) },
		func() error { return s.Offer(procA, 256*page, old[256*page:]) },
		func() error { _, err := s.EndRound(ctx); return err },
		func() error { return s.File("volume", []byte("{}"), 4, strings.NewReader("data")) },
		func() error { return s.Offer(procA, 0, hot) },
		func() error { return s.Offer(procA, 100*page, warm[:5*page]) },
		func() error { _, err := s.EndRound(ctx); return err },
		func() error { return s.MapHole(procA, 0, 1, 100) },
		func() error { return s.Map(procA, 100*page, 1, warm) },
		func() error { return s.MapHole(procA, 110*page, 1, 190) },
		func() error { return s.Map(procB, 0, 1, pages(3, 3)) },
		func() error { return s.Map(procB, 1<<20, 1, make([]byte, 3*page)) },
		func() error { return s.MapAbsent(procB, 1<<30, 2, 7) },
		func() error { return s.File("image", nil, -1, strings.NewReader("CRIU")) },
		func() error { _, err := s.Finish(ctx); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// arrived checks that script's content has arrived.
func arrived(t testing.TB, m *transfertest.Memory) {
	t.Helper()
	s := &stream{t: t, target: m}
	want := pages(300, 1)
	copy(want, pages(5, 2))
	for i := 100 * page; i < 110*page; i += page {
		want[i+700]++
	}
	s.holds(procA, 0, want)
	s.holds(procB, 0, pages(3, 3))
	s.holds(procB, 1<<20, make([]byte, 3*page))
	if f := m.Files(); len(f) != 2 || f[0].Data.String() != "data" || f[1].Data.String() != "CRIU" {
		t.Error("the files differ")
	}
	if b := m.Broken(); len(b) > 0 {
		t.Errorf("the target's contract was not kept: %q", b)
	}
}

// boundaries runs script undisturbed and says at which offsets of what the source writes a frame begins.
func boundaries(t testing.TB) []int {
	t.Helper()
	a, b := transfertest.Pipe()
	rec := &recorder{ReadWriteCloser: a}
	m := &transfertest.Memory{}
	done := make(chan error, 1)
	go func() {
		_, err := transfer.Receive(context.Background(), b, m)
		done <- err
	}()
	s, err := transfer.NewSender(t.Context(), rec, transfer.SenderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(script(t.Context(), s), <-done); err != nil {
		t.Fatal(err)
	}
	arrived(t, m)
	return rec.at
}

// recorder notes where each frame begins: the sender writes one at a time.
type recorder struct {
	io.ReadWriteCloser
	mu    sync.Mutex
	total int
	at    []int
}

func (r *recorder) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = append(r.at, r.total)
	r.total += len(p)
	return r.ReadWriteCloser.Write(p)
}

func TestACutAtAnyFrameFailsBothSidesAndLeavesNothingOpen(t *testing.T) {
	for _, at := range boundaries(t) {
		for _, cut := range []int{at, at + 3, at + 24, at + 25} {
			a, b := transfertest.Pipe()
			m := &transfertest.Memory{}
			done := make(chan error, 1)
			go func() {
				_, err := transfer.Receive(context.Background(), b, m)
				done <- err
			}()
			s, err := transfer.NewSender(t.Context(), &transfertest.Faulty{Conn: a, CutAt: cut, FlipAt: -1}, transfer.SenderConfig{})
			if err == nil {
				err = script(t.Context(), s)
				s.Close()
			}
			if !errors.Is(err, transfer.ErrLost) {
				t.Errorf("cut at %d: the source got %v", cut, err)
			}
			if err := <-done; !errors.Is(err, transfer.ErrLost) {
				t.Errorf("cut at %d: the target got %v", cut, err)
			}
			if b := m.Broken(); len(b) > 0 {
				t.Errorf("cut at %d: %q", cut, b)
			}
		}
	}
}

func TestACutAtAnyFrameIsMendedByANewConnection(t *testing.T) {
	for _, at := range boundaries(t)[1:] { // not in HELLO: a stream that has not begun is begun again, not resumed
		for _, cut := range []int{at, at + 3, at + 25} {
			resume(t, func(w io.ReadWriteCloser, n int) io.ReadWriteCloser {
				if n > 0 {
					return w
				}
				return &cutter{ReadWriteCloser: w, left: cut}
			})
		}
	}
}

func TestAnAnswerThatIsLostIsAskedForAgain(t *testing.T) {
	const state, have = 24 + 49, 24 + 8
	// The target's first connection is lost after its answer to HELLO, a STATE and a HAVE, within the next one, after that, and so on.
	for answers := 1; answers < 4; answers++ {
		for _, more := range []int{0, 1, 24} {
			resumeTarget(t, answers*state+have+more)
		}
	}
}

// cutter is an end whose writes fail once so many bytes have been written.
type cutter struct {
	io.ReadWriteCloser
	left int
}

func (c *cutter) Write(p []byte) (int, error) {
	if len(p) <= c.left {
		c.left -= len(p)
		return c.ReadWriteCloser.Write(p)
	}
	n, _ := c.ReadWriteCloser.Write(p[:c.left])
	c.left = 0
	c.ReadWriteCloser.Close()
	return n, io.ErrClosedPipe
}

// resume runs script over connections whose source ends pass through wrap, n counting them from 0.
func resume(t *testing.T, wrap func(w io.ReadWriteCloser, n int) io.ReadWriteCloser) {
	t.Helper()
	resumeBoth(t, wrap, func(w io.ReadWriteCloser, n int) io.ReadWriteCloser { return w })
}

func resumeTarget(t *testing.T, cut int) {
	t.Helper()
	resumeBoth(t, func(w io.ReadWriteCloser, n int) io.ReadWriteCloser { return w }, func(w io.ReadWriteCloser, n int) io.ReadWriteCloser {
		if n > 0 {
			return w
		}
		return &cutter{ReadWriteCloser: w, left: cut}
	})
}

func resumeBoth(t *testing.T, near, far func(w io.ReadWriteCloser, n int) io.ReadWriteCloser) {
	t.Helper()
	m := &transfertest.Memory{}
	r := transfer.NewReceiver(m)
	defer r.Close()
	arrive := make(chan io.ReadWriteCloser, 1)
	conns := 0
	dial := func(ctx context.Context) (io.ReadWriteCloser, error) {
		a, b := transfertest.Pipe()
		arrive <- far(b, conns)
		conns++
		return near(a, conns-1), nil
	}
	done := make(chan received, 1)
	go func() {
		for conn := range arrive {
			res, err := r.Serve(context.Background(), conn)
			if !errors.Is(err, transfer.ErrLost) {
				done <- received{res, err}
				return
			}
		}
	}()
	first, _ := dial(t.Context())
	s, err := transfer.NewSender(t.Context(), first, transfer.SenderConfig{Redial: dial})
	if err != nil {
		t.Fatal(err)
	}
	if err := script(t.Context(), s); err != nil {
		t.Fatalf("the source got %v", err)
	}
	if got := <-done; got.err != nil {
		t.Fatalf("the target got %v", got.err)
	}
	arrived(t, m)
	if n := s.Progress().Reconnects; n != 1 {
		t.Errorf("%d reconnects", n)
	}
}

func TestAFlippedBitIsNeverAccepted(t *testing.T) {
	at := boundaries(t)
	for i, from := range at {
		to := from + 4000
		if i+1 < len(at) {
			to = at[i+1]
		}
		for flip := from; flip < to; flip += max(1, (to-from)/8) {
			a, b := transfertest.Pipe()
			m := &transfertest.Memory{}
			done := make(chan error, 1)
			go func() {
				_, err := transfer.Receive(context.Background(), b, m)
				done <- err
			}()
			f := &transfertest.Faulty{Conn: a, CutAt: -1, FlipAt: flip}
			s, err := transfer.NewSender(t.Context(), f, transfer.SenderConfig{})
			if err == nil {
				err = script(t.Context(), s)
				s.Close()
			}
			if f.Written() <= flip {
				continue // the stream is shorter
			}
			if err == nil {
				t.Errorf("flip at %d: the source was told that all is well", flip)
			}
			if err := <-done; err == nil {
				t.Errorf("flip at %d: the target was satisfied", flip)
			}
			if b := m.Broken(); len(b) > 0 {
				t.Errorf("flip at %d: %q", flip, b)
			}
		}
	}
}

func TestASourceThatNeverHeardTheFirstAnswerBeginsAgain(t *testing.T) {
	m := &transfertest.Memory{}
	r := transfer.NewReceiver(m)
	defer r.Close()
	for _, deaf := range []bool{true, true, false} {
		near, far := transfertest.Pipe()
		served := make(chan error, 1)
		end := io.ReadWriteCloser(far)
		if deaf {
			end = &cutter{ReadWriteCloser: far} // it reads the greeting, and cannot answer it
		}
		go func() {
			_, err := r.Serve(t.Context(), end)
			served <- err
		}()
		s, err := transfer.NewSender(t.Context(), near, transfer.SenderConfig{})
		if deaf {
			if err == nil || !errors.Is(<-served, transfer.ErrLost) {
				t.Fatalf("a greeting without an answer: %v", err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(script(t.Context(), s), <-served); err != nil {
			t.Fatal(err)
		}
	}
	arrived(t, m)
}
