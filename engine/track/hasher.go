package track

import (
	"context"
	"hash/maphash"

	"drover/engine/image"
)

// hasher finds pages that changed by their hashes, pass after pass.
type hasher struct {
	seed maphash.Seed // of this migration's own: a program cannot aim at collisions, and one would only cost time
	buf  []byte
	seen map[image.Space]*digests // as last handed over
}

func newHasher() *hasher {
	return &hasher{seed: maphash.MakeSeed(), buf: make([]byte, maxRun*image.PageSize), seen: map[image.Space]*digests{}}
}

// digests are a space's pages and their hashes, by rising address, as a pass meets them.
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

// pass is one look at everything that a hasher knows or will know.
type pass struct {
	*hasher
	emit  func(image.Space, uint64, []byte) error
	stats *RoundStats
	next  map[image.Space]*digests

	space    image.Space
	old, now *digests
}

func (h *hasher) pass(emit func(image.Space, uint64, []byte) error, st *RoundStats) *pass {
	return &pass{hasher: h, emit: emit, stats: st, next: map[image.Space]*digests{}}
}

// end makes what the pass has met what the next compares with; the rest is forgotten, and what of it were processes is returned. A pass
// without it changes nothing: what it has handed over is handed over again.
func (p *pass) end() (gone []image.Space) {
	for s := range p.seen {
		if p.next[s] == nil && s.Kind == image.Process {
			gone = append(gone, s)
		}
	}
	p.seen = p.next
	return gone
}

// begin turns to a space, once a pass.
func (p *pass) begin(sp image.Space) {
	p.space = sp
	if p.old = p.seen[sp]; p.old == nil {
		p.old = &digests{}
	}
	p.old.at = 0
	p.now = &digests{addrs: make([]uint64, 0, len(p.old.addrs)), sums: make([]uint64, 0, len(p.old.addrs))}
	p.next[sp] = p.now
}

// read reads a range of the space and emits what has changed, neighbours together. Ranges rise from call to call. from fills its
// buffer from an address on and returns which pages it could read.
func (p *pass) read(ctx context.Context, start, end uint64, from func(addr uint64, b []byte) func(page int) bool) error {
	for ; start < end; start += uint64(len(p.buf)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := p.buf[:min(end-start, uint64(len(p.buf)))]
		if err := p.compare(start, b, from(start, b)); err != nil {
			return err
		}
	}
	return nil
}

func (p *pass) compare(addr uint64, b []byte, ok func(page int) bool) error {
	changed := -1 // where the run of changed pages begins
	flush := func(end int) error {
		if changed < 0 {
			return nil
		}
		from := changed
		changed = -1
		p.stats.Emitted += uint64((end - from) / image.PageSize)
		return p.emit(p.space, addr+uint64(from), b[from:end])
	}
	for i := 0; i < len(b); i += image.PageSize {
		a := addr + uint64(i)
		if !ok(i / image.PageSize) {
			if err := flush(i); err != nil {
				return err
			}
			continue
		}
		p.stats.Scanned++
		sum := maphash.Bytes(p.seed, b[i:i+image.PageSize])
		was, known := p.old.find(a)
		p.now.add(a, sum)
		if known && was == sum {
			if err := flush(i); err != nil {
				return err
			}
		} else if changed < 0 {
			changed = i
		}
	}
	return flush(len(b))
}
