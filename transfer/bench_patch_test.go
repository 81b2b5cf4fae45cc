package transfer_test

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"

	"drover/transfer"
)

// valueSize is what one value of values takes.
const valueSize = 100

// values makes n pages of small JSON documents, as a cache of them holds.
func values(n int, r *rand.Rand) []byte {
	b := make([]byte, n*page)
	for i := 0; i+valueSize <= len(b); i += valueSize {
		value(b[i:i+valueSize], r)
	}
	return b
}

func value(to []byte, r *rand.Rand) {
	copy(to, fmt.Sprintf(`{"id":%09d,"user":"u%07d","score":%05d,"seen":"2026-11-%02dT%02d:%02d:%02dZ","tags":["a%03d"]}            `,
		r.IntN(1e9), r.IntN(1e7), r.IntN(1e5), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), r.IntN(1000)))
}

// rewrites are ways in which a program changes a part of each of its pages.
var rewrites = []struct {
	name   string
	fresh  func(n int, r *rand.Rand) []byte
	change func(page []byte, r *rand.Rand)
}{
	{"json", values, func(p []byte, r *rand.Rand) {
		at := r.IntN(len(p)/valueSize) * valueSize
		value(p[at:at+valueSize], r)
	}},
	{"counter", func(n int, _ *rand.Rand) []byte { return heap(n) }, func(p []byte, r *rand.Rand) {
		at := 8 * r.IntN(len(p)/8)
		binary.LittleEndian.PutUint64(p[at:], binary.LittleEndian.Uint64(p[at:])+r.Uint64N(1000)+1)
	}},
}

// BenchmarkRewrite offers pages of which each has changed a little, to a target that has what they were (patch) or not (whole).
func BenchmarkRewrite(b *testing.B) {
	const n = 1 << 14
	for _, w := range rewrites {
		for _, codec := range []string{"none", "s2", "zstd"} {
			for _, way := range []string{"patch", "whole"} {
				b.Run(w.name+"/"+codec+"/"+way, func(b *testing.B) {
					r := rand.New(rand.NewPCG(1, 2))
					s, finish := bench(b, codec)
					data := w.fresh(n, r)
					offer(b, s, data)
					before := s.Progress().WireBytes
					b.SetBytes(n * page)
					rounds := 0
					for ; b.Loop(); rounds++ {
						b.StopTimer()
						for i := 0; i < len(data); i += page {
							w.change(data[i:i+page], r)
						}
						if way == "whole" {
							if err := s.Drop(procA); err != nil {
								b.Fatal(err)
							}
						}
						b.StartTimer()
						offer(b, s, data)
					}
					b.ReportMetric(float64(s.Progress().WireBytes-before)/float64(rounds*n), "wire-B/page")
					finish()
				})
			}
		}
	}
}

// BenchmarkFreeze is a final pass over a link of 1 Gbit/s: 32,768 pages after rounds that the codec was chosen in, each
// eighth page changed since. Its time is that of the pass; compression "" is the stream's own choice.
func BenchmarkFreeze(b *testing.B) {
	const n, gbit = 1 << 15, 125_000_000
	for _, w := range rewrites {
		for _, codec := range []string{"", "none", "s2", "zstd"} {
			name := w.name + "/chosen"
			if codec != "" {
				name = w.name + "/" + codec
			}
			b.Run(name, func(b *testing.B) {
				wire := uint64(0)
				used := map[string]int{}
				for b.Loop() {
					b.StopTimer()
					r := rand.New(rand.NewPCG(1, 2))
					data := w.fresh(n, r)
					s, finish := benchOver(b, transfer.SenderConfig{Compression: codec, Limiter: transfer.NewLimiter(gbit)})
					offer(b, s, data)
					change := func(every int) {
						for i := 0; i < len(data); i += every * page {
							w.change(data[i:i+page], r)
						}
					}
					for range 3 {
						change(2)
						offer(b, s, data)
					}
					change(8)
					b.StartTimer()
					for i := 0; i < len(data); i += runPages * page {
						if err := s.Map(procA, uint64(i), 4, data[i:i+runPages*page]); err != nil {
							b.Fatal(err)
						}
					}
					finish()
					b.StopTimer()
					wire += s.FinalReport().WireBytes
					used[s.Progress().Compression]++
					b.StartTimer()
				}
				b.ReportMetric(float64(wire)/float64(b.N)/1e6, "wire-MB")
				b.Logf("packed at the end with %v", used)
			})
		}
	}
}
