package transfer_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"drover/internal/errs"
	"drover/transfer"
	"drover/transfer/transfertest"
)

const page = transfer.PageSize

var (
	procA = transfer.Space{Kind: 1, ID: 1}
	procB = transfer.Space{Kind: 1, ID: 2}
	shm   = transfer.Space{Kind: 2, ID: 7}
)

// stream is one page stream in memory, both ends.
type stream struct {
	*transfer.Sender
	t      testing.TB
	target *transfertest.Memory
	result chan received
}

type received struct {
	transfer.Result
	err error
}

// open begins a stream to target over a connection in memory.
func open(t testing.TB, target *transfertest.Memory, config transfer.SenderConfig) *stream {
	t.Helper()
	a, b := transfertest.Pipe()
	return openOver(t, a, b, target, config)
}

func openOver(t testing.TB, a, b io.ReadWriteCloser, target *transfertest.Memory, config transfer.SenderConfig) *stream {
	t.Helper()
	s := &stream{t: t, target: target, result: make(chan received, 1)}
	go func() {
		r, err := transfer.Receive(context.Background(), b, target)
		s.result <- received{r, err}
	}()
	var err error
	if s.Sender, err = transfer.NewSender(t.Context(), a, config); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (s *stream) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *stream) round() transfer.RoundReport {
	s.t.Helper()
	r, err := s.EndRound(s.t.Context())
	s.must(err)
	return r
}

// finish ends the stream and makes sure that both ends agree.
func (s *stream) finish() transfer.Result {
	s.t.Helper()
	root, err := s.Finish(s.t.Context())
	s.must(err)
	r := <-s.result
	s.must(r.err)
	if r.Root != root {
		s.t.Error("the roots differ")
	}
	if b := s.target.Broken(); len(b) > 0 {
		s.t.Errorf("the target's contract was not kept: %q", b)
	}
	return r.Result
}

// pages makes n pages of content drawn from seed, none of which compress or repeat.
func pages(n int, seed uint64) []byte {
	b := make([]byte, n*page)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)}).Read(b)
	return b
}

func (s *stream) holds(space transfer.Space, addr uint64, want []byte) {
	s.t.Helper()
	got := s.target.Space(space)
	if got == nil {
		s.t.Fatalf("space %s has not arrived", space)
	}
	for i := 0; i < len(want); i += page {
		at := addr + uint64(i)
		if !bytes.Equal(got.Pages[at], want[i:i+page]) {
			s.t.Fatalf("page %#x of %s differs", at, space)
		}
	}
}

func TestPagesArriveAsTheyWereMapped(t *testing.T) {
	s := open(t, &transfertest.Memory{}, transfer.SenderConfig{})
	old, hot, late := pages(256, 1), pages(10, 2), pages(300, 3)
	s.must(s.Offer(procA, 0x1000, old))
	s.must(s.Offer(procA, 0x400000, hot))
	s.round()
	hot = pages(10, 4)
	s.must(s.Map(procA, 0x1000, 4, old))
	s.must(s.Map(procA, 0x400000, 5, hot))
	s.must(s.Map(procB, 0x1000, 4, late[:256*page]))
	s.must(s.Map(procB, 0x1000+256*page, 4, late[256*page:]))
	s.must(s.Begin(shm))
	r := s.finish()
	s.holds(procA, 0x1000, old)
	s.holds(procA, 0x400000, hot)
	s.holds(procB, 0x1000, late)
	if got := s.target.Space(shm); got == nil || len(got.Pages) != 0 {
		t.Error("the space without pages has not arrived")
	}
	if got := s.target.Space(procA).Flags; got[0x1000] != 4 || got[0x400000] != 5 {
		t.Error("flags were changed")
	}
	if r.Pages != 566 || r.Spaces != 3 || r.Rounds != 1 {
		t.Errorf("got %+v", r)
	}
}

func TestWhatTheTargetHasIsNotSentAgain(t *testing.T) {
	s := open(t, &transfertest.Memory{}, transfer.SenderConfig{})
	data := pages(256, 1)
	s.must(s.Offer(procA, 0, data))
	first := s.round()
	s.must(s.Offer(procA, 0, data))
	s.must(s.Offer(procB, 1<<30, data[:100*page])) // as after a fork
	again := s.round()
	if first.PagesSent != 256 || again.PagesSent != 0 || again.PagesKnown != 356 || again.PagesOffered != 356 {
		t.Errorf("first %+v, again %+v", first, again)
	}
	if again.WireBytes > 100 {
		t.Errorf("known pages cost %d bytes", again.WireBytes)
	}
	s.must(s.Map(procA, 0, 0, data))
	s.must(s.Map(procB, 1<<30, 0, data[:100*page]))
	s.finish()
	s.holds(procA, 0, data)
	s.holds(procB, 1<<30, data[:100*page])
	if final := s.FinalReport(); final.PagesSent != 0 || final.WireBytes > 300 {
		t.Errorf("the final pass: %+v", final)
	}
}

// scribble changes one byte of each page, at a place of its own.
func scribble(data []byte, by byte) []byte {
	data = bytes.Clone(data)
	for i := 0; i < len(data); i += page {
		data[i+(i/page*97)%page] += by
	}
	return data
}

func TestAPageThatHasChangedALittleGoesAsAPatch(t *testing.T) {
	s := open(t, &transfertest.Memory{}, transfer.SenderConfig{Compression: "none"})
	const n, most = 200, 200 * 600
	first := pages(n, 1)
	s.must(s.Offer(procA, 0, first))
	whole := s.round()
	second := scribble(first, 1)
	s.must(s.Offer(procA, 0, second))
	patched := s.round()
	if whole.PagesPatched != 0 || whole.WireBytes < n*page || patched.PagesSent != n || patched.PagesPatched != n ||
		patched.BytesSaved != n*(page-512) || patched.WireBytes > most {
		t.Errorf("whole %+v, patched %+v", whole, patched)
	}
	third := scribble(second, 2)
	s.must(s.Map(procA, 0, 0, third))
	s.finish()
	s.holds(procA, 0, third)
	if final := s.FinalReport(); final.PagesPatched != n || final.WireBytes > most {
		t.Errorf("the final pass: %+v", final)
	}
	if p := s.Progress(); p.PagesPatched != 2*n || p.BytesSaved != 2*n*(page-512) {
		t.Errorf("in all: %+v", p)
	}
}

func TestAPatchMayBuildOnAPatchOfTheSameRoundAndOnTheZeroPage(t *testing.T) {
	s := open(t, &transfertest.Memory{Lim: transfer.Limits{Slots: 60}}, transfer.SenderConfig{})
	data := append(make([]byte, 10*page), pages(10, 1)...)
	s.must(s.Offer(procA, 0, data))
	for range 8 { // rounds: slots are used again
		for range 2 {
			data = scribble(data, 1)
			s.must(s.Offer(procA, 0, data))
		}
		if r := s.round(); r.PagesPatched != 40 && r.Round > 1 {
			t.Errorf("got %+v", r)
		}
	}
	s.must(s.MapHole(procA, 0, 0, 20))
	s.finish()
	s.holds(procA, 0, data)
}

func TestAPageThatHasChangedAlmostEverywhereGoesWhole(t *testing.T) {
	s := open(t, &transfertest.Memory{}, transfer.SenderConfig{Compression: "none"})
	data := pages(2, 1)
	s.must(s.Offer(procA, 0, data))
	s.round()
	for i := range 7 { // of the first page's eight pieces of 512 bytes, and 6 of the second's
		data[i*512]++
		if i < 6 {
			data[page+i*512]++
		}
	}
	s.must(s.Map(procA, 0, 0, data))
	s.finish()
	s.holds(procA, 0, data)
	if r := s.FinalReport(); r.PagesSent != 2 || r.PagesPatched != 1 || r.BytesSaved != 2*512 {
		t.Errorf("got %+v", r)
	}
}

func TestAPageThatOthersHoldTooIsNotChangedByAPatch(t *testing.T) {
	s := open(t, &transfertest.Memory{}, transfer.SenderConfig{})
	data := pages(50, 1)
	s.must(s.Offer(procA, 0, data))
	s.must(s.Offer(procB, 0, data)) // as after a fork
	s.round()
	written := scribble(data, 1)
	s.must(s.Offer(procB, 0, written))
	if r := s.round(); r.PagesPatched != 50 {
		t.Errorf("got %+v", r)
	}
	s.must(s.MapHole(procA, 0, 0, 50))
	s.must(s.Map(procB, 0, 0, data)) // and back again
	s.finish()
	s.holds(procA, 0, data)
	s.holds(procB, 0, data)
	if r := s.FinalReport(); r.PagesSent != 0 {
		t.Errorf("the final pass: %+v", r)
	}
}

func TestZeroPagesCostNothing(t *testing.T) {
	s := open(t, &transfertest.Memory{Lim: transfer.Limits{Slots: 1}}, transfer.SenderConfig{})
	zero := make([]byte, 256*page)
	for i := range uint64(100) {
		s.must(s.Offer(procA, i<<20, zero))
	}
	r := s.round()
	for i := range uint64(100) {
		s.must(s.Map(procA, i<<20, 0, zero))
	}
	s.finish()
	s.holds(procA, 99<<20, zero)
	if r.PagesZero != 25600 || r.PagesSent != 0 || s.Progress().WireBytes > 2000 {
		t.Errorf("round %+v, %d bytes in all", r, s.Progress().WireBytes)
	}
}

func TestAHoleIsWhatWasLastOfferedThere(t *testing.T) {
	s := open(t, &transfertest.Memory{}, transfer.SenderConfig{})
	data := pages(600, 1)
	for i := 0; i < 600; i += 200 {
		s.must(s.Offer(procA, uint64(i*page), data[i*page:(i+200)*page]))
	}
	s.round()
	changed := pages(1, 2)
	copy(data[300*page:], changed)
	s.must(s.Offer(procA, 300*page, changed))
	s.round()
	s.must(s.MapHole(procA, 0, 1, 600))
	s.must(s.MapAbsent(procA, 600*page, 2, 1000))
	s.finish()
	s.holds(procA, 0, data)
	got := s.target.Space(procA)
	if content, ok := got.Pages[1599*page]; !ok || content != nil || got.Flags[1599*page] != 2 {
		t.Error("the pages without content are not holes")
	}
}

func TestAHoleThatWasNeverOfferedFails(t *testing.T) {
	s := open(t, &transfertest.Memory{}, transfer.SenderConfig{})
	s.must(s.MapHole(procA, 0, 1, 1))
	if _, err := s.Finish(t.Context()); !errors.Is(err, transfer.ErrNeverOffered) {
		t.Errorf("got %v", err)
	}
}

func TestSlotsOfOverwrittenPagesAreUsedAgain(t *testing.T) {
	s := open(t, &transfertest.Memory{Lim: transfer.Limits{Slots: 40}}, transfer.SenderConfig{})
	stay := pages(10, 1)
	s.must(s.Offer(procA, 0, stay))
	var last []byte
	for round := range uint64(50) {
		last = pages(10, 100+round)
		s.must(s.Offer(procA, 1<<20, last))
		s.round()
	}
	if used := s.Progress().SlotsUsed; used > 30 {
		t.Errorf("%d slots are in use for 20 pages and 10 just overwritten", used)
	}
	s.must(s.MapHole(procA, 0, 0, 10))
	s.must(s.MapHole(procA, 1<<20, 0, 10))
	s.finish()
	s.holds(procA, 0, stay)
	s.holds(procA, 1<<20, last)
}

func TestSlotsOfADroppedSpaceAreUsedAgain(t *testing.T) {
	s := open(t, &transfertest.Memory{Lim: transfer.Limits{Slots: 100}}, transfer.SenderConfig{})
	s.must(s.Offer(procA, 0, pages(100, 1)))
	s.round()
	s.must(s.Drop(procA))
	s.round()
	data := pages(100, 2)
	s.must(s.Offer(procB, 0, data))
	s.round()
	s.must(s.Map(procB, 0, 0, data))
	s.finish()
	s.holds(procB, 0, data)
}

func TestAFullStoreSaysSo(t *testing.T) {
	s := open(t, &transfertest.Memory{Lim: transfer.Limits{Slots: 99}}, transfer.SenderConfig{})
	s.must(s.Offer(procA, 0, pages(100, 1)))
	_, err := s.EndRound(t.Context())
	if !errors.Is(err, transfer.ErrSlots) || errs.KindOf(err) != errs.Refused || errs.NextOf(err) == "" {
		t.Errorf("got %v", err)
	}
	if err := s.Offer(procA, 0, pages(1, 1)); err == nil {
		t.Error("the stream goes on")
	}
}

func TestFilesArriveBetweenRoundsAndInTheFinalPass(t *testing.T) {
	s := open(t, &transfertest.Memory{}, transfer.SenderConfig{})
	big := bytes.Repeat([]byte("a line of a log\n"), 200_000)
	s.must(s.File("volume", []byte(`{"path":"/data/log"}`), int64(len(big)), bytes.NewReader(big)))
	s.must(s.Offer(procA, 0, pages(3, 1)))
	s.round()
	s.must(s.MapHole(procA, 0, 0, 3))
	s.must(s.File("image", []byte("core-1.img"), -1, strings.NewReader("CRIU")))
	s.must(s.File("image", nil, 0, strings.NewReader("")))
	r := s.finish()
	got := s.target.Files()
	if len(got) != 3 || r.Files != 3 || r.FileBytes != uint64(len(big)+4) {
		t.Fatalf("got %d files, %+v", len(got), r)
	}
	if got[0].Kind != "volume" || string(got[0].Meta) != `{"path":"/data/log"}` || !bytes.Equal(got[0].Data.Bytes(), big) {
		t.Error("the big file differs")
	}
	if got[1].Data.String() != "CRIU" || got[2].Data.Len() != 0 || !got[2].Closed {
		t.Error("the small files differ")
	}
	if wire := s.Progress().WireBytes; wire > uint64(len(big)/10) {
		t.Errorf("a text of %d bytes took %d on the wire", len(big), wire)
	}
}

func TestAFileThatChangedMeanwhileFailsTheStream(t *testing.T) {
	for name, size := range map[string]int64{"shrunk": 5, "grown": 3} {
		s := open(t, &transfertest.Memory{}, transfer.SenderConfig{})
		if err := s.File("volume", nil, size, strings.NewReader("four")); err == nil {
			t.Errorf("%s: sent", name)
		}
		if _, err := s.Finish(t.Context()); err == nil {
			t.Errorf("%s: finished", name)
		}
		if r := <-s.result; r.err == nil {
			t.Errorf("%s: received", name)
		}
	}
}

func TestWhatTheTargetRefusesReachesTheSource(t *testing.T) {
	for _, step := range []string{"open", "entry", "hole", "close", "file", "write", "close file"} {
		target := &transfertest.Memory{Refuse: func(at string) error {
			if at != step {
				return nil
			}
			return errs.New(errs.Refused, "no room for %s", at).WithNext("make room")
		}}
		s := open(t, target, transfer.SenderConfig{})
		s.File("image", nil, -1, strings.NewReader("x"))
		s.Map(procA, 0, 0, pages(1, 1))
		s.MapAbsent(procA, page, 0, 1)
		_, err := s.Finish(t.Context())
		if !errors.Is(err, transfer.ErrPeer) || errs.KindOf(err) != errs.Refused || errs.NextOf(err) != "make room" || !strings.Contains(err.Error(), "no room for "+step) {
			t.Errorf("%s: the source got %v", step, err)
		}
		if r := <-s.result; errs.KindOf(r.err) != errs.Refused {
			t.Errorf("%s: the target got %v", step, r.err)
		}
		if b := target.Broken(); len(b) > 0 {
			t.Errorf("%s: %q", step, b)
		}
	}
}

func TestTheTargetsLimitsHold(t *testing.T) {
	data := pages(2, 1)
	for name, c := range map[string]struct {
		limits transfer.Limits
		send   func(*stream)
	}{
		"pages":      {transfer.Limits{Pages: 1}, func(s *stream) { s.Map(procA, 0, 0, data) }},
		"spaces":     {transfer.Limits{Spaces: 1}, func(s *stream) { s.Begin(procA); s.Begin(procB) }},
		"files":      {transfer.Limits{Files: 1}, func(s *stream) { s.File("a", nil, -1, &bytes.Buffer{}); s.File("b", nil, -1, &bytes.Buffer{}) }},
		"file bytes": {transfer.Limits{FileBytes: 3}, func(s *stream) { s.File("a", nil, -1, strings.NewReader("four")) }},
	} {
		s := open(t, &transfertest.Memory{Lim: c.limits}, transfer.SenderConfig{})
		c.send(s)
		if _, err := s.Finish(t.Context()); !errors.Is(err, transfer.ErrPeer) || errs.KindOf(err) != errs.Refused {
			t.Errorf("%s: the source got %v", name, err)
		}
		if r := <-s.result; !errors.Is(r.err, transfer.ErrTooLarge) {
			t.Errorf("%s: the target got %v", name, r.err)
		}
	}
}

func TestAStreamOfAnotherMigrationIsRefused(t *testing.T) {
	for _, config := range []transfer.SenderConfig{{Migration: "m-2", Epoch: 3}, {Migration: "m-1", Epoch: 2}} {
		a, b := transfertest.Pipe()
		done := make(chan error, 1)
		go func() {
			_, err := transfer.Receive(context.Background(), b, &transfertest.Memory{Lim: transfer.Limits{Migration: "m-1", Epoch: 3}})
			done <- err
		}()
		if _, err := transfer.NewSender(t.Context(), a, config); errs.KindOf(err) != errs.Conflict {
			t.Errorf("%+v: the source got %v", config, err)
		}
		if err := <-done; errs.KindOf(err) != errs.Conflict {
			t.Errorf("%+v: the target got %v", config, err)
		}
	}
}

func TestMisuseIsRefusedWithoutHarm(t *testing.T) {
	s := open(t, &transfertest.Memory{}, transfer.SenderConfig{})
	data := pages(1, 1)
	for name, err := range map[string]error{
		"no whole page":  s.Offer(procA, 0, data[:100]),
		"nothing":        s.Offer(procA, 0, nil),
		"an odd address": s.Offer(procA, 12, data),
		"too many pages": s.Offer(procA, 0, make([]byte, 257*page)),
		"no kind":        s.File("", nil, -1, nil),
		"long metadata":  s.File("x", make([]byte, 1<<17), -1, nil),
	} {
		if errs.KindOf(err) != errs.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	s.must(s.Map(procA, 0, 0, data))
	if err := s.Offer(procA, 0, data); errs.KindOf(err) != errs.Conflict {
		t.Errorf("an offer in the final pass: %v", err)
	}
	if _, err := s.EndRound(t.Context()); errs.KindOf(err) != errs.Conflict {
		t.Errorf("a round's end in the final pass: %v", err)
	}
	s.finish()
	s.holds(procA, 0, data)
	if err := s.Map(procA, page, 0, data); err == nil {
		t.Error("pages are taken after the end")
	}
}

func TestAddressesMustAscendAndSpacesComeOnce(t *testing.T) {
	data := pages(2, 1)
	for name, send := range map[string]func(*stream){
		"descending":  func(s *stream) { s.Map(procA, page, 0, data); s.Map(procA, 0, 0, data[:page]) },
		"overlapping": func(s *stream) { s.Map(procA, 0, 0, data); s.Map(procA, page, 0, data) },
		"twice":       func(s *stream) { s.Begin(procA); s.Begin(procB); s.Begin(procA) },
	} {
		s := open(t, &transfertest.Memory{}, transfer.SenderConfig{})
		send(s)
		if _, err := s.Finish(t.Context()); !errors.Is(err, transfer.ErrMisuse) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryCompressionCarriesEveryContent(t *testing.T) {
	text := bytes.Repeat([]byte("compressible"), 256*page/12+1)[:256*page]
	for _, name := range []string{"", "none", "s2", "zstd"} {
		s := open(t, &transfertest.Memory{}, transfer.SenderConfig{Compression: name})
		for i := range 256 { // every page of its own
			text[i*page] = byte(i)
		}
		noise := pages(256, 1)
		s.must(s.Offer(procA, 0, text))
		soft := s.round()
		s.must(s.Offer(procA, 1<<20, noise))
		hard := s.round()
		s.must(s.MapHole(procA, 0, 0, 512))
		s.finish()
		s.holds(procA, 0, text)
		s.holds(procA, 1<<20, noise)
		if name != "none" && soft.WireBytes > 256*page/8 {
			t.Errorf("%q: text took %d bytes", name, soft.WireBytes)
		}
		if hard.WireBytes > 256*(page+64) {
			t.Errorf("%q: noise took %d bytes", name, hard.WireBytes)
		}
	}
	a, _ := transfertest.Pipe()
	if _, err := transfer.NewSender(t.Context(), a, transfer.SenderConfig{Compression: "lzma"}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("an unknown compression: %v", err)
	}
}

func TestCancellingEndsBothSides(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	a, b := transfertest.Pipe()
	done := make(chan error, 1)
	target := &transfertest.Memory{}
	go func() {
		_, err := transfer.Receive(context.Background(), b, target)
		done <- err
	}()
	s, err := transfer.NewSender(ctx, a, transfer.SenderConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Begin(procA); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := s.Finish(t.Context()); err == nil {
		t.Error("finished after cancel")
	}
	if err := <-done; !errors.Is(err, transfer.ErrLost) {
		t.Errorf("the target got %v", err)
	}
	if b := target.Broken(); len(b) > 0 {
		t.Error(b)
	}
}

func TestASilentTargetDoesNotHoldTheSourceForEver(t *testing.T) {
	a, b := transfertest.Pipe()
	defer b.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := transfer.NewSender(ctx, a, transfer.SenderConfig{}); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("got %v", err)
	}
}
