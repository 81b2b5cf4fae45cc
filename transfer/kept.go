package transfer

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"drover/internal/errs"
)

// Kept is pages that a host keeps of a tree that was here or began to come, for when it comes again. They stand in a file in memory
// without a name, and are gone when it is closed or this process dies. Nobody trusts them: a store that is filled from them copies
// them, so that whoever may still have the file changes nothing, and their digests are computed from the copy.
type Kept struct {
	file  *os.File
	first int64 // offset of the first page
	pages int
}

// Pages is how many there are, at most MostKept; nil has none.
func (k *Kept) Pages() int {
	if k == nil {
		return 0
	}
	return k.pages
}

// Close gives the memory back. It may be called again.
func (k *Kept) Close() error {
	if k.file == nil {
		return nil
	}
	err := k.file.Close()
	k.file, k.pages = nil, 0
	return err
}

// CloseAndKeep is Close, but what the store has in memory is kept for another stream; nil if that is nothing. Once this was called
// nobody may be handed the store's files.
func (r *Receiver) CloseAndKeep() (*Kept, error) {
	r.finish(ErrClosed)
	r.all.Wait()
	r.applying.Lock()
	defer r.applying.Unlock()
	var kept *Kept
	if s := r.applier.store; s != nil && s.file != nil {
		if n := min(s.Used(), int(s.edge), MostKept); n > 0 {
			kept, s.file = &Kept{file: s.file, first: PageSize, pages: n}, nil
		}
	}
	return kept, r.applier.close()
}

// Stock fills the slots from 1 on with kept pages, as far as the memory goes that this store was promised, and until ctx is done; it
// returns how many. An error means that they are fewer than they could be. It closes kept. Call it before anything else is written.
func (s *Store) Stock(ctx context.Context, kept *Kept) (pages int, err error) {
	defer func() { err = errors.Join(err, kept.Close()) }()
	most := min(kept.pages, int(s.slots), int(s.room.Memory))
	for s.stock < most && ctx.Err() == nil {
		b := s.buffer()[:min(MaxRun, most-s.stock)*PageSize]
		from := kept.first + int64(s.stock)*PageSize
		if _, err := kept.file.ReadAt(b, from); err != nil {
			return s.stock, errs.New(errs.Failed, "read pages that were kept: %w", err)
		}
		if err := s.begin((s.stock+1)*PageSize, b); err != nil {
			return s.stock, err
		}
		// So they do not take their memory twice; where it cannot be given back now it is in the end.
		_ = unix.Fallocate(int(kept.file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, int64(len(b)))
		s.stock += len(b) / PageSize
		for len(s.sums) <= s.stock {
			s.sums, s.is = append(s.sums, Digest{}), append(s.is, written)
		}
	}
	return s.stock, nil
}

// Keeping puts pages aside that a tree leaves behind, each content once. It is used by one goroutine.
type Keeping struct {
	store  *Store
	table  *pageTable // of what is there
	digest *digester  // under a key of its own
	pages  uint64     // added
	fresh  []byte
	sums   []Digest
}

// NewKeeping makes a place for at most so many pages. room bounds them (Room.Spill is not used): its error, as ErrSlots, is what Add
// returns when there is no more.
func NewKeeping(most uint32, room Room) (*Keeping, error) {
	room.Spill, most = "", min(most, MostKept)
	k := &Keeping{}
	var err error
	if k.digest, err = newDigester(newKey()); err != nil {
		return nil, err
	}
	if k.table, err = newPageTable(most); err != nil {
		return nil, err
	}
	if k.store, err = NewStore(most, room); err != nil {
		return nil, errors.Join(err, k.table.close())
	}
	return k, nil
}

// Add keeps pages, at most MaxRun. After an error what was added before is kept.
func (k *Keeping) Add(pages []byte) error {
	k.fresh, k.sums = k.fresh[:0], k.sums[:0]
	first := k.table.next
	var full error
	for at := 0; at < len(pages); at += PageSize {
		page := pages[at : at+PageSize]
		sum := k.digest.page(page)
		// Every page has an address of its own, so that no slot is ever emptied.
		h, err := k.table.hold(Space{}, k.pages*PageSize, sum)
		if err != nil {
			full = err
			break
		}
		if k.pages++; h.put {
			k.fresh, k.sums = append(k.fresh, page...), append(k.sums, sum)
		}
	}
	if len(k.sums) == 0 {
		return full
	}
	return errors.Join(k.store.put(first, k.sums, k.fresh), full)
}

// Close ends it and returns what was kept, nil if that is nothing.
func (k *Keeping) Close() (kept *Kept, err error) {
	if n := k.store.Used(); n > 0 {
		kept, k.store.file = &Kept{file: k.store.file, first: PageSize, pages: n}, nil
	}
	return kept, errors.Join(k.store.Close(), k.table.close())
}
