package transfer_test

import (
	"context"
	"encoding/binary"
	"net"
	"testing"

	"drover/transfer"
)

// sink is a target that throws everything away.
type sink struct{ transfer.Target }

func (sink) Limits() transfer.Limits                          { return transfer.Limits{Slots: 1 << 19, Pages: 1 << 40} }
func (sink) Open(transfer.Space) (transfer.PageWriter, error) { return sink{}, nil }
func (sink) Entry(uint64, uint32, []transfer.Content) error   { return nil }
func (sink) Hole(uint64, uint32, uint64) error                { return nil }
func (sink) Close() error                                     { return nil }

// heap makes n pages like those of a program's heap, which compress to about a quarter and do not repeat.
func heap(n int) []byte {
	b := make([]byte, n*page)
	noise := pages(n/4+1, 1)
	for i := range n {
		p := b[i*page : (i+1)*page]
		copy(p, noise[i*page/4:i*page/4+page/4])
		for j := page / 4; j < page; j += 16 {
			binary.LittleEndian.PutUint64(p[j:], 0x7f3a00001000+uint64(j)*32)
		}
		binary.LittleEndian.PutUint64(p[8:], uint64(i))
	}
	return b
}

// bench opens a stream over loopback TCP.
func bench(b *testing.B, compression string) (*transfer.Sender, func()) {
	return benchOver(b, transfer.SenderConfig{Compression: compression})
}

func benchOver(b *testing.B, config transfer.SenderConfig) (*transfer.Sender, func()) {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	near, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	far, err := l.Accept()
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := transfer.Receive(context.Background(), far, sink{})
		done <- err
	}()
	s, err := transfer.NewSender(b.Context(), near, config)
	if err != nil {
		b.Fatal(err)
	}
	return s, func() {
		if _, err := s.Finish(b.Context()); err != nil {
			b.Fatal(err)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

const runPages = 256

// BenchmarkRound offers a gigabyte as runs of 256 pages, end to end: the round has ended when the target has it all.
func BenchmarkRound(b *testing.B) {
	const size = 1 << 28
	data := heap(size / page)
	for _, c := range []string{"none", "s2", "zstd"} {
		b.Run(c, func(b *testing.B) {
			s, finish := bench(b, c)
			b.SetBytes(size)
			for n := 0; b.Loop(); n++ {
				for i := 0; i < size; i += page { // new content every time
					binary.LittleEndian.PutUint64(data[i:], uint64(n+1)<<32|uint64(i))
				}
				offer(b, s, data)
			}
			b.ReportMetric(float64(s.Progress().WireBytes)/float64(b.N)/size, "wire/raw")
			finish()
		})
	}
}

func offer(b *testing.B, s *transfer.Sender, data []byte) {
	b.Helper()
	for i := 0; i < len(data); i += runPages * page {
		if err := s.Offer(procA, uint64(i), data[i:i+runPages*page]); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := s.EndRound(b.Context()); err != nil {
		b.Fatal(err)
	}
}

func BenchmarkKnown(b *testing.B) { benchRepeat(b, heap(1<<15)) }
func BenchmarkZero(b *testing.B)  { benchRepeat(b, make([]byte, 1<<27)) }

// benchRepeat offers what the target has already.
func benchRepeat(b *testing.B, data []byte) {
	s, finish := bench(b, "zstd")
	offer(b, s, data)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		offer(b, s, data)
	}
	finish()
}

// BenchmarkFinal is the pass in the freeze: every page is mapped, a hundredth of them new, and the target assembles them.
func BenchmarkFinal(b *testing.B) {
	data := heap(1 << 15)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		b.StopTimer()
		s, finish := bench(b, "zstd")
		offer(b, s, data)
		for i := 0; i < len(data); i += 100 * page {
			data[i+100]++
		}
		b.StartTimer()
		for i := 0; i < len(data); i += runPages * page {
			if err := s.Map(procA, uint64(i), 4, data[i:i+runPages*page]); err != nil {
				b.Fatal(err)
			}
		}
		finish()
	}
}

// BenchmarkSinglePages offers new pages one by one, as a sparse dirty set comes.
func BenchmarkSinglePages(b *testing.B) {
	data := heap(1 << 13)
	s, finish := bench(b, "zstd")
	b.SetBytes(int64(len(data)))
	for n := 0; b.Loop(); n++ {
		for i := 0; i < len(data); i += page {
			binary.LittleEndian.PutUint64(data[i:], uint64(n+1)<<32|uint64(i))
			if err := s.Offer(procA, uint64(2*i), data[i:i+page]); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := s.EndRound(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	finish()
}
