package transfer

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
)

// BenchmarkTable is what a sender keeps for each page: 2^19 distinct ones, offered three times, a fifth of them changed
// each time. B/page is the process's resident memory, Go's heap collected.
func BenchmarkTable(b *testing.B) {
	const pages = 1 << 19
	r := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		before := resident(b)
		table, err := newPageTable(2 * pages)
		if err != nil {
			b.Fatal(err)
		}
		for round := range 3 {
			for page := range uint64(pages) {
				if round > 0 && page%5 != 0 {
					continue
				}
				var sum Digest
				binary.LittleEndian.PutUint64(sum[:], r.Uint64())
				h, err := table.hold(Space{1, 1}, page*PageSize, sum)
				if err != nil {
					b.Fatal(err)
				}
				table.rows[h.slot].pieces[0][0] = 1
			}
			table.endRound()
		}
		b.ReportMetric(float64(resident(b)-before)/pages, "B/page")
		if err := table.close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/pages/1.4, "ns/page")
}

// resident is the process's resident memory in bytes.
func resident(b *testing.B) int {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		b.Fatal(err)
	}
	return n * os.Getpagesize()
}
