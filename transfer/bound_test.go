package transfer

import (
	"math/rand/v2"
	"net"
	"runtime/debug"
	"runtime/metrics"
	"testing"
)

// TestASenderKeepsToItsMemory holds a sender to the bound of doc.go at its worst: pages shrink by no more than a third or
// not at all, and the target is slow to acknowledge, so that the window is full.
func TestASenderKeepsToItsMemory(t *testing.T) {
	const most = 80 << 20
	for _, codec := range []string{"none", "s2", "zstd"} {
		t.Run(codec, func(t *testing.T) {
			near, far := socketPair(t)
			done := make(chan error, 1)
			go func() { done <- hollow(far, Window-2*bufferSize) }()
			noise := rand.NewChaCha8([32]byte{1})
			data := make([]byte, MaxRun*PageSize)
			debug.FreeOSMemory()
			before, peak := taken(), 0
			s, err := NewSender(t.Context(), near, SenderConfig{Compression: codec})
			if err != nil {
				t.Fatal(err)
			}
			for i := range uint64(192) {
				noise.Read(data)
				for at := PageSize * 2 / 3; i%3 > 0 && at < len(data); at += PageSize {
					clear(data[at : at+PageSize/3])
				}
				if err := s.Offer(Space{1, 1}, i*MaxRun*PageSize, data); err != nil {
					t.Fatal(err)
				}
				peak = max(peak, taken()-before)
			}
			if _, err := s.Finish(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := <-done; err != nil {
				t.Fatal(err)
			}
			t.Logf("%d MiB", peak>>20)
			if peak > most {
				t.Errorf("Go's memory grew by %d MiB, %d are allowed", peak>>20, most>>20)
			}
		})
	}
}

// taken is how much memory Go has from the system and has not given back.
func taken() int {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return int(s[0].Value.Uint64() - s[1].Value.Uint64())
}

// socketPair is a connection by TCP over loopback.
func socketPair(t testing.TB) (near, far net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if near, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if far, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close(); far.Close() })
	return near, far
}
