package link_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/internal/pki"
	"drover/transfer/link"
)

const (
	strangers = 10_000
	// floodMemory is what so many connections may cost a daemon beside what it had, in bytes.
	floodMemory = 96 << 20
)

// TestTenThousandConnectionsDoNotStopATransfer holds so many open at the port of a worker, silent or half way into a handshake, from
// one address and from many. A page channel that is open goes on, and new ones are made.
func TestTenThousandConnectionsDoNotStopATransfer(t *testing.T) {
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil || files.Cur < strangers+2000 {
		t.Fatalf("this test needs %d descriptors, the limit is %d: ulimit -n (%v)", strangers+2000, files.Cur, err)
	}
	c := newCluster(t)
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := tcp.Addr().String()
	beta := link.NewServer(c.identity(pki.Worker("beta")), link.Options{Transfers: true, Log: slog.New(slog.DiscardHandler)})
	go echo(beta.Listener(link.ChannelPages, all))
	go echo(beta.Listener(link.ChannelAPI, all))
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	work.Go(func() { beta.Serve(ctx, tcp) })
	defer work.Wait()
	defer cancel()
	alpha := c.identity(pki.Worker("alpha"))
	permit, err := c.authority.SignTransfer(alpha.Signer.PublicKey(), sent, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	source := link.NewPool(alpha)
	defer source.Close()
	pages, err := source.OpenApart(ctx, link.AsSource(alpha, permit), at, "worker:beta", link.ChannelPages)
	if err != nil {
		t.Fatal(err)
	}
	defer pages.Close()
	before := memoryInUse()
	var crowd []net.Conn
	defer func() {
		for _, conn := range crowd {
			conn.Close()
		}
	}()
	for i := range strangers {
		from := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)} // half of them from one address
		if i%2 == 0 {
			from.IP = net.IPv4(127, 1, byte(i/200), byte(1+i%200))
		}
		conn, err := (&net.Dialer{LocalAddr: from}).DialContext(ctx, "tcp", at)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		crowd = append(crowd, conn)
		switch i % 3 {
		case 1:
			_, _ = io.WriteString(conn, "SSH-2.0-slow\r\n") // it may have been closed already
		case 2:
			_, _ = io.WriteString(conn, "SSH-2.0-slow\r\n\x00\x00\x04\x00\x06\x14")
		}
		if i%1000 == 999 {
			exchange(t, pages, fmt.Sprintf("pages go on beside %d", i+1))
			fresh := link.NewPool(c.identity(pki.Worker("alpha")))
			conn, err := fresh.Open(ctx, at, "worker:beta", link.ChannelAPI)
			if err != nil {
				t.Fatalf("beside %d: %v", i+1, err)
			}
			exchange(t, conn, "hello")
			conn.Close()
			fresh.Close()
		}
	}
	if grown := memoryInUse() - before; grown > floodMemory {
		t.Errorf("%d connections cost %d MiB", strangers, grown>>20)
	} else {
		t.Logf("%d connections cost %d MiB, theirs and the daemon's", strangers, grown>>20)
	}
}

func memoryInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
