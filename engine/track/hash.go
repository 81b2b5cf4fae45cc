package track

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/internal/proc"
)

// maxRun is the longest run emitted, in pages.
const maxRun = 256

// NewHash makes the tracker that works on any kernel: it reads every page of the tree in every round and hands over those
// whose hash changed. It keeps 16 bytes a page and reads some GB a second on one core; nothing is done to the tree.
func NewHash(t engine.Tree) Tracker {
	return &hashTracker{tree: t, seed: maphash.MakeSeed(), buf: make([]byte, maxRun*image.PageSize), seen: map[image.Space]*digests{}}
}

type hashTracker struct {
	tree engine.Tree
	seed maphash.Seed // of this migration's own: a program cannot aim at collisions, and one would only cost time
	buf  []byte
	seen map[image.Space]*digests // as last handed over
}

// digests are a space's pages and their hashes, by rising address, as a round meets them.
type digests struct {
	addrs, sums []uint64
	at          int // how far a reader that goes up has come
}

func (d *digests) add(addr, sum uint64) {
	d.addrs, d.sums = append(d.addrs, addr), append(d.sums, sum)
}

// find is the hash of a page; addresses asked for rise from call to call.
func (d *digests) find(addr uint64) (sum uint64, ok bool) {
	for d.at < len(d.addrs) && d.addrs[d.at] < addr {
		d.at++
	}
	if d.at == len(d.addrs) || d.addrs[d.at] != addr {
		return 0, false
	}
	return d.sums[d.at], true
}

func (h *hashTracker) Name() string { return "hash" }

func (h *hashTracker) Parent() string { return "" }

func (h *hashTracker) Close() error {
	h.seen, h.buf = nil, nil
	return nil
}

func (h *hashTracker) Round(ctx context.Context, emit func(image.Space, uint64, []byte) error) (RoundStats, error) {
	st := RoundStats{Tracker: h.Name()}
	begin := time.Now()
	pids := proc.OfTree(h.tree)
	now := make(map[image.Space]*digests, len(pids))
	for _, pid := range pids {
		sp := image.Space{Kind: image.Process, ID: uint64(proc.InnerPid(pid))}
		seen, err := h.process(ctx, pid, sp, emit, &st)
		if gone(err) {
			continue // it ended meanwhile; its pages are needed no more
		}
		if err != nil {
			return st, fmt.Errorf("read memory of pid %d: %w", pid, err)
		}
		now[sp] = seen
		st.Processes++
	}
	if st.Processes == 0 {
		return st, fmt.Errorf("track pid %d: %w", h.tree.Pid, engine.ErrGone)
	}
	h.seen = now // what is gone is forgotten
	st.Took = time.Since(begin)
	return st, nil
}

// process reads one process and returns the hashes of all it has.
func (h *hashTracker) process(ctx context.Context, pid int, sp image.Space, emit func(image.Space, uint64, []byte) error, st *RoundStats) (*digests, error) {
	p, err := openProcess(pid)
	if err != nil {
		return nil, err
	}
	defer p.close()
	maps, err := p.maps()
	if err != nil {
		return nil, err
	}
	old := h.seen[sp]
	if old == nil {
		old = &digests{}
	}
	old.at = 0
	now := &digests{addrs: make([]uint64, 0, len(old.addrs)), sums: make([]uint64, 0, len(old.addrs))}
	for _, m := range maps {
		if !m.dumped() {
			continue
		}
		err := p.populated(m, func(start, end uint64) error {
			for a := start; a < end; a += maxRun * image.PageSize {
				if err := ctx.Err(); err != nil {
					return err
				}
				n := min(end-a, maxRun*image.PageSize)
				if err := h.run(p, sp, a, h.buf[:n], old, now, emit, st); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return now, nil
}

// run reads the pages of buf at addr and emits those that changed, neighbours together.
func (h *hashTracker) run(p *process, sp image.Space, addr uint64, buf []byte, old, now *digests, emit func(image.Space, uint64, []byte) error, st *RoundStats) error {
	ok := p.read(addr, buf)
	changed := -1 // where the run of changed pages begins
	flush := func(end int) error {
		if changed < 0 {
			return nil
		}
		from := changed
		changed = -1
		st.Emitted += uint64((end - from) / image.PageSize)
		return emit(sp, addr+uint64(from), buf[from:end])
	}
	for i := 0; i < len(buf); i += image.PageSize {
		a := addr + uint64(i)
		if !ok(i / image.PageSize) {
			if err := flush(i); err != nil {
				return err
			}
			continue
		}
		st.Scanned++
		sum := maphash.Bytes(h.seed, buf[i:i+image.PageSize])
		was, known := old.find(a)
		now.add(a, sum)
		if known && was == sum {
			if err := flush(i); err != nil {
				return err
			}
		} else if changed < 0 {
			changed = i
		}
	}
	return flush(len(buf))
}

// gone says whether an error means that a process has ended.
func gone(err error) bool {
	return errors.Is(err, unix.ESRCH) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, os.ErrProcessDone)
}
