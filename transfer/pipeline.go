package transfer

import "context"

const (
	// blocks is how many blocks of MaxRun pages a sender fills, hashes and plans at once.
	blocks = 6
	// blockItems bounds the calls that one block holds.
	blockItems = 1024
)

// pipeline is what calls pass through on their way to the outbox: blocks are hashed by several goroutines, planned by one
// into frames, packed by several. Its buffers are most of what a sender takes. A sender that has ended may be kept for its
// figures for a long time, so it lets go of all of it at once.
type pipeline struct {
	open    *block // being filled, by the caller's goroutine
	free    chan *block
	hashing *stage[*block]
	packing *stage[*outFrame]
	plan    *planner
}

func newPipeline(ctx context.Context, slots uint32, digest *digester, count *counters) (*pipeline, error) {
	l := &pipeline{free: make(chan *block, blocks), hashing: newStage[*block](blocks), packing: newStage[*outFrame](packers)}
	for range blocks {
		l.free <- newBlock()
	}
	var err error
	l.plan, err = newPlanner(slots, digest, count, func(f *outFrame) error { return l.packing.put(ctx, f) })
	return l, err
}

// add appends a call to the open block and sends off a full one.
func (l *pipeline) add(ctx context.Context, i item, data []byte) error {
	if l.open != nil && (len(l.open.data)+len(data) > cap(l.open.data) || len(l.open.items) >= blockItems) {
		if err := l.flush(ctx); err != nil {
			return err
		}
	}
	if l.open == nil {
		select {
		case l.open = <-l.free:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	l.open.items = append(l.open.items, i)
	l.open.data = append(l.open.data, data...)
	return nil
}

// flush sends off the open block.
func (l *pipeline) flush(ctx context.Context) error {
	b := l.open
	if b == nil {
		return nil
	}
	l.open = nil
	return l.hashing.put(ctx, b)
}

// planned plans a block that has been hashed.
func (l *pipeline) planned(b *block) error {
	err := l.plan.block(b)
	if b.data != nil {
		b.reset()
		l.free <- b // there are no more blocks than free has room for
	}
	return err
}
