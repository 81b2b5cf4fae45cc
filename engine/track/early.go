package track

import (
	"context"
	"fmt"
	"strings"

	"drover/engine/image"
)

// HandOver hands over what a frozen tree has changed, as a round does, so that it can be on its way while an engine still looks at the
// tree; from then on those pages count as the same. Only memory is read that nobody but the tree writes to: not what it shares, and
// nothing that is executable, where an engine may just have put an instruction of its own (compel's injected system calls). What is left
// out counts as changed still. It stops at emit's first error.
func (c *Changes) HandOver(ctx context.Context, emit func(s image.Space, addr uint64, data []byte) error) error {
	if c == nil {
		return nil
	}
	r := &reader{emit: emit, buf: make([]byte, readPages*image.PageSize)}
	for _, w := range c.watched {
		if err := c.handOver(ctx, w, r); err != nil {
			return fmt.Errorf("read memory of pid %d: %w", w.process.pid, err)
		}
	}
	return nil
}

func (c *Changes) handOver(ctx context.Context, w *watch, r *reader) error {
	maps, err := w.process.maps()
	if err != nil {
		return err
	}
	same, lost, handed := c.same[w.space.ID], []span(nil), uint64(0)
	var read []span
	r.begin(w.process, w.space, &handed)
	r.lost = func(addr uint64) { lost = append(lost, span{addr, addr + image.PageSize}) }
	for _, m := range maps {
		if !m.anonymous() || !strings.HasPrefix(m.perm, "r") || strings.Contains(m.perm, "x") {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		var there []span
		if err := w.process.scan(m.start, m.end, own, func(at region) error {
			there = append(there, span{at.start, at.end})
			return nil
		}); err != nil {
			return err
		}
		for _, s := range less(rising(there), same) {
			if err := r.add(s.start, s.end); err != nil {
				return err
			}
			read = append(read, s)
		}
	}
	if err := r.flush(); err != nil {
		return err
	}
	c.same[w.space.ID] = rising(append(less(rising(read), rising(lost)), same...))
	return nil
}
