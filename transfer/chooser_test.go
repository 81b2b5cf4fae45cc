package transfer

import (
	"testing"
	"time"
)

func TestTheCodecFollowsTheBottleneck(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		name          string
		now           Codec
		packing, link time.Duration
		want          Codec
	}{
		{"a fast link and a slow processor", Zstd, 100 * ms, 0, S2},
		{"still", S2, 100 * ms, 20 * ms, None},
		{"already none", None, 100 * ms, 0, None},
		{"a slow link", None, 0, 100 * ms, S2},
		{"still slow", S2, 10 * ms, 100 * ms, Zstd},
		{"already the most", Zstd, 0, time.Second, Zstd},
		{"in balance", S2, 60 * ms, 50 * ms, S2},
		{"the caller is the slow one", S2, ms, 0, S2},
	} {
		if got := choose(c.now, c.packing, c.link); got != c.want {
			t.Errorf("%s: %v after %v", c.name, got, c.now)
		}
	}
}

func TestAChosenCodecStays(t *testing.T) {
	c := newChooser(Zstd, true)
	for range 100 {
		c.waited(time.Second, 0)
	}
	if c.now() != Zstd {
		t.Errorf("got %v", c.now())
	}
}
