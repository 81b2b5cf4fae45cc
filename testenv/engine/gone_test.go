package engine_test

import (
	"fmt"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"drover/engine/image"
	"drover/engine/track"
)

// A tree that forks all the time would fill the target's store with pages that nobody needs.
func TestATrackerSaysWhichProcessesAreNoMore(t *testing.T) {
	onHost(t, func() {
		c := startClan(t)
		trackers := map[string]track.Tracker{"hash": track.NewHash(c.tree), "wp": newWP(c.tree)}
		got := map[string]received{"hash": {}, "wp": {}}
		wantGone := func(when string, want ...image.Space) {
			t.Helper()
			for name, tr := range trackers {
				st, err := tr.Round(t.Context(), got[name].take)
				must(t, err)
				if !slices.Equal(st.Gone, want) {
					t.Errorf("%s: %s says that %v are gone, want %v", when, name, st.Gone, want)
				}
			}
		}
		wantGone("the first round")
		wantGone("the second")
		ended := c.look()[4].pid
		must(t, unix.Kill(int(ended), unix.SIGKILL))
		eventually(t, "it has no memory any more", func() bool { maps, _ := os.ReadFile(fmt.Sprintf("/proc/%d/maps", ended)); return len(maps) == 0 })
		wantGone("one was killed", image.Space{Kind: image.Process, ID: ended})
		wantGone("the next")
		for _, tr := range trackers {
			must(t, tr.Close())
		}
	})
}
