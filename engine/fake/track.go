package fake

import (
	"context"
	"fmt"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/track"
)

// Track makes a tracker of a tree of the model: it hands over what was written since its last round.
func (e *Engine) Track(t engine.Tree) track.Tracker {
	return &tracker{engine: e, tree: t, seen: map[place]uint64{}}
}

type tracker struct {
	engine *Engine
	tree   engine.Tree
	seen   map[place]uint64 // version of each page as last handed over, plus 1
}

func (t *tracker) Name() string   { return "hash" }
func (t *tracker) Parent() string { return "" }
func (t *tracker) Close() error   { return nil }

func (t *tracker) Round(ctx context.Context, emit func(image.Space, uint64, []byte) error) (track.RoundStats, error) {
	stats := track.RoundStats{Tracker: t.Name()}
	t.engine.mu.Lock()
	tr := t.engine.find(t.tree)
	var procs []proc // as they are at this instant: emit must not run under the lock
	if tr != nil {
		for _, p := range tr.procs {
			procs = append(procs, *p)
		}
	}
	t.engine.mu.Unlock()
	if tr == nil {
		return stats, fmt.Errorf("track pid %d: %w", t.tree.Pid, engine.ErrGone)
	}
	stats.Processes = len(procs)
	var b [image.PageSize]byte
	for _, p := range procs {
		for n := range p.Pages {
			if err := ctx.Err(); err != nil {
				return stats, err
			}
			stats.Scanned++
			at := place{p.Pid, p.address(n)}
			if t.seen[at] == p.version(n)+1 {
				continue
			}
			t.seen[at] = p.version(n) + 1
			stats.Emitted++
			p.page(n, b[:])
			if err := emit(p.space(), at.addr, b[:]); err != nil {
				return stats, err
			}
		}
	}
	return stats, nil
}
