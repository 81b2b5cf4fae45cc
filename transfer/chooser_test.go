package transfer

import (
	"testing"
	"time"
)

// heapCosts are what a program's heap costs on an idle processor, and on one that has little time for packing.
var (
	heapCosts = [...]packCost{None: {1.0 / 8e9, 1}, S2: {1.0 / 800e6, 0.27}, Zstd: {1.0 / 230e6, 0.18}}
	busyCosts = [...]packCost{None: {1.0 / 2e9, 1}, S2: {1.0 / 100e6, 0.27}, Zstd: {1.0 / 40e6, 0.18}}
	noise     = [...]packCost{None: {1.0 / 8e9, 1}, S2: {1.0 / 2e9, 1}, Zstd: {1.0 / 600e6, 1}}
)

func TestTheFastestCodecForALinkIsChosen(t *testing.T) {
	const mbit = 1e6 / 8
	for _, c := range []struct {
		name  string
		now   Codec
		costs [3]packCost
		link  float64
		want  Codec
	}{
		{"100 Mbit/s", None, heapCosts, 100 * mbit, Zstd},
		{"100 Mbit/s, processor busy", S2, busyCosts, 100 * mbit, Zstd},
		{"1 Gbit/s", Zstd, heapCosts, 1000 * mbit, Zstd},
		{"1 Gbit/s, from none", None, heapCosts, 1000 * mbit, S2}, // much the same
		{"1 Gbit/s, processor busy", Zstd, busyCosts, 1000 * mbit, S2},
		{"10 Gbit/s", Zstd, heapCosts, 10000 * mbit, S2},
		{"10 Gbit/s, processor busy", Zstd, busyCosts, 10000 * mbit, None},
		{"what does not compress", Zstd, noise, 10000 * mbit, None},
		{"nothing known of the link", S2, busyCosts, 0, S2},
	} {
		if got := choose(c.now, c.costs, c.link); got != c.want {
			t.Errorf("%s: %v after %v", c.name, got, c.now)
		}
	}
}

func TestAChosenCodecStays(t *testing.T) {
	c := newChooser(Zstd, true)
	for range 100 {
		c.packed(Zstd, 1<<20, 1<<20, time.Second)
		c.wrote(8<<20, time.Time{}, time.Time{}.Add(time.Millisecond))
		if c.next() != Zstd {
			t.Fatal("something was tried out")
		}
	}
	if c.now() != Zstd {
		t.Errorf("got %v", c.now())
	}
}

func TestOtherCodecsAreTriedNowAndThenButNotInTheFinalPass(t *testing.T) {
	c := newChooser(S2, false)
	tried := map[Codec]int{}
	for range 64 {
		tried[c.next()]++
	}
	if tried[S2] != 60 || tried[Zstd] != 2 || tried[None] != 2 {
		t.Errorf("got %v", tried)
	}
	c.final.Store(true)
	for range 64 {
		if c.next() != S2 {
			t.Fatal("something was tried out in the final pass")
		}
	}
}

func TestTheFinalPassKeepsToWhatTheLinkHasBeenSeenToCarry(t *testing.T) {
	c := newChooser(None, false)
	c.costs = busyCosts
	c.link.full, c.link.rate = 100e6, 2e9 // it was idle since, and taken for faster
	c.choose()
	if c.now() != None {
		t.Fatalf("between rounds: %v", c.now())
	}
	c.final.Store(true)
	c.choose()
	if c.now() != S2 {
		t.Errorf("in the final pass: %v", c.now())
	}
}

// pour lets l see writes of 256 KiB, each of which takes busy and is followed by idle.
func pour(l *linkRate, at time.Time, bytes int, busy, idle time.Duration) time.Time {
	for ; bytes > 0; bytes -= 256 << 10 {
		l.wrote(256<<10, at, at.Add(busy))
		at = at.Add(busy + idle)
	}
	return at
}

func TestALinkIsAsFastAsItWasWhenItHeldUpTheWriter(t *testing.T) {
	var l linkRate
	at := time.Unix(0, 0)
	at = pour(&l, at, 3<<20, time.Microsecond, 0)
	at = pour(&l, at.Add(time.Second), 3<<20, time.Microsecond, 0)
	if l.rate != 0 {
		t.Errorf("bursts into empty buffers say %.0f bytes/s", l.rate)
	}
	at = pour(&l, at, 32<<20, 2*time.Millisecond, 0) // 131 MB/s
	if l.full < 125e6 || l.full > 135e6 || l.rate != l.full {
		t.Errorf("a full link: %+v", l)
	}
	full := l.full
	at = pour(&l, at, 40<<20, 100*time.Microsecond, 5*time.Millisecond)
	if l.rate < 2*full || l.full != full {
		t.Errorf("an idle link is not taken for faster: %+v", l)
	}
	pour(&l, at, 16<<20, 4*time.Millisecond, 0)
	if l.full > 70e6 || l.rate != l.full {
		t.Errorf("a link that became slower: %+v", l)
	}
}
