package engine_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/criu"
	"drover/engine/track"
)

// What is watched is dumped while it is watched: the tracker is closed when the dump's verdict is known.
func TestAWatchedTreeIsDumpedAndRestored(t *testing.T) {
	onHost(t, func() {
		e := criu.New(criu.Config{})
		f, err := e.Probe(t.Context())
		if err != nil || !f.WPAsync {
			t.Fatalf("this host does not watch: %+v, %v", f, err)
		}
		v := startOutside(t, "churn", "-rate", "2000", "-changes", "200", "-processes", "2", "-memory", "8M", "-say", "20ms")
		v.works(t)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		tr, got := newWP(v.tree), received{}
		rounds := func() {
			for range 4 {
				_, err := tr.Round(ctx, got.take)
				must(t, err)
				v.works(t)
			}
		}
		dump := func() (engine.Hold, *os.File) {
			images, err := os.Open(t.TempDir())
			must(t, err)
			t.Cleanup(func() { images.Close() })
			var atFreeze track.RoundStats
			h, err := e.Dump(ctx, engine.DumpRequest{Tree: v.tree, Images: images, AtFreeze: func(ctx context.Context) error {
				c, err := tr.Changed(ctx)
				atFreeze = c.Stats()
				return err
			}})
			must(t, err)
			seen := v.compare(t, tr, got)
			t.Logf("at the freeze %+v; at the hold %+v", atFreeze, seen)
			if seen.same == 0 || atFreeze.Emitted == 0 || atFreeze.Scanned <= atFreeze.Emitted {
				t.Errorf("at the freeze %+v; at the hold %+v", atFreeze, seen)
			}
			return h, images
		}

		rounds()
		h, _ := dump()
		must(t, h.Abort(ctx))
		v.works(t)
		rounds() // as if nothing had been

		h, images := dump()
		_, err = h.Commit(ctx)
		must(t, err)
		must(t, tr.Close())
		eventually(t, "the tree is gone", func() bool { return len(v.pids()) == 0 })
		h, err = e.Restore(ctx, engine.RestoreRequest{Images: images, Cgroup: v.tree.Cgroup})
		must(t, err)
		_, err = h.Commit(ctx)
		must(t, err)
		v.works(t)
		v.untouched(t)
		must(t, unix.Kill(h.Pid(), unix.SIGTERM))
		eventually(t, "the program ends", func() bool { _, err := os.Stat(fmt.Sprintf("/proc/%d", h.Pid())); return err != nil })
		v.lastWords(t)
	}, "./testenv/victims/churn")
}
