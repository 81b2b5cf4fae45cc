package transfer

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"drover/internal/errs"
)

// applier is what the target knows of a stream, whatever connection it comes over. It is used by one goroutine.
type applier struct {
	target  Target
	limits  Limits
	greeted bool
	store   *Store
	digest  *digester
	sum     *manifest
	state   state
	result  Result
	final   bool

	pages  PageWriter // of the open space, nil if none
	space  Space
	above  uint64 // the lowest address that may be mapped
	opened map[Space]bool

	file *openFile // nil if none

	entries entryReader
	runs    []Content // of one entry
	sums    []Digest  // of one entry
}

// openFile is a file being received.
type openFile struct {
	kind string
	meta []byte
	w    io.WriteCloser
	size uint64
	sum  hash.Hash
}

func newApplier(t Target) *applier {
	return &applier{target: t, sum: newManifest(), opened: map[Space]bool{}}
}

// hello answers a connection's greeting; begun says that frames of the stream have come.
func (a *applier) hello(h hello, begun bool) error {
	if h.Version != version {
		return errs.New(errs.Refused, "the source speaks version %d, this host %d: %w", h.Version, version, ErrVersion).
			WithNext("run the same release of drover on both hosts")
	}
	if !a.greeted {
		a.limits = a.target.Limits().filled()
	}
	if want := a.limits; want.Migration != "" && (string(want.Migration) != h.Migration || uint64(want.Epoch) != h.Epoch) {
		return errs.New(errs.Conflict, "the stream is of %q, epoch %d; expected is %q, epoch %d: %w", clip(h.Migration), h.Epoch, want.Migration, want.Epoch, ErrProtocol)
	}
	// A source that never heard the answer to its greeting begins again, and may: nothing of the first stream has come.
	again := !h.Resume && a.greeted && !begun && a.state.applied == 0
	if h.Resume != a.greeted && !again {
		return errs.New(errs.Conflict, "the source resumes a stream that has not begun, or begins one again: %w", ErrProtocol)
	}
	if a.greeted && !again {
		return nil
	}
	var err error
	if a.digest, err = newDigester(h.Key); err != nil {
		return err
	}
	if _, err := a.reserve(); err != nil {
		return err
	}
	a.greeted, a.state.slots = true, a.limits.Slots
	return nil
}

// reserve makes the store, once.
func (a *applier) reserve() (*Store, error) {
	if a.store == nil {
		var err error
		a.limits = a.target.Limits().filled()
		if a.store, err = NewStore(a.limits.Slots, a.limits.Room); err != nil {
			return nil, err
		}
	}
	return a.store, nil
}

// frame applies a frame; answer says that the source waits for STATE.
func (a *applier) frame(f *received) (answer bool, err error) {
	if a.file != nil && f.kind != fData && f.kind != fClose || a.file == nil && (f.kind == fData || f.kind == fClose) {
		return false, protocol("%s, with a file open: %t", f.kind, a.file != nil)
	}
	switch f.kind {
	case fPut:
		err = a.put(f.payload, f.sums)
	case fRound:
		answer, err = true, a.round(f.payload)
	case fSpace:
		err = a.openSpace(f.payload)
	case fMap:
		err = a.mapPages(f.payload)
	case fFile:
		err = a.openFile(f.payload)
	case fData:
		err = a.data(f.payload)
	case fClose:
		err = a.closeFile(f.payload)
	case fEnd:
		answer, err = true, a.end(f.payload)
	default:
		err = protocol("%s in mid-stream", f.kind)
	}
	a.state.applied++
	a.result.WireBytes += uint64(f.wireSize())
	return answer, err
}

// put writes a frame's pages, completes their digests, and only then can see whether they are the source's: a patched page's
// digest depends on base's content as of this place in the stream. If they are not the stream ends, so nobody gets to see them.
func (a *applier) put(b []byte, sums []Digest) error {
	r, err := readPut(b)
	if err != nil {
		return err
	}
	for n := 0; ; {
		p, pages, ok, err := r.together()
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		if p.whole() {
			err = a.store.put(p.slot, sums[n:n+pages], p.pieces)
		} else {
			sums[n], err = a.store.patch(p.slot, p.base, p.mask, p.pieces, a.digest)
		}
		if err != nil {
			return err
		}
		n += pages
	}
	if a.digest.ofAll(sums) != r.sum {
		return errs.New(errs.Failed, "the %d pages of a PUT have another digest: %w", len(sums), ErrCorrupt)
	}
	return nil
}

func (a *applier) round(b []byte) error {
	if len(b) != 4 || a.final || binary.LittleEndian.Uint32(b) != a.state.rounds+1 {
		return protocol("a round ends after %d", a.state.rounds)
	}
	a.state.rounds++
	a.result.Rounds++
	return nil
}

func (a *applier) openSpace(b []byte) error {
	if len(b) != 9 {
		return protocol("SPACE of %d bytes", len(b))
	}
	s := Space{b[0], binary.LittleEndian.Uint64(b[1:])}
	if a.opened[s] {
		return protocol("space %s comes a second time", s)
	}
	if len(a.opened) >= a.limits.Spaces {
		return errs.New(errs.Refused, "space %s: this host takes %d: %w", s, a.limits.Spaces, ErrTooLarge)
	}
	if err := a.closeSpace(); err != nil {
		return err
	}
	w, err := a.target.Open(s)
	if err != nil {
		return fmt.Errorf("open space %s: %w", s, err)
	}
	a.final, a.pages, a.space, a.above, a.opened[s] = true, w, s, 0, true
	a.result.Spaces++
	return nil
}

func (a *applier) closeSpace() error {
	if a.pages == nil {
		return nil
	}
	w := a.pages
	a.pages = nil
	if err := w.Close(); err != nil {
		return fmt.Errorf("close space %s: %w", a.space, err)
	}
	return nil
}

func (a *applier) mapPages(b []byte) error {
	if a.pages == nil {
		return protocol("MAP outside a space")
	}
	a.entries.b, a.entries.last = b, 0
	for {
		e, ok, err := a.entries.next(a.limits.Slots)
		if err != nil || !ok {
			return err
		}
		if err := a.mapEntry(e); err != nil {
			return err
		}
	}
}

func (a *applier) mapEntry(e entry) error {
	if e.addr < a.above {
		return protocol("page %#x of space %s comes after %#x", e.addr, a.space, a.above)
	}
	a.above = e.addr + uint64(e.pages)*PageSize
	if a.result.Pages += uint64(e.pages); a.result.Pages > a.limits.Pages {
		return errs.New(errs.Refused, "this host takes %d pages: %w", a.limits.Pages, ErrTooLarge)
	}
	var err error
	if e.slots == nil {
		a.sum.run(a.space, e.addr, e.flags, e.pages, nil)
		err = a.pages.Hole(e.addr, e.flags, uint64(e.pages))
	} else {
		if err := a.gather(e.slots); err != nil {
			return err
		}
		a.sum.run(a.space, e.addr, e.flags, e.pages, a.sums)
		err = a.pages.Entry(e.addr, e.flags, a.runs)
	}
	if err != nil {
		return fmt.Errorf("write page %#x of space %s: %w", e.addr, a.space, err)
	}
	return nil
}

// gather finds the content and the digests of slots, which stay as they are from now on; neighbours become one run.
func (a *applier) gather(slots []uint32) error {
	a.runs, a.sums = a.runs[:0], a.sums[:0]
	for i := 0; i < len(slots); {
		first, n := slots[i], 0
		for i+n < len(slots) && (first == 0 && slots[i+n] == 0 || first != 0 && slots[i+n] == first+uint32(n)) {
			if !a.store.holds(slots[i+n]) {
				return protocol("slot %d is mapped and was never written", slots[i+n])
			}
			a.store.keep(slots[i+n])
			a.sums = append(a.sums, a.store.digest(slots[i+n]))
			n++
		}
		a.runs = append(a.runs, Content{a.store, first, n})
		i += n
	}
	return nil
}

func (a *applier) openFile(b []byte) error {
	if len(b) == 0 || b[0] == 0 || int(b[0]) > kindMax || len(b) < 1+int(b[0]) {
		return protocol("FILE is garbled")
	}
	if a.result.Files >= a.limits.Files {
		return errs.New(errs.Refused, "this host takes %d files: %w", a.limits.Files, ErrTooLarge)
	}
	kind, meta := string(b[1:1+b[0]]), bytes.Clone(b[1+b[0]:])
	w, err := a.target.File(kind, meta)
	if err != nil {
		return fmt.Errorf("open file of kind %q: %w", kind, err)
	}
	a.file = &openFile{kind: kind, meta: meta, w: w, sum: sha256.New()}
	a.result.Files++
	return nil
}

func (a *applier) data(b []byte) error {
	f := a.file
	if a.result.FileBytes += uint64(len(b)); a.result.FileBytes > a.limits.FileBytes {
		return errs.New(errs.Refused, "this host takes %d bytes of files: %w", a.limits.FileBytes, ErrTooLarge)
	}
	f.size += uint64(len(b))
	f.sum.Write(b)
	if _, err := f.w.Write(b); err != nil {
		return fmt.Errorf("write file of kind %q: %w", f.kind, err)
	}
	return nil
}

func (a *applier) closeFile(b []byte) error {
	if len(b) != 8+sha256.Size {
		return protocol("CLOSE of %d bytes", len(b))
	}
	f := a.file
	var sum [32]byte
	f.sum.Sum(sum[:0])
	if f.size != binary.LittleEndian.Uint64(b) || sum != [32]byte(b[8:]) {
		return errs.New(errs.Failed, "file of kind %q has another digest: %w", f.kind, ErrCorrupt)
	}
	a.sum.file(f.kind, f.meta, f.size, sum)
	a.file = nil
	if err := f.w.Close(); err != nil {
		return fmt.Errorf("close file of kind %q: %w", f.kind, err)
	}
	return nil
}

func (a *applier) end(b []byte) error {
	if len(b) != 32 {
		return protocol("END of %d bytes", len(b))
	}
	if err := a.closeSpace(); err != nil {
		return err
	}
	root := a.sum.root()
	if root != [32]byte(b) {
		return errs.New(errs.Failed, "%d pages and %d files have arrived: %w", a.result.Pages, a.result.Files, ErrDigest)
	}
	a.state.staged, a.state.root = true, root
	a.result.Root, a.result.Slots, a.result.Spilled = root, a.store.Used(), a.store.Spilled()
	return nil
}

// close gives up what is open.
func (a *applier) close() error {
	var err error
	if a.file != nil {
		err = a.file.w.Close()
		a.file = nil
	}
	err = errors.Join(err, a.closeSpace())
	if a.store != nil {
		err = errors.Join(err, a.store.Close())
	}
	return err
}
