package session

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine/image"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	"drover/transfer"
)

// Stores say where the stores of trees that come to a host may stand.
type Stores struct {
	// Memory is the most that all of them together may take of the memory, in bytes; 0 is what is free.
	Memory int64
	// Spill is a directory on a disk for what of them has no room in memory, encrypted; "" refuses a tree instead.
	Spill string
	// Keep is for how long pages of a tree that was here, or began to come, are kept for when it comes again; 0 keeps none. They take
	// of Memory what nothing else wants.
	Keep time.Duration
	// SpillFree is how much that disk could take, in bytes, without what has been promised. It may be nil with Spill "".
	SpillFree func() (int64, error)
}

// promise is what a migration has been promised of its target, in bytes.
type promise struct {
	tree  int64 // of memory
	store int64 // of memory, besides
	spill int64 // of the disk
	// taken is how much of tree and store has been taken already, which is therefore not free any more; nil is nothing.
	taken func() int64
	pages *os.File // the store's; taken looks at it. It is the promise's own
}

// rest is what of the promised memory is still to be taken.
func (p promise) rest() int64 {
	if p.taken == nil {
		return p.tree + p.store
	}
	return max(0, p.tree+p.store-p.taken())
}

// Room is what this host has free for trees that come.
func (r *Registry) Room() (workload.Room, error) {
	free, err := r.measure()
	if err != nil {
		return free, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.less(free, ""), nil
}

// measure is what is free, and what is kept, but for what has been promised and not been taken yet.
func (r *Registry) measure() (room workload.Room, err error) {
	free, err := r.cfg.MemoryFree()
	if err != nil {
		return room, errs.New(errs.Failed, "look at the memory of %s: %w", r.cfg.Host, err)
	}
	r.mu.Lock()
	room = r.roomOf(free)
	r.mu.Unlock()
	if r.cfg.Stores.Spill != "" {
		if room.Spill, err = r.cfg.Stores.SpillFree(); err != nil {
			return room, errs.New(errs.Failed, "look at the disk of %s: %w", r.cfg.Stores.Spill, err)
		}
	}
	return room, nil
}

// roomOf is what would be free if nothing was kept, with so much memory that is. The caller holds the lock.
func (r *Registry) roomOf(free int64) (room workload.Room) {
	room.Memory = free + r.keptBytes()
	room.Store = room.Memory
	if r.cfg.Stores.Memory > 0 {
		room.Store = r.cfg.Stores.Memory
	}
	return room
}

// less is room less what has been promised to all but one migration: of what is free, as much as has not been taken yet; of what a limit
// allows, all. The caller holds the lock.
func (r *Registry) less(room workload.Room, but migration.ID) workload.Room {
	allowed := r.cfg.MemoryLimit
	for id, p := range r.promised {
		if id != but {
			allowed -= p.tree + p.store
			room.Memory -= p.rest()
			room.Spill -= p.spill
			if r.cfg.Stores.Memory > 0 {
				room.Store -= p.store
			}
		}
	}
	if r.cfg.MemoryLimit > 0 {
		room.Memory = min(room.Memory, allowed)
	}
	return workload.Room{Memory: room.Memory, Store: min(room.Store, room.Memory), Spill: max(room.Spill, 0)}
}

// reserve promises a migration what a workload's tree of that resident set will need here, if this host has it.
func (r *Registry) reserve(id migration.ID, name string, rss int64) error {
	all, err := r.measure()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	room := r.less(all, id)
	store, spill, ok := room.Split(rss)
	if ok {
		r.promised[id] = promise{tree: workload.TreeNeed(rss), store: store, spill: spill}
		r.giveWay(all, name)
		return nil
	}
	need := workload.MemoryNeed(rss)
	switch {
	case room.Memory < workload.TreeNeed(rss) || r.cfg.Stores.Spill == "" && room.Memory < need:
		return errs.New(errs.Refused, "%s has %d MiB of memory free and %d MiB of it promised: the tree needs %d MiB, in its store and as itself",
			r.cfg.Host, all.Memory>>20, (all.Memory-room.Memory)>>20, need>>20).WithNext("choose another host or free memory on %s", r.cfg.Host)
	case r.cfg.Stores.Spill == "":
		return errs.New(errs.Refused, "stores may take %d MiB of the memory of %s, and %d MiB are left: the tree's needs %d MiB",
			all.Store>>20, r.cfg.Host, max(room.Store, 0)>>20, workload.StoreNeed(rss)>>20).
			WithNext("wait for other moves to %s, raise its store_memory, or let stores spill to a disk (store_spill)", r.cfg.Host)
	}
	return errs.New(errs.Refused, "%d MiB of the tree's store have room in the memory of %s, and %d MiB on the disk of %s: it needs %d MiB",
		store>>20, r.cfg.Host, room.Spill>>20, r.cfg.Stores.Spill, workload.StoreNeed(rss)>>20).
		WithNext("choose another host, wait for other moves to it, or free room on its disk")
}

// storeRoom is where a migration's store may stand.
func (r *Registry) storeRoom(id migration.ID) transfer.Room {
	r.mu.Lock()
	defer r.mu.Unlock()
	return transfer.Room{
		Memory: uint32(r.promised[id].store / image.PageSize), Spill: r.cfg.Stores.Spill,
		More: func(slots uint32) error { return r.grow(id, int64(slots)*image.PageSize) },
	}
}

// grow promises a migration's store more memory: it holds what the tree was when it was last looked at, and what it has changed since.
func (r *Registry) grow(id migration.ID, store int64) error {
	all, err := r.measure()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	had, measured := r.promised[id], all
	all.Memory += had.tree + had.store - had.rest() // what it has itself is not free any more
	room := r.less(all, id)
	left := room.Memory - had.tree
	if store > left || r.cfg.Stores.Memory > 0 && store > room.Store {
		return errs.New(errs.Refused, "the tree changes so much that its store needs more than %d MiB; %s has %d MiB of memory left, and %d MiB for stores",
			had.store>>20, r.cfg.Host, max(left, 0)>>20, max(room.Store, 0)>>20).
			WithNext("choose another host, free memory on %s, or let stores spill to a disk (store_spill)", r.cfg.Host)
	}
	had.store = max(had.store, store)
	r.promised[id] = had
	r.giveWay(measured, "")
	return nil
}

func (r *Registry) free(id migration.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unpromise(id)
}

// unpromise is free for who holds the lock.
func (r *Registry) unpromise(id migration.ID) {
	if p := r.promised[id]; p.pages != nil {
		p.pages.Close()
	}
	delete(r.promised, id)
}

// fillsUp says where a migration's store stands, and how much of its tree's memory is in place: so that it is not counted as promised too.
// The file stays the caller's.
func (r *Registry) fillsUp(id migration.ID, store *os.File, inPlace func() int64) error {
	fd, err := unix.FcntlInt(store.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return errs.New(errs.Failed, "look at the store: %w", err)
	}
	pages := os.NewFile(uintptr(fd), store.Name())
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.promised[id]
	if !ok {
		pages.Close()
		return nil
	}
	p.pages, p.taken = pages, func() int64 { return blocks(pages) + inPlace() }
	r.promised[id] = p
	return nil
}

// blocks is how much memory a file in memory takes, in bytes: what was given back of it not.
func blocks(f *os.File) int64 {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	return st.Blocks * 512 // whatever the file system's own are: stat(2)
}

// Reserved is the memory that targets have been promised, in bytes.
func (r *Registry) Reserved() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	var sum int64
	for _, p := range r.promised {
		sum += p.tree + p.store
	}
	return sum
}
