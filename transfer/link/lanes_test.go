package link_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"drover/internal/pki"
	"drover/transfer"
	"drover/transfer/link"
	"drover/transfer/transfertest"
)

// road is a page stream from alpha to beta over SSH, whose connections are known.
type road struct {
	*transfer.Sender
	target *transfertest.Memory
	done   chan error

	mu    sync.Mutex
	conns []net.Conn // below SSH, in the order they were made
}

// newRoad opens a stream over a network on which a byte is under way for delay, one way.
func newRoad(t *testing.T, delay time.Duration) *road {
	t.Helper()
	c := newCluster(t)
	c.net.Delay(delay)
	c.net.Room(8 << 20) // as TCP's buffers grow: SSH's window is narrower
	s, _ := c.serve(pki.Worker("beta"), link.Options{})
	pages := s.Listener(link.ChannelPages, all)
	r := &road{target: &transfertest.Memory{}, done: make(chan error, 1)}
	stream := transfer.NewReceiver(r.target)
	t.Cleanup(func() { stream.Close() })
	go func() {
		for {
			conn, err := pages.Accept()
			if err != nil {
				return
			}
			go func() {
				if _, err := stream.Serve(context.Background(), conn); !errors.Is(err, transfer.ErrLost) {
					select {
					case r.done <- err:
					default: // all lanes say it
					}
				}
			}()
		}
	}()
	from := c.net.From("alpha")
	cred := link.AsDaemon(c.identity(pki.Worker("alpha")))
	pool := link.NewPoolFor(cred, link.WithDial(func(ctx context.Context, address string) (net.Conn, error) {
		conn, err := from(ctx, address)
		if err == nil {
			r.mu.Lock()
			r.conns = append(r.conns, conn)
			r.mu.Unlock()
		}
		return conn, err
	}))
	t.Cleanup(func() { pool.Close() })
	dial := func(ctx context.Context) (io.ReadWriteCloser, error) {
		return pool.OpenApart(ctx, cred, "beta:1", "worker:beta", link.ChannelPages)
	}
	first, err := dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if r.Sender, err = transfer.NewSender(t.Context(), first, transfer.SenderConfig{Compression: "none", Redial: dial}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// copyRounds offers data in so many rounds, calling between after each, then maps it and compares.
func (r *road) copyRounds(t *testing.T, data []byte, rounds int, between func(round int)) {
	t.Helper()
	space := transfer.Space{Kind: 1, ID: 1}
	const run = transfer.MaxRun * transfer.PageSize
	for round := range rounds {
		part := data[len(data)/rounds*round : len(data)/rounds*(round+1)]
		for at := 0; at < len(part); at += run {
			if err := r.Offer(space, uint64(len(data)/rounds*round+at), part[at:min(len(part), at+run)]); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := r.EndRound(t.Context()); err != nil {
			t.Fatal(err)
		}
		between(round)
	}
	if err := r.MapHole(space, 0, 1, uint64(len(data)/transfer.PageSize)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-r.done; err != nil {
		t.Fatal(err)
	}
	for addr, page := range r.target.Space(space).Pages {
		if !bytes.Equal(page, data[addr:addr+transfer.PageSize]) {
			t.Fatalf("page %#x is another one", addr)
		}
	}
	if b := r.target.Broken(); len(b) > 0 {
		t.Errorf("the target's contract was not kept: %q", b)
	}
}

func noise(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

func TestAFarLinkGetsSeveralLanesAndANearOneOne(t *testing.T) {
	for _, c := range []struct {
		delay time.Duration
		least int
		most  int
	}{{0, 1, 1}, {40 * time.Millisecond, 4, 8}} {
		synctest.Test(t, func(t *testing.T) {
			r := newRoad(t, c.delay)
			r.copyRounds(t, noise(64<<20), 1, func(int) {})
			if n := r.Progress().Lanes; n < c.least || n > c.most {
				t.Errorf("with %s there are %d lanes", c.delay, n)
			}
		})
	}
}

func TestOneOfSeveralLanesIsLostAndMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRoad(t, 40*time.Millisecond)
		cut := 0
		r.copyRounds(t, noise(96<<20), 3, func(round int) {
			// Bytes are under way on all of them as the next round begins.
			time.AfterFunc(100*time.Millisecond, func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				if round < 2 && len(r.conns) > cut+1 {
					cut++
					r.conns[cut].Close()
				}
			})
		})
		// The last one cut may not be needed any more.
		if p := r.Progress(); p.Lanes < 2 || p.Reconnects < 1 || p.Reconnects > cut {
			t.Errorf("%d lanes, %d made again, %d were cut", p.Lanes, p.Reconnects, cut)
		}
		if most := uint64(96<<20 + cut*transfer.Window); r.Progress().WireBytes > most+1<<20 {
			t.Errorf("%d bytes were sent, more than what was under way was sent again", r.Progress().WireBytes)
		}
	})
}
