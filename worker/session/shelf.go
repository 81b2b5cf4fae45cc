package session

import (
	"cmp"
	"context"
	"slices"
	"time"

	"drover/engine/image"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	"drover/transfer"
	workerapi "drover/worker/api"
)

const (
	// scarce is how much memory a host must have left beside what it keeps and what it has promised, in bytes.
	scarce = 512 << 20
	// shelfEvery is how often what is kept is looked at: whether it is old, and whether the host needs the memory.
	shelfEvery = time.Second
)

// kept are pages of a workload that was here, or began to come, for when it comes again. Whoever else wants memory has it first.
type kept struct {
	workload string
	epoch    migration.Epoch
	bytes    int64
	until    time.Time
	pages    *transfer.Kept     // nil while they are being put aside
	stop     context.CancelFunc // ends that; what has been put aside by then stays
}

// keep keeps pages, in place of what was kept of that workload, if there is room for them.
func (r *Registry) keep(name string, epoch migration.Epoch, pages *transfer.Kept) {
	if pages == nil {
		return
	}
	if r.ctx.Err() != nil { // the worker ends, and what it keeps with it
		pages.Close()
		return
	}
	k := &kept{workload: name, epoch: epoch, bytes: int64(pages.Pages()) * image.PageSize, pages: pages, stop: func() {}}
	if err := r.mayKeep(k, k.bytes, 0); err != nil { // they have their memory already
		r.cfg.Log.Info("pages are not kept", "workload", name, "reason", err)
		r.letGo(k)
		return
	}
	r.cfg.Log.Info("pages are kept", "workload", name, "bytes", k.bytes, "for", r.cfg.Stores.Keep)
	r.shelve(k)
}

// shelve puts pages where take finds them.
func (r *Registry) shelve(k *kept) {
	r.mu.Lock()
	defer r.mu.Unlock()
	k.until = time.Now().Add(r.cfg.Stores.Keep)
	if old := r.kept[k.workload]; old != nil {
		r.letGo(old)
	}
	r.kept[k.workload] = k
	if !r.shelfWatched {
		r.shelfWatched = true
		r.asides.Go(r.watchShelf)
	}
}

// mayKeep says whether a host may keep so many bytes, of which more do not take their memory yet.
func (r *Registry) mayKeep(k *kept, bytes, more int64) error {
	if r.cfg.Stores.Keep <= 0 {
		return errs.New(errs.Refused, "%s keeps no stores (keep_store)", r.cfg.Host)
	}
	free, err := r.cfg.MemoryFree()
	if err != nil {
		return errs.New(errs.Failed, "look at the memory of %s: %w", r.cfg.Host, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	stores := r.cfg.Stores.Memory
	for _, p := range r.promised {
		free, stores = free-p.rest(), stores-p.store
	}
	for _, other := range r.kept {
		if other.workload != k.workload {
			stores -= other.bytes
		}
	}
	if free-more < scarce || r.cfg.Stores.Memory > 0 && bytes > stores {
		return errs.New(errs.Refused, "%d MiB cannot be kept: %s has %d MiB of memory left", bytes>>20, r.cfg.Host, max(free, 0)>>20)
	}
	return nil
}

// take gives what is kept of a workload to a migration that brings it, nil if nothing is.
func (r *Registry) take(name string) *transfer.Kept {
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.kept[name]
	if k == nil || k.pages == nil {
		return nil
	}
	delete(r.kept, name)
	return k.pages
}

// Forget lets go of what is kept of workloads: they are no more, or live here.
func (r *Registry) Forget(workloads ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range workloads {
		if k := r.kept[name]; k != nil {
			r.drop(k, "nothing of the workload can come here any more")
		}
	}
}

// Kept lists what is kept, by workload.
func (r *Registry) Kept() []workerapi.Kept {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []workerapi.Kept
	for _, k := range r.kept {
		if k.pages != nil {
			all = append(all, workerapi.Kept{Workload: k.workload, Epoch: k.epoch, Bytes: k.bytes, Until: k.until})
		}
	}
	slices.SortFunc(all, func(a, b workerapi.Kept) int { return cmp.Compare(a.Workload, b.Workload) })
	return all
}

// drop takes pages off the shelf. The caller holds the lock.
func (r *Registry) drop(k *kept, why string) {
	r.cfg.Log.Info("pages are kept no longer", "workload", k.workload, "bytes", k.bytes, "reason", why)
	delete(r.kept, k.workload)
	r.letGo(k)
}

// letGo gives the memory of pages back that are on no shelf, which takes a while, or ends their being put aside.
func (r *Registry) letGo(k *kept) {
	k.stop()
	if pages := k.pages; pages != nil {
		r.asides.Go(func() {
			if err := pages.Close(); err != nil {
				r.cfg.Log.Warn("pages that were kept are not given back", "workload", k.workload, "error", err)
			}
		})
	}
}

// keptBytes is how much memory what is kept takes. The caller holds the lock.
func (r *Registry) keptBytes() (bytes int64) {
	for _, k := range r.kept {
		bytes += k.bytes
	}
	return bytes
}

// giveWay drops what is kept, the oldest first, until it takes no more than what has been promised leaves. room is what was measured
// (measure); what is kept of the workload that comes becomes part of its store. The caller holds the lock.
func (r *Registry) giveWay(room workload.Room, coming string) {
	left := r.less(room, "")
	for {
		var oldest *kept
		total := int64(0)
		for _, k := range r.kept {
			if k.workload == coming {
				continue
			}
			if total += k.bytes; oldest == nil || k.until.Before(oldest.until) {
				oldest = k
			}
		}
		if oldest == nil || total <= left.Memory-scarce && (r.cfg.Stores.Memory == 0 || total <= left.Store) {
			return
		}
		r.drop(oldest, "the memory is wanted for a tree that comes")
	}
}

// watchShelf drops what is old, and what the host needs the memory of, until nothing is kept any more.
func (r *Registry) watchShelf() {
	tick := time.NewTicker(shelfEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-r.ctx.Done():
			return
		}
		if r.tidyShelf() {
			return
		}
	}
}

// tidyShelf says whether the shelf is empty, and nobody looks at it any more.
func (r *Registry) tidyShelf() (over bool) {
	free, err := r.cfg.MemoryFree()
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	for _, k := range r.kept {
		if k.pages != nil && now.After(k.until) {
			r.drop(k, "it is old")
		}
	}
	if err == nil {
		r.giveWay(r.roomOf(free), "")
	}
	r.shelfWatched = len(r.kept) > 0
	return !r.shelfWatched
}

// clearShelf drops all.
func (r *Registry) clearShelf() {
	r.mu.Lock()
	for _, k := range r.kept {
		delete(r.kept, k.workload)
		r.letGo(k)
	}
	r.mu.Unlock()
	r.asides.Wait()
}
