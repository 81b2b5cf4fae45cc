package transfer

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// busyCosts are what a program's heap costs where a processor has little time for packing, noise what does not compress.
var (
	busyCosts = packCosts{{1.0 / 2e9, 1}, {1.0 / 100e6, 0.31}, {1.0 / 60e6, 0.192}, {1.0 / 33e6, 0.172}}
	noise     = packCosts{{1.0 / 8e9, 1}, {1.0 / 2e9, 1}, {1.0 / 600e6, 1}, {1.0 / 400e6, 1}}
)

func TestTheFastestWayForALinkIsChosen(t *testing.T) {
	const mbit = 1e6 / 8
	all := newChooser(Zstd, false).among
	for _, c := range []struct {
		name  string
		now   packing
		costs packCosts
		link  float64
		want  packing
	}{
		{"100 Mbit/s", packNone, heapCosts, 100 * mbit, packZstdMost},
		{"200 Mbit/s, from zstd's least", packZstd, heapCosts, 200 * mbit, packZstdMost},
		{"100 Mbit/s, processor busy", packS2, busyCosts, 100 * mbit, packZstd},
		{"1 Gbit/s", packS2, heapCosts, 1000 * mbit, packZstd},
		{"1 Gbit/s, processor busy", packZstd, busyCosts, 1000 * mbit, packS2},
		{"10 Gbit/s", packZstd, heapCosts, 10000 * mbit, packS2},
		{"10 Gbit/s, processor busy", packZstd, busyCosts, 10000 * mbit, packNone},
		{"what does not compress", packZstd, noise, 10000 * mbit, packNone},
	} {
		if got := choose(c.now, all, &c.costs, c.link); got != c.want {
			t.Errorf("%s: %v after %v", c.name, got, c.now)
		}
	}
}

func TestALinkThatWaitsIsGivenWhatIsPackedFirst(t *testing.T) {
	const mbit = 1e6 / 8
	packs := newChooser(Zstd, false).packs()
	for _, c := range []struct {
		name   string
		costs  packCosts
		link   float64
		queued int
		want   packing
	}{
		{"200 Mbit/s, waiting", heapCosts, 200 * mbit, 0, packZstd},
		{"200 Mbit/s, with something to do", heapCosts, 200 * mbit, 1 << 20, packZstdMost},
		{"1 Gbit/s, waiting", heapCosts, 1000 * mbit, 0, packS2},
		{"1 Gbit/s, with a little to do", heapCosts, 1000 * mbit, 300 << 10, packZstd},
		{"1 Gbit/s, with much to do", heapCosts, 1000 * mbit, 1 << 20, packZstdMost},
		{"1 Gbit/s, with a little to do, processor busy", busyCosts, 1000 * mbit, 300 << 10, packS2},
		{"10 Gbit/s, with a little to do", heapCosts, 10000 * mbit, 300 << 10, packS2},
	} {
		if got := soonest(packs, &c.costs, c.link, c.queued); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}

func TestAChosenCodecStays(t *testing.T) {
	c := newChooser(S2, true)
	for range 100 {
		c.packed(packS2, 1<<20, 1<<20, time.Second)
		c.acked(8<<20, true)
		if _, ok := c.probe(); ok {
			t.Fatal("something was tried out")
		}
	}
	if c.now() != packS2 {
		t.Errorf("got %v", c.now())
	}
	c = newChooser(Zstd, true)
	c.answered(time.Second)
	if c.now() != packZstdMost {
		t.Errorf("zstd takes %v over a slow link", c.now())
	}
}

func TestOtherWaysAreTriedNowAndThenButNotInTheFinalPass(t *testing.T) {
	c := newChooser(S2, false)
	tried := map[packing]int{}
	for range 4 * 2 * probeEvery {
		if other, ok := c.probe(); ok {
			tried[other]++
		}
	}
	if tried[packZstd] != 2 || tried[packZstdMost] != 2 || len(tried) != 2 {
		t.Errorf("got %v", tried)
	}
	c.final.Store(true)
	for range 5 * probeEvery {
		if _, ok := c.probe(); ok {
			t.Fatal("something was tried out in the final pass")
		}
	}
}

func TestASampleSaysHowOneWayCostsBesideAnother(t *testing.T) {
	c := newChooser(S2, false)
	c.costs[packS2] = packCost{1e-9, 0.4}
	for range 100 {
		c.compared(packS2, packZstd, packCost{2e-9, 0.8}, packCost{6e-9, 0.4})
	}
	if got := c.costs[packZstd]; got.time < 2.99e-9 || got.time > 3.01e-9 || got.ratio < 0.199 || got.ratio > 0.201 {
		t.Errorf("got %+v", got)
	}
}

func TestWhatASlowLinkHasNotCarriedYetIsTimeToTryHarder(t *testing.T) {
	c := newChooser(Zstd, false)
	c.costs = busyCosts
	c.link.full, c.link.rate = 100e6, 100e6
	c.waiting(0)
	if c.now() == packZstdMost {
		t.Fatal("nothing waits, and the hardest way is taken")
	}
	c.waiting(4 << 20)
	if c.now() != packZstdMost {
		t.Errorf("much waits, and the way is %v", c.now())
	}
	c.costs[packZstdMost].time *= 2
	c.waiting(4 << 20)
	if c.now() == packZstdMost {
		t.Error("what waits is carried sooner than one frame is packed the hardest way, and that is taken")
	}
	c.link.full, c.link.rate = 1e9, 1e9
	c.waiting(16 << 20)
	if c.now() == packZstdMost {
		t.Error("on a fast link the hardest way is taken")
	}
}

// packAll lets c see n megabytes of a heap, each packed in this way in as long.
func packAll(c *chooser, way packing, took time.Duration, n int) {
	for range n {
		c.packed(way, 1<<20, int(heapCosts[way].ratio*(1<<20)), took)
	}
}

// The traces are first rounds of a redis of 256 MiB over an unlimited link, on two processors that carried both hosts and more:
// each frame's way, bytes on the wire, microseconds of packing, and what the link was taken for, in MB/s. They ended in none. What zstd's second
// of then three efforts made is left out.
func TestNoneIsNotTakenBecauseTheProcessorsWereBusyForAMoment(t *testing.T) {
	for _, trace := range []string{"starved", "starved-longer"} {
		text, err := os.ReadFile("testdata/chooser/" + trace + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		c := newChooser(Zstd, false)
		for n, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
			var way packing
			var wire, micros int
			var link float64
			if _, err := fmt.Sscan(line, &way, &wire, &micros, &link); err != nil {
				t.Fatal(err)
			}
			c.link.rate = link * 1e6
			c.packed(way, 1<<20, wire, time.Duration(micros)*time.Microsecond)
			if c.now() == packNone {
				t.Errorf("%s: none is taken after %d frames", trace, n+1)
				break
			}
		}
	}
}

func TestNoneIsTakenWhenPackingIsWhatHoldsUpAFastLink(t *testing.T) {
	c := newChooser(S2, false)
	c.costs = busyCosts
	packAll(c, packS2, 20*time.Millisecond, 2*plainFrames)
	if c.now() == packNone {
		t.Fatal("none is taken on a link of which nothing is known")
	}
	c.link.rate = 1e9
	packAll(c, packS2, 20*time.Millisecond, plainFrames-1)
	if c.now() == packNone {
		t.Fatal("none is taken too early")
	}
	packAll(c, packS2, 20*time.Millisecond, 1)
	if c.now() != packNone {
		t.Errorf("got %v", c.now())
	}
}

func TestNoneIsLeftOnceTheProcessorsHaveTime(t *testing.T) {
	c := newChooser(None, false)
	c.costs, c.link.rate, c.plain = busyCosts, 500e6, plainFrames
	for n := 0; c.now() == packNone; n++ {
		if n == 64 {
			t.Fatalf("after %d MiB it is still none: %+v", n, c.costs)
		}
		packAll(c, packNone, 125*time.Microsecond, 1)
		if other, ok := c.probe(); ok { // a sample that is not packed takes no time
			c.compared(packNone, other, packCost{1e-12, 1}, heapCosts[other])
		}
	}
}

func TestTheFinalPassKeepsToWhatTheLinkHasBeenSeenToCarry(t *testing.T) {
	c := newChooser(None, false)
	c.costs = busyCosts
	c.link.full, c.link.rate = 100e6, 2e9 // it was idle since, and taken for faster
	packAll(c, packS2, 10*time.Millisecond, plainFrames)
	if c.now() != packNone {
		t.Fatalf("between rounds: %v", c.now())
	}
	c.final.Store(true)
	c.choose()
	if c.now() != packS2 {
		t.Errorf("in the final pass: %v", c.now())
	}
}

// pour lets l see 512 KiB arrive again and again, each after a write of busy and a pause of idle.
func pour(l *linkRate, at time.Time, bytes int, busy, idle time.Duration) time.Time {
	for ; bytes > 0; bytes -= 512 << 10 {
		l.begin(at)
		l.end(at.Add(busy))
		at = at.Add(busy + idle)
		l.acked(512<<10, true, at)
	}
	return at
}

func TestALinkIsAsFastAsItWasWhenItHeldUpTheWriter(t *testing.T) {
	var l linkRate
	at := time.Unix(0, 0)
	for range 3 { // a few bytes that are waited for say nothing
		at = at.Add(time.Second)
		l.acked(64<<10, true, at)
		l.acked(64<<10, false, at.Add(time.Microsecond))
	}
	if l.rate != 0 {
		t.Errorf("little that is waited for says %.0f bytes/s", l.rate)
	}
	at = pour(&l, at.Add(time.Second), 32<<20, 4*time.Millisecond, 0) // 131 MB/s
	if l.full < 125e6 || l.full > 135e6 || l.rate != l.full {
		t.Errorf("a full link: %+v", l)
	}
	full := l.full
	at = pour(&l, at, 16<<20, 100*time.Microsecond, 5*time.Millisecond)
	if l.rate < 1.3*full || l.rate > 2*full || l.full != full {
		t.Errorf("an idle link is not taken for faster little by little: %+v", l)
	}
	pour(&l, at, 16<<20, 8*time.Millisecond, 0)
	if l.full > 70e6 || l.rate != l.full {
		t.Errorf("a link that became slower: %+v", l)
	}
}

func TestABurstOfAFarTargetsAnswersIsNoRate(t *testing.T) {
	l := linkRate{trip: 60 * time.Millisecond}
	at := time.Unix(0, 0)
	l.acked(1, true, at)
	l.begin(at)
	for range 20 { // 3 MiB at once, and then nothing for long
		l.acked(2<<20, true, at.Add(time.Millisecond))
		l.acked(1<<20, true, at.Add(2*time.Millisecond))
		at = at.Add(150 * time.Millisecond)
	}
	if l.full < 10e6 || l.full > 32e6 { // 21 MB/s
		t.Errorf("got %+v", l)
	}
}

func TestAWriteUnderWayCountsAsHeldUp(t *testing.T) {
	var l linkRate
	at := time.Unix(0, 0)
	l.acked(1, true, at)
	l.begin(at)
	for range 4 { // one large frame, of which four parts are acknowledged meanwhile
		at = at.Add(50 * time.Millisecond)
		l.acked(512<<10, true, at)
	}
	if l.full < 10e6 || l.full > 11e6 {
		t.Errorf("got %+v", l)
	}
}
