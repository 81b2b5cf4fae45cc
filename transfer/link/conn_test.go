package link_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"testing"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"

	"drover/internal/pki"
	"drover/transfer/link"
	"drover/transfer/transfertest"
)

// TestConnIsANetConn runs the Go project's own suite for net.Conn: deadlines, races, half-done reads and writes.
func TestConnIsANetConn(t *testing.T) {
	c := newCluster(t)
	s, _ := c.serve(pki.Worker("beta"), link.Options{})
	l := s.Listener(link.ChannelAPI, all)
	pool := c.as(pki.Worker("alpha"))
	nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
		if c1, err = pool.Open(context.Background(), "beta:1", "worker:beta", link.ChannelAPI); err != nil {
			return nil, nil, nil, err
		}
		if c2, err = l.Accept(); err != nil {
			return nil, nil, nil, err
		}
		return c1, c2, func() { c1.Close(); c2.Close() }, nil
	})
}

func BenchmarkThroughput(b *testing.B) {
	c := newCluster(b)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := link.NewServer(c.identity(pki.Worker("beta")), link.Options{Log: slog.New(slog.DiscardHandler)})
	l := s.Listener(link.ChannelPages, all)
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	go s.Serve(ctx, tcp)
	pool := link.NewPool(c.identity(pki.Worker("alpha")))
	defer pool.Close()
	conn, err := pool.OpenApart(ctx, link.AsDaemon(c.identity(pki.Worker("alpha"))), tcp.Addr().String(), "worker:beta", link.ChannelPages)
	if err != nil {
		b.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	go func() {
		sink := make([]byte, 1<<20)
		for {
			if _, err := far.Read(sink); err != nil {
				return
			}
		}
	}()
	data := make([]byte, 1<<20)
	b.SetBytes(int64(len(data)))
	before := processorTime(b)
	for b.Loop() {
		if _, err := conn.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N*len(data)), "cpu-ns/B")
}

// processorTime is what this process has used of the processors, in nanoseconds.
func processorTime(b *testing.B) int64 {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

func TestPageStreamOverSSH(t *testing.T) {
	c := newCluster(t)
	s, _ := c.serve(pki.Worker("beta"), link.Options{})
	l := s.Listener(link.ChannelPages, all)
	pool := c.as(pki.Worker("alpha"))
	transfertest.Stream(t, func() (source, target io.ReadWriteCloser, err error) {
		if source, err = pool.Open(context.Background(), "beta:1", "worker:beta", link.ChannelPages); err != nil {
			return nil, nil, err
		}
		target, err = l.Accept()
		return source, target, err
	})
}
