package engine_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/lazy"
	"drover/engine/track"
)

// startSprawl starts a process with little memory in a large address space.
func startSprawl(t testing.TB, mappings, gigabytes int) *hoardTree {
	t.Helper()
	return startAlone(t, fmt.Sprintf("sprawl-%d-%d", mappings, gigabytes), "/usr/local/bin/dirtier", "-memory", "16M", "-verify", "0", "-say", "5ms",
		"-mappings", fmt.Sprint(mappings), "-reserve", fmt.Sprintf("%dG", gigabytes))
}

// TestRoundsCountMappings: each costs the freeze something, whatever is in it.
func TestRoundsCountMappings(t *testing.T) {
	onHost(t, func() {
		h := startSprawl(t, 2000, 0)
		for _, tr := range []track.Tracker{newWP(h.tree), track.NewHash(h.tree)} {
			st, err := tr.Round(t.Context(), ignore)
			must(t, err)
			if st.Mappings < 2000 || st.Mappings > 2200 {
				t.Errorf("%s counts %d mappings", tr.Name(), st.Mappings)
			}
			must(t, tr.Close())
		}
	}, "./testenv/victims/dirtier")
}

// TestAddressSpaceWithoutMemoryCostsNone: in a lazy dump of its own, CRIU would take 16 bytes for each page of address space, twice: 2.4 GiB here.
func TestAddressSpaceWithoutMemoryCostsNone(t *testing.T) {
	onHost(t, func() {
		h := startSprawl(t, 2000, 300)
		dir, err := os.Open(t.TempDir())
		must(t, err)
		defer dir.Close()
		hold, err := h.e.Dump(t.Context(), engine.DumpRequest{Tree: h.tree, Images: dir, Lazy: true})
		must(t, err)
		for _, pid := range allPids() {
			if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); filepath.Base(exe) == "criu" {
				if most := mostMemory(t, pid); most == 0 || most > 64<<10 {
					t.Errorf("CRIU has taken %d KiB", most)
				}
			}
		}
		entries, err := lazy.Wanted(dir.Name(), uint64(h.tree.Pid))
		must(t, err)
		var left uint64
		for _, e := range entries {
			left += e.Pages
		}
		if left < 16<<20/image.PageSize+500 {
			t.Errorf("%d pages were left out", left)
		}
		must(t, hold.Abort(t.Context()))
		h.wantWork(t)
	}, "./testenv/victims/dirtier")
}

// mostMemory is the most memory that a process has had at a time, in KiB.
func mostMemory(t testing.TB, pid int) (kib int) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	_, line, _ := strings.Cut(string(status), "VmHWM:")
	_, err = fmt.Sscan(line, &kib)
	must(t, err)
	return kib
}

// BenchmarkAddressSpace measures what mappings and reserved address space cost in a blackout, beside nearly no memory, by drover (CRIU is not
// shown the memory) and by CRIU alone (a plain dump and restore). Each figure is the median of three.
func BenchmarkAddressSpace(b *testing.B) {
	onHost(b, func() {
		b.ReportMetric(0, "ns/op")
		none := measureSprawl(b, 0, 0)
		for _, mappings := range []int{1000, 5000, 20000} {
			for what, took := range measureSprawl(b, mappings, 0) {
				b.ReportMetric(took, fmt.Sprintf("ms/%d-mappings-%s", mappings, what))
				b.ReportMetric((took-none[what])*1000/float64(mappings), fmt.Sprintf("ms/per-1000-of-%d-mappings-%s", mappings, what))
			}
		}
		for _, gigabytes := range []int{64, 300} {
			for what, took := range measureSprawl(b, 0, gigabytes) {
				b.ReportMetric(took, fmt.Sprintf("ms/%d-GiB-reserved-%s", gigabytes, what))
				b.ReportMetric((took-none[what])*100/float64(gigabytes), fmt.Sprintf("ms/per-100-GiB-of-%d-reserved-%s", gigabytes, what))
			}
		}
		for what, took := range none {
			b.ReportMetric(took, "ms/neither-"+what)
		}
	}, "./testenv/victims/dirtier")
}

// measureSprawl is how many milliseconds a dump (from the freeze on) and a restore of such a process take, each beside the memory and with it.
func measureSprawl(b *testing.B, mappings, gigabytes int) map[string]float64 {
	h := startSprawl(b, mappings, gigabytes)
	laps := map[string][]time.Duration{}
	for range 3 {
		h.measure(b, true, laps)
		h.measure(b, false, laps)
	}
	h.wantWork(b)
	must(b, h.e.Kill(b.Context(), h.tree))
	medians := map[string]float64{}
	for _, what := range []string{"frozen-beside", "frozen-within", "restore-beside", "restore-within"} {
		all := laps[what]
		slices.Sort(all)
		medians[what] = milliseconds(all[len(all)/2])
	}
	return medians
}
