package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/engine/image"
	"drover/engine/track"
)

// BenchmarkFinalLook measures what is asked of the wp tracker in a freeze, when a hundredth of a program's memory was written since the
// last round. Each figure is the median of eleven.
func BenchmarkFinalLook(b *testing.B) {
	onHost(b, func() {
		for _, megabytes := range []int{64, 256, 1024, 4096} {
			b.Run(fmt.Sprintf("%dM", megabytes), func(b *testing.B) {
				b.ReportMetric(0, "ns/op")
				measureFinalLook(b, megabytes)
			})
		}
	}, "./testenv/victims/dirtier")
}

func measureFinalLook(b *testing.B, megabytes int) {
	pages := megabytes * 256
	v := startOutside(b, "dirtier", "-memory", fmt.Sprintf("%dM", megabytes), "-working-set", fmt.Sprintf("%dM", megabytes),
		"-rate", fmt.Sprint(max(pages/50, 1000)), "-verify", "0", "-say", "5ms")
	v.works(b)
	tr := newWP(v.tree)
	for range 2 {
		_, err := tr.Round(b.Context(), ignore)
		must(b, err)
	}
	v.writes(b, uint64(pages/100))
	v.freeze(b, true)
	var laps []float64
	var st track.RoundStats
	for range 11 {
		begin := time.Now()
		c, err := tr.Changed(b.Context())
		must(b, err)
		laps, st = append(laps, milliseconds(time.Since(begin))), c.Stats()
	}
	slices.Sort(laps)
	b.ReportMetric(laps[len(laps)/2], "ms/look")
	b.ReportMetric(laps[len(laps)-1], "ms/look-at-worst")
	b.ReportMetric(float64(st.Emitted), "pages-changed")
	b.ReportMetric(float64(st.Scanned), "pages")
	v.freeze(b, false)
	must(b, tr.Close())
}

// BenchmarkChangedInAFreeze measures what is left for a freeze of a redis of 256 MiB under 10,000 writes a second, when a round is made four
// times a second and it is frozen at any instant after one: pages written since, pages that only the last round found, and how long it
// takes to read both. Each figure is the median of nine.
func BenchmarkChangedInAFreeze(b *testing.B) {
	onHost(b, func() {
		b.ReportMetric(0, "ns/op")
		v := startOutside(b, "redis-server", "--save", "", "--appendonly", "no", "--loglevel", "warning")
		eventually(b, "redis answers", func() bool { return exec.Command("redisload", "fill", "-size", "256M", "-say", "0").Run() == nil })
		load := exec.Command("redisload", "write", "-size", "256M", "-rate", "10000", "-say", "0")
		must(b, load.Start())
		defer func() { _ = load.Process.Kill(); _ = load.Wait() }()
		tr := newWP(v.tree)
		for range 3 {
			v.roundAfter(b, tr, 250*time.Millisecond, ignore)
		}
		laps := map[string][]float64{}
		for range 9 {
			for range 2 {
				v.roundAfter(b, tr, 250*time.Millisecond, ignore)
			}
			rest(b, rand.N(250*time.Millisecond))
			v.measureFrozen(b, tr, laps)
		}
		must(b, tr.Close())
		for what, all := range laps {
			slices.Sort(all)
			b.ReportMetric(all[len(all)/2], what)
		}
	}, "./testenv/victims/redisload")
}

// huge is a program of which some pages are written now and then.
const huge = `
import time
memory, x = bytearray(256 << 20), 1
for at in range(0, len(memory), 4096):
    memory[at] = 1
while True:
    for i in range(20):
        x = (x * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        memory[(x >> 20) % len(memory)] = 1
    print("{}", flush=True)
    time.sleep(0.01)
`

// BenchmarkHugePages measures what wp costs a program's huge pages: a first write to one that is protected splits it.
func BenchmarkHugePages(b *testing.B) {
	onHost(b, func() {
		b.ReportMetric(0, "ns/op")
		b.Setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1") // madvise(MADV_HUGEPAGE)
		v := startOutside(b, "python3", "-c", huge)
		v.works(b)
		b.ReportMetric(v.hugeMegabytes(b), "MiB/before")
		tr := newWP(v.tree)
		for range 3 {
			v.roundAfter(b, tr, time.Second, ignore)
		}
		rest(b, time.Second)
		must(b, tr.Close())
		b.ReportMetric(v.hugeMegabytes(b), "MiB/after")
		rest(b, 10*time.Second)
		b.ReportMetric(v.hugeMegabytes(b), "MiB/ten-seconds-later")
	})
}

func (v *outside) hugeMegabytes(b *testing.B) float64 {
	rollup, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", v.tree.Pid))
	must(b, err)
	_, line, _ := strings.Cut(string(rollup), "AnonHugePages:")
	var kilobytes float64
	_, err = fmt.Sscan(line, &kilobytes)
	must(b, err)
	return kilobytes / 1024
}

func (v *outside) roundAfter(b *testing.B, tr track.Tracker, d time.Duration, emit func(image.Space, uint64, []byte) error) track.RoundStats {
	rest(b, d)
	st, err := tr.Round(b.Context(), emit)
	must(b, err)
	return st
}

// rest lets time pass, in which the load goes on.
func rest(b *testing.B, d time.Duration) {
	end, stop := context.WithTimeout(b.Context(), d)
	defer stop()
	<-end.Done()
}

// measureFrozen freezes the program and asks what changed; a round then tells which of it was written since the last.
func (v *outside) measureFrozen(b *testing.B, tr track.Exact, laps map[string][]float64) {
	v.freeze(b, true)
	defer v.freeze(b, false)
	begin := time.Now()
	c, err := tr.Changed(b.Context())
	must(b, err)
	laps["ms/look"] = append(laps["ms/look"], milliseconds(time.Since(begin)))
	var found []uint64
	st := v.roundAfter(b, tr, 0, func(_ image.Space, addr uint64, data []byte) error {
		for i := 0; i < len(data); i += image.PageSize {
			found = append(found, addr+uint64(i))
		}
		return nil
	})
	laps["pages/changed"] = append(laps["pages/changed"], float64(c.Stats().Emitted))
	laps["pages/written"] = append(laps["pages/written"], float64(st.Emitted))
	laps["pages/of-the-last-round"] = append(laps["pages/of-the-last-round"], float64(st.Again))
	written := slices.Clone(found[:uint64(len(found))-st.Again])
	for what, pages := range map[string][]uint64{"ms/read-written": written, "ms/read-both": found} {
		laps[what] = append(laps[what], v.read(b, pages))
	}
}

// read reads pages of the root as a source does, and says how many milliseconds that took.
func (v *outside) read(b *testing.B, pages []uint64) float64 {
	slices.Sort(pages)
	pages = slices.Compact(pages)
	still, err := track.OpenStill(v.tree)
	must(b, err)
	defer still.Close()
	begin, buf := time.Now(), make([]byte, 256*image.PageSize)
	for len(pages) > 0 {
		n := 1
		for n < len(pages) && n < 256 && pages[n] == pages[n-1]+image.PageSize {
			n++
		}
		must(b, still.Read(uint64(v.tree.Pid), pages[0], buf[:n*image.PageSize]))
		pages = pages[n:]
	}
	return milliseconds(time.Since(begin))
}
