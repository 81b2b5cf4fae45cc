package transfer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"drover/internal/errs"
)

// FrameType says what a frame is. The numbers never change.
type FrameType uint8

const (
	fHello FrameType = 1
	fPut   FrameType = 2
	fRound FrameType = 3
	fSpace FrameType = 4
	fMap   FrameType = 5
	fFile  FrameType = 6
	fData  FrameType = 7
	fClose FrameType = 8
	fEnd   FrameType = 9
	fState FrameType = 64
	fFail  FrameType = 65
	fHave  FrameType = 66
)

// FrameRow is one line of the protocol.
type FrameRow struct {
	Type    FrameType
	Name    string
	Target  bool   // sent by the target, else by the source
	Max     int    // bytes of payload before compression
	Payload string // uv is an unsigned varint, zv a zig-zag one; other numbers are little-endian
	Meaning string
}

const (
	// putMax bounds a PUT frame: the pieces, of which each page has one at least; for each page at most 13 bytes of entries,
	// if it is a run by itself and a patch; their length and the digest.
	putMax = MaxRun*PageSize + MaxRun*pagePieces*13 + 4 + len(Digest{})
	// allPieces is the mask of a whole page.
	allPieces = 1<<pagePieces - 1
	// dataMax is how much of a file one frame carries.
	dataMax = 512 << 10
	// mapMax bounds a MAP frame. The longest entry, 256 runs of one page, takes less than entryMax.
	mapMax   = 64 << 10
	entryMax = 3 << 10
	metaMax  = 64 << 10
	kindMax  = 32
	// haveMost is how many pages one HAVE frame tells of.
	haveMost = 4096
	haveHead = 4 + 4
)

// Frames is the whole protocol. The source's frames after HELLO are numbered from 1 and applied in that order, whatever lane
// each comes over; HELLO and the target's have the number 0. A frame that is not here, or comes from the wrong side, ends the
// stream.
var Frames = []FrameRow{
	{fHello, "HELLO", false, 4 << 10, "JSON: version, migration, epoch, resume, lane, key", "first on every connection; STATE or FAIL answers; a connection of the same lane takes the place of the one before"},
	{fPut, "PUT", false, putMax, "pieces of 512 bytes, then entries, their length u32, digest [16]; an entry: (pages<<1 | patched) uv, first slot less the last run's end, zv, if patched for each page base less the last base's successor, zv, mask u8", "write pages to slots, in this order: whole ones, or base's content with the pieces that mask names replaced; the target computes each page's digest itself, and the digest of all those must be equal"},
	{fRound, "ROUND", false, 4, "round u32", "a round ends; STATE answers"},
	{fSpace, "SPACE", false, 9, "kind u8, id u64", "final pass: begin a space; ends the one before"},
	{fMap, "MAP", false, mapMax, "entries: address uv, flags uv, pages uv, then runs: (length<<2 | sort) uv, for sort 0 also first slot less the last run's end, zv", "final pass: pages of the space, addresses ascending; sort 0 is slots, 1 zero pages, 2 no content"},
	{fFile, "FILE", false, 1 + kindMax + metaMax, "length of kind u8, kind, metadata", "begin a file; only DATA and CLOSE may follow"},
	{fData, "DATA", false, dataMax, "bytes", "more of the file"},
	{fClose, "CLOSE", false, 8 + 32, "size u64, sha256 [32]", "the file is complete"},
	{fEnd, "END", false, 32, "root [32]", "all is sent; STATE with staged set answers"},
	{fState, "STATE", true, stateSize, "applied u64, rounds u32, slots u32, staged u8, root [32]", "how far the target is: answers HELLO, ROUND and END, and comes every MiB, on every connection"},
	{fFail, "FAIL", true, 4 << 10, "JSON: kind, error, next", "the target gives up; nothing follows"},
	{fHave, "HAVE", true, haveHead + haveMost*len(Digest{}), "left u32, room u32, digests [16]", "pages that stand in the slots from 1 on, one after the other, from an earlier visit; at most left are still to come, room is how many slots take no more memory than was promised; follows the STATE that answers a first HELLO, until none is left"},
}

func rowOf(t FrameType) (FrameRow, bool) {
	for _, r := range Frames {
		if r.Type == t {
			return r, true
		}
	}
	return FrameRow{}, false
}

func (t FrameType) String() string {
	if r, ok := rowOf(t); ok {
		return r.Name
	}
	return fmt.Sprintf("frame %d", uint8(t))
}

// headSize is a frame's header: type u8, codec u8, check u16 (the low half of the CRC-32C of the header with a zero here),
// size u32 (on the wire), raw u32 (before compression), CRC-32C u32 of the payload as it stands on the wire, number u64. The
// header has a check of its own so that a damaged size is not waited for.
const headSize = 24

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// seal fills in the header of a frame whose payload begins at headSize, but for its number.
func seal(frame []byte, t FrameType, codec Codec, raw int) []byte {
	frame[0], frame[1] = byte(t), byte(codec)
	binary.LittleEndian.PutUint32(frame[4:], uint32(len(frame)-headSize))
	binary.LittleEndian.PutUint32(frame[8:], uint32(raw))
	binary.LittleEndian.PutUint32(frame[12:], crc32.Checksum(frame[headSize:], castagnoli))
	return number(frame, 0)
}

// number numbers a sealed frame.
func number(frame []byte, n uint64) []byte {
	frame[2], frame[3] = 0, 0
	binary.LittleEndian.PutUint64(frame[16:], n)
	binary.LittleEndian.PutUint16(frame[2:], uint16(crc32.Checksum(frame[:headSize], castagnoli)))
	return frame
}

// plainFrame is a small frame that is not worth compressing.
func plainFrame(t FrameType, payload []byte) []byte {
	frame := make([]byte, headSize+len(payload))
	copy(frame[headSize:], payload)
	return seal(frame, t, None, len(payload))
}

// frame is what was read: its payload may still be compressed.
type frame struct {
	kind   FrameType
	codec  Codec
	raw    int
	number uint64
	body   []byte
}

func (f *frame) wireSize() int { return headSize + len(f.body) }

// readFrame reads one frame that the target (or the source) may send. io.EOF is an end between frames.
func readFrame(r io.Reader, fromTarget bool) (*frame, error) {
	var head [headSize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, err
		}
		return nil, lost(err)
	}
	check := binary.LittleEndian.Uint16(head[2:])
	head[2], head[3] = 0, 0
	if uint16(crc32.Checksum(head[:], castagnoli)) != check {
		return nil, errs.New(errs.Failed, "a frame's header is damaged: %w", ErrCorrupt)
	}
	f := &frame{kind: FrameType(head[0]), codec: Codec(head[1]), raw: int(binary.LittleEndian.Uint32(head[8:])), number: binary.LittleEndian.Uint64(head[16:])}
	size := int(binary.LittleEndian.Uint32(head[4:]))
	row, ok := rowOf(f.kind)
	switch {
	case !ok || row.Target != fromTarget:
		return nil, protocol("%s is not expected from this side", f.kind)
	case f.raw > row.Max || size > f.raw:
		return nil, errs.New(errs.Failed, "%s of %d bytes, %d unpacked, may have %d: %w", f.kind, size, f.raw, row.Max, ErrTooLarge)
	case !f.codec.known() || f.codec == None && size != f.raw:
		return nil, protocol("%s is packed in an unknown way (%d)", f.kind, f.codec)
	}
	f.body = roomFor(size)
	if _, err := io.ReadFull(r, f.body); err != nil {
		return nil, lost(err)
	}
	if crc32.Checksum(f.body, castagnoli) != binary.LittleEndian.Uint32(head[12:]) {
		return nil, errs.New(errs.Failed, "the checksum of %s is wrong: %w", f.kind, ErrCorrupt)
	}
	return f, nil
}

func protocol(format string, args ...any) error {
	return errs.New(errs.Failed, format+": %w", append(args, ErrProtocol)...)
}

func lost(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return errs.New(errs.Unavailable, "%w: %w", ErrLost, err)
}
