package session

import (
	"context"
	"time"

	"drover/transfer"
)

// stockFor bounds how long a store is filled with pages that were kept: its source waits.
const stockFor = 5 * time.Second

// stock fills the store of a stream with pages that were kept of the tree. A move is none the worse without some of them.
func (t *target) stock(ctx context.Context, store *transfer.Store, kept *transfer.Kept) {
	begun, had := time.Now(), kept.Pages()
	limited, cancel := context.WithTimeout(ctx, stockFor)
	defer cancel()
	n, err := store.Stock(limited, kept)
	t.log.Info("pages of an earlier visit are in the store", "pages", n, "of", had, "took", time.Since(begun), "error", err)
}

// endStream ends the stream, whose store may be kept until it is known whether the tree will run here. Giving it back takes time that
// the blackout need not wait for.
func (t *target) endStream(stream *transfer.Receiver, keep bool) {
	if !keep || t.host.cfg.Stores.Keep <= 0 {
		go stream.Close()
		return
	}
	left := make(chan *transfer.Kept, 1)
	t.mu.Lock()
	t.kept = left
	t.mu.Unlock()
	go func() {
		kept, err := stream.CloseAndKeep()
		if err != nil {
			t.log.Warn("the store is not closed", "error", err)
		}
		left <- kept
	}()
}

// keepPages keeps the store of a tree that never ran here for when it comes again. What has run may have changed its store: what fills
// makes holes in it.
func (t *target) keepPages(keep bool) {
	t.mu.Lock()
	left := t.kept
	t.kept = nil
	t.mu.Unlock()
	if left == nil {
		return
	}
	t.host.asides.Go(func() {
		pages := <-left
		if keep {
			t.host.keep(t.req.Spec.Name, t.req.Epoch, pages)
		} else if pages != nil {
			t.host.letGo(&kept{workload: t.req.Spec.Name, pages: pages, stop: func() {}})
		}
	})
}
