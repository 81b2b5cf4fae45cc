package transfer

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"drover/internal/errs"
)

const (
	// MostKept bounds the pages that a target may have from an earlier visit: 16 GiB.
	MostKept = 1 << 22
	// tellFor bounds how long a target tells of them: the source's first round waits for it, and its host's for that to open.
	tellFor = 5 * time.Second
)

// have is a HAVE frame.
type have struct {
	left uint32 // pages that further frames tell of
	room uint32 // slots
	sums []Digest
}

func (h have) encode() []byte {
	b := make([]byte, 0, haveHead+len(h.sums)*len(Digest{}))
	b = binary.LittleEndian.AppendUint32(b, h.left)
	b = binary.LittleEndian.AppendUint32(b, h.room)
	for i := range h.sums {
		b = append(b, h.sums[i][:]...)
	}
	return b
}

// decodeHave reads a HAVE frame. Only the last one has no page to tell of, if there was none at all.
func decodeHave(b []byte) (h have, err error) {
	const each = len(Digest{})
	if len(b) < haveHead || (len(b)-haveHead)%each != 0 {
		return h, protocol("HAVE of %d bytes", len(b))
	}
	h.left, h.room = binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	n := (len(b) - haveHead) / each
	if n > haveMost || n == 0 && h.left > 0 {
		return h, protocol("HAVE tells of %d pages, and %d are left", n, h.left)
	}
	h.sums = make([]Digest, 0, n)
	for sum := range slices.Chunk(b[haveHead:], each) {
		h.sums = append(h.sums, Digest(sum))
	}
	return h, nil
}

// takeStock hears which pages the target has from an earlier visit, and notes them in the table.
func (s *Sender) takeStock(rw io.ReadWriteCloser, table *pageTable) error {
	defer context.AfterFunc(s.ctx, func() { rw.Close() })()
	late := time.AfterFunc(greeting, func() { rw.Close() })
	defer late.Stop()
	for told, all := 0, 0; ; {
		h, err := s.out.hearHave(rw)
		if err != nil {
			return err
		}
		late.Reset(greeting)
		if told == 0 {
			all = len(h.sums) + int(h.left)
			table.stock.room = min(h.room, table.limit)
		}
		told += len(h.sums)
		if all > MostKept || told+int(h.left) > all {
			return protocol("HAVE tells of pages %d to %d of %d, and %d are left", told-len(h.sums), told, all, h.left)
		}
		for _, sum := range h.sums {
			if err := table.keepsStock(sum); err != nil {
				return errs.New(errs.Failed, "note the pages that the target has: %w", err)
			}
		}
		if h.left == 0 {
			s.count.kept(told)
			return nil
		}
	}
}

// hearHave reads a HAVE frame.
func (o *outbox) hearHave(r io.Reader) (have, error) {
	f, err := readFrame(r, true)
	switch {
	case errors.Is(err, io.EOF):
		return have{}, lost(err)
	case err != nil:
		return have{}, err
	case f.kind == fFail:
		return have{}, decodeFailure(f.body)
	case f.kind != fHave || f.codec != None:
		return have{}, protocol("%s comes before the target has said what it has", f.kind)
	}
	return decodeHave(f.body)
}

// sayStock tells the source which pages of an earlier visit stand in the store, by digests under its key: they are computed now, from what
// stands there. Over a slow link it does not tell of all.
func (r *Receiver) sayStock(w io.Writer) error {
	for began, told := time.Now(), 0; ; {
		if time.Since(began) > tellFor {
			r.forgetStock(told)
		}
		h := r.someStock(told)
		if _, err := w.Write(plainFrame(fHave, h.encode())); err != nil {
			return lost(err)
		}
		if told += len(h.sums); h.left == 0 {
			return nil
		}
	}
}

// forgetStock makes the stock so many pages: the source will use the slots above for something else. One that has done so before it was
// told, as it must not, is told of all.
func (r *Receiver) forgetStock(pages int) {
	r.applying.Lock()
	defer r.applying.Unlock()
	if s := r.applier.store; s != nil && pages < s.stock && s.Used() == s.stock {
		s.sums, s.is, s.stock = s.sums[:pages+1], s.is[:pages+1], pages
	}
}

// someStock is what a HAVE frame tells of the stock after so many pages of it. Nothing is written to the store meanwhile.
func (r *Receiver) someStock(after int) have {
	r.applying.Lock()
	defer r.applying.Unlock()
	s := r.applier.store
	if s == nil || s.pages == nil { // closed meanwhile
		return have{}
	}
	n := min(s.stock-after, haveMost)
	if n <= 0 { // less: a greeting that this one has taken the place of had made the source wait too long, and has forgotten them
		return have{room: s.room.Memory}
	}
	sums := s.sums[after+1:][:n]
	var all sync.WaitGroup
	for at := 0; at < n; at += haveMost / unpackers {
		some := sums[at:min(n, at+haveMost/unpackers)]
		all.Go(func() {
			for i := range some {
				some[i] = r.applier.digest.page(s.page(uint32(after + 1 + at + i)))
			}
		})
	}
	all.Wait()
	return have{left: uint32(s.stock - after - n), room: s.room.Memory, sums: slices.Clone(sums)}
}
