package transfer

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"drover/internal/errs"
	"drover/internal/migration"
)

// Window bounds the bytes that are sent or ready to be sent and not yet acknowledged.
const Window = 16 << 20

const (
	hashers = 2
	packers = 2
)

// SenderConfig says what a sender sends for.
type SenderConfig struct {
	Migration   migration.ID
	Epoch       migration.Epoch
	Slots       uint32        // use at most so many of the target's slots; 0 is all it grants
	Compression string        // "", "none", "s2", "zstd"; "" follows the bottleneck
	Limiter     *rate.Limiter // of the bytes on the wire, nil for none; see SetLimit
	// Redial makes a new connection: after one was lost, where it is called until it succeeds or the stream's context is done,
	// with pauses between; and for a far and fast link, which takes several. It may be called by several goroutines. nil
	// makes a lost connection the stream's end, and leaves it with the one.
	Redial func(ctx context.Context) (io.ReadWriteCloser, error)
}

// Sender is the source's end of a page stream. Its methods are called by one goroutine at a time, except Progress and
// Close. A call that is refused for itself (errs.Invalid, errs.Conflict) changes nothing; after any other failure all later
// calls fail, and the connection is closed.
type Sender struct {
	config SenderConfig
	ctx    context.Context
	fail   context.CancelCauseFunc
	all    sync.WaitGroup

	line    atomic.Pointer[pipeline] // nil once closed
	release func() error             // of the planner's memory, once
	granted uint32                   // slots
	out     *outbox
	codec   *chooser
	digest  *digester

	rounds uint32
	final  bool // the final pass has begun
	ended  bool // Finish has been called
	count  counters
	meter  Meter // bytes on the wire
}

// RoundReport says what a round, or the final pass, cost.
type RoundReport struct {
	Round        int
	PagesOffered uint64
	PagesSent    uint64 // content the target lacked
	PagesPatched uint64 // of those: sent as what differs from the page that the address held before
	BytesSaved   uint64 // of patched pages: left out, before compression
	PagesKnown   uint64 // content it had
	PagesFound   uint64 // of those: it had them from an earlier visit, each counted once
	PagesZero    uint64
	FileBytes    uint64
	WireBytes    uint64
	Took         time.Duration // since the last round's end
}

// Progress is how far a stream is.
type Progress struct {
	Rounds       int
	PagesOffered uint64 // over all rounds
	PagesSent    uint64
	PagesPatched uint64 // of PagesSent, as in RoundReport
	BytesSaved   uint64
	PagesKnown   uint64
	PagesFound   uint64 // of PagesKept: the tree has them still, or again
	PagesKept    uint64 // that the target had from an earlier visit when the stream began
	PagesZero    uint64
	FileBytes    uint64
	WireBytes    uint64
	AckedBytes   uint64  // applied by the target
	Rate         float64 // bytes a second on the wire, over the last two seconds
	SlotsUsed    uint64  // of the target's
	Slots        uint64
	Reconnects   int
	Lanes        int    // connections at once
	Compression  string // in use now
}

// NewSender opens the stream over rw, which it owns from now on, and returns when the target has agreed. The stream lives
// until ctx is done, Finish or Close.
func NewSender(ctx context.Context, rw io.ReadWriteCloser, config SenderConfig) (*Sender, error) {
	codec, err := ParseCodec(config.Compression)
	if err != nil {
		rw.Close()
		return nil, err
	}
	s := &Sender{
		config: config, codec: newChooser(codec, config.Compression != ""),
	}
	s.ctx, s.fail = context.WithCancelCause(ctx)
	key := newKey()
	if s.digest, err = newDigester(key); err != nil {
		rw.Close()
		return nil, err
	}
	s.out = newOutbox(&s.meter, s.codec, config, key)
	s.granted, err = s.out.greet(s.ctx, rw, false, 0)
	if err != nil {
		rw.Close()
		s.fail(err)
		return nil, err
	}
	if config.Slots > 0 {
		s.granted = min(s.granted, config.Slots)
	}
	line, err := newPipeline(s.ctx, s.granted, s.digest, &s.count)
	if err != nil {
		rw.Close()
		s.fail(err)
		return nil, err
	}
	s.release = sync.OnceValue(line.plan.table.close)
	if err := s.takeStock(rw, line.plan.table); err != nil {
		rw.Close()
		s.fail(err)
		return nil, errors.Join(err, s.release())
	}
	s.line.Store(line)
	s.start(line, rw)
	return s, nil
}

// start lets the pipeline and the connection work.
func (s *Sender) start(line *pipeline, rw io.ReadWriteCloser) {
	for range hashers {
		s.all.Go(func() { line.hashing.work(s.ctx, func(b *block) { b.hash(s.digest) }) })
	}
	s.all.Go(func() { s.fail(line.hashing.each(s.ctx, line.planned)) })
	for range packers {
		s.all.Go(func() {
			p := new(packer)
			line.packing.work(s.ctx, func(f *outFrame) { f.pack(p, s.codec) })
		})
	}
	s.all.Go(func() {
		s.fail(line.packing.each(s.ctx, func(f *outFrame) error { return s.out.add(s.ctx, f.sealed) }))
	})
	s.all.Go(func() { s.fail(s.out.run(s.ctx, rw)) })
}

// Offer hands over pages as they are now: what the target lacks is sent. It may be called between rounds only, before the
// final pass; data is a number of pages, at most MaxRun, and is not used after the call.
func (s *Sender) Offer(space Space, addr uint64, data []byte) error {
	if s.final {
		return errs.New(errs.Conflict, "offer pages: the final pass has begun: %w", ErrMisuse)
	}
	return s.pages(item{op: opOffer, space: space, addr: addr}, data)
}

// Drop forgets a space that is no more, as when a process has ended: its slots can be used again.
func (s *Sender) Drop(space Space) error {
	if s.final {
		return errs.New(errs.Conflict, "drop a space: the final pass has begun: %w", ErrMisuse)
	}
	return s.add(item{op: opDrop, space: space}, nil)
}

// EndRound returns when the target has everything that was offered. It is the moment to look at the link: the report's
// WireBytes have arrived in Took.
func (s *Sender) EndRound(ctx context.Context) (RoundReport, error) {
	if s.final {
		return RoundReport{}, errs.New(errs.Conflict, "end a round: the final pass has begun: %w", ErrMisuse)
	}
	s.rounds++
	round := s.rounds
	if err := s.add(item{op: opRound, n: uint64(round)}, nil); err != nil {
		return RoundReport{}, err
	}
	if err := s.flush(); err != nil {
		return RoundReport{}, err
	}
	if err := s.await(ctx, func(st state) bool { return st.rounds >= round }); err != nil {
		return RoundReport{}, err
	}
	return s.count.report(int(round), s.meter.Total()), nil
}

// begin begins the final pass, in which nothing is tried out.
func (s *Sender) begin() {
	s.final = true
	s.codec.final.Store(true)
}

// Begin begins the next space of the final pass, also one without pages. Map and its kin begin theirs by themselves.
func (s *Sender) Begin(space Space) error {
	s.begin()
	return s.add(item{op: opSpace, space: space}, nil)
}

// Map says that the space holds data at addr. Within a space addresses ascend; a space is mapped once. flags are handed to
// the target as they are. data is a number of pages, at most MaxRun, and is not used after the call.
func (s *Sender) Map(space Space, addr uint64, flags uint32, data []byte) error {
	s.begin()
	return s.pages(item{op: opMap, space: space, addr: addr, flags: flags}, data)
}

// MapHole says that the space holds at addr n pages that are as they were last offered there.
func (s *Sender) MapHole(space Space, addr uint64, flags uint32, n uint64) error {
	s.begin()
	return s.holes(item{op: opHole, space: space, addr: addr, flags: flags}, n)
}

// MapAbsent says that the space has n pages at addr whose content is not carried: the target sees a hole.
func (s *Sender) MapAbsent(space Space, addr uint64, flags uint32, n uint64) error {
	s.begin()
	return s.holes(item{op: opAbsent, space: space, addr: addr, flags: flags}, n)
}

func (s *Sender) holes(i item, n uint64) error {
	if most := (1<<64 - 1 - i.addr) / PageSize; n > most {
		return errs.New(errs.Invalid, "%d pages at %#x of space %s are more than there are: %w", n, i.addr, i.space, ErrMisuse)
	}
	for n > 0 {
		i.n = min(n, MaxRun)
		if err := s.add(i, nil); err != nil {
			return err
		}
		i.addr += i.n * PageSize
		n -= i.n
	}
	return nil
}

// Finish sends the end and returns the root digest once the target has said that it has all and its own digest is the
// same. The stream is closed then, and also if this fails.
func (s *Sender) Finish(ctx context.Context) (root [32]byte, err error) {
	defer s.Close()
	s.begin()
	line := s.line.Load()
	if err := s.add(item{op: opEnd}, nil); err != nil {
		return root, err
	}
	if err := s.flush(); err != nil {
		return root, err
	}
	s.ended = true
	if err := s.await(ctx, func(st state) bool { return st.staged }); err != nil {
		return root, err
	}
	if root = line.plan.root; s.out.said().root != root {
		return root, errs.New(errs.Failed, "finish the page stream: %w", ErrDigest)
	}
	return root, nil
}

// FinalReport is what the final pass cost so far, as EndRound reports a round.
func (s *Sender) FinalReport() RoundReport { return s.count.report(int(s.rounds)+1, s.meter.Total()) }

// Progress may be called from any goroutine at any time.
func (s *Sender) Progress() Progress {
	p := s.count.progress()
	p.WireBytes, p.Rate = s.meter.Total(), s.meter.Rate()
	p.Slots, p.Compression = uint64(s.granted), s.codec.now().codec().String()
	s.out.progress(&p)
	return p
}

// Close ends the stream, whatever its state, and returns when nothing of it is left but its figures. It may be called again.
func (s *Sender) Close() error {
	s.fail(ErrClosed)
	s.all.Wait()
	s.line.Store(nil)
	s.out.empty()
	return s.release()
}

// await waits for the target's word.
func (s *Sender) await(ctx context.Context, enough func(state) bool) error {
	err := s.out.await(ctx, s.ctx.Done(), enough)
	if err != nil && ctx.Err() == nil {
		return s.broken()
	}
	return err
}

// broken is why the stream has ended.
func (s *Sender) broken() error {
	err := context.Cause(s.ctx)
	if errors.Is(err, ErrClosed) {
		return errs.New(errs.Aborted, "page stream of %s: %w", s.config.Migration, err)
	}
	return err
}
