package transfer

import (
	"context"
	"sync"

	"drover/internal/errs"
)

const (
	// mergeAhead is how many bytes of frames may wait while the next one is there: the lanes need not stand still meanwhile.
	mergeAhead = 1 << 20
	// mergeMost bounds those that wait for one that is missing, which itself is always taken: an honest source has no more
	// under way.
	mergeMost = Window + bufferSize
)

// merge puts the frames of several lanes back into their order. Lanes add, one goroutine takes.
type merge struct {
	mu      sync.Mutex
	next    uint64            // number of the frame to be taken
	frames  map[uint64]*frame // that wait, all of them from next on
	bytes   int               // in frames
	changed chan struct{}     // closed and replaced at each change
}

func newMerge() *merge {
	return &merge{next: 1, frames: map[uint64]*frame{}, changed: make(chan struct{})}
}

// wake is called with m.mu held.
func (m *merge) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// begun says whether any frame has come.
func (m *merge) begun() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.next > 1 || len(m.frames) > 0
}

// add takes a frame in once there is room for it. One that has come before is dropped, whoever brings it: the source sends
// again what it cannot know to have arrived over a lane that was lost.
func (m *merge) add(ctx context.Context, f *frame) error {
	for {
		changed, err := m.offer(f)
		if changed == nil {
			return err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// offer is add without waiting; changed is nil when it is done.
func (m *merge) offer(f *frame) (changed <-chan struct{}, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, there := m.frames[m.next]
	switch {
	case f.number < m.next || m.frames[f.number] != nil:
		giveBack(f.body)
		return nil, nil
	case f.number == m.next, m.bytes+f.wireSize() <= mergeAhead:
	case there:
		return m.changed, nil
	case m.bytes+f.wireSize() > mergeMost:
		return nil, errs.New(errs.Failed, "frame %d is missing, and %d bytes of later ones are here: %w", m.next, m.bytes, ErrTooLarge)
	}
	m.frames[f.number] = f
	m.bytes += f.wireSize()
	m.wake()
	return nil, nil
}

// take waits for the next frame.
func (m *merge) take(ctx context.Context) (*frame, error) {
	for {
		m.mu.Lock()
		f, changed := m.frames[m.next], m.changed
		if f != nil {
			delete(m.frames, m.next)
			m.next++
			m.bytes -= f.wireSize()
			m.wake()
		}
		m.mu.Unlock()
		if f != nil {
			return f, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// emptyAt says whether n is the next frame and has not come.
func (m *merge) emptyAt(n uint64) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.next == n && m.frames[n] == nil
}
