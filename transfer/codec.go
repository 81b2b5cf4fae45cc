package transfer

import (
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"

	"drover/internal/errs"
)

// Codec says how a frame's payload is packed. The numbers stand on the wire.
type Codec uint8

const (
	None Codec = 0
	S2   Codec = 1
	Zstd Codec = 2
)

func (c Codec) known() bool { return c <= Zstd }

func (c Codec) String() string { return [...]string{"none", "s2", "zstd"}[min(c, Zstd)] }

// ParseCodec reads "none", "s2" or "zstd"; "" is Zstd.
func ParseCodec(name string) (Codec, error) {
	if name == "" {
		return Zstd, nil
	}
	for c := None; c.known(); c++ {
		if c.String() == name {
			return c, nil
		}
	}
	return None, errs.New(errs.Invalid, "compression %q: it is none, s2 or zstd", name)
}

// packer packs frames; it is used by one goroutine.
type packer struct {
	zstd    *zstd.Encoder
	scratch []byte
}

func newPacker() *packer {
	// Higher levels buy nothing on memory pages (measured), and a frame is its own stream: its CRC is in the header.
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(1<<20), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic("transfer: zstd refuses its options: " + err.Error()) //nolint:forbidigo // the options are constants
	}
	return &packer{zstd: enc}
}

// pack makes a frame of a payload that begins at headSize of buf. A payload that does not shrink by a sixteenth goes as it
// is. inPlace says that the frame is buf itself; else it is a new slice of just its size, because it may wait long for its
// acknowledgement: a small frame must not keep a large buffer.
func (p *packer) pack(buf []byte, t FrameType, codec Codec) (frame []byte, inPlace bool) {
	payload := buf[headSize:]
	out := p.scratch[:0]
	switch codec {
	case S2:
		out = s2.Encode(out[:cap(out)], payload)
	case Zstd:
		out = p.zstd.EncodeAll(payload, out)
	}
	if cap(out) > cap(p.scratch) {
		p.scratch = out
	}
	raw := len(payload)
	switch {
	case codec != None && len(out) < raw-raw/16:
	case len(buf) > cap(buf)/2:
		return seal(buf, t, None, raw), true
	default:
		codec, out = None, payload
	}
	frame = make([]byte, headSize+len(out))
	copy(frame[headSize:], out)
	return seal(frame, t, codec, raw), false
}

// unpacker unpacks frames; it is used by one goroutine.
type unpacker struct{ zstd *zstd.Decoder }

func newUnpacker() *unpacker {
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(4<<20), zstd.WithDecoderMaxWindow(4<<20), zstd.WithDecoderLowmem(true))
	if err != nil {
		panic("transfer: zstd refuses its options: " + err.Error()) //nolint:forbidigo // the options are constants
	}
	return &unpacker{dec}
}

func (u *unpacker) close() { u.zstd.Close() }

// unpack gives a frame's payload, never longer than the frame says, which readFrame has bounded: it may be the body itself.
func (u *unpacker) unpack(f *frame) ([]byte, error) {
	if f.codec == None {
		return f.body, nil
	}
	room := roomFor(f.raw)
	var out []byte
	var err error
	switch f.codec {
	case S2:
		var n int
		if n, err = s2.DecodedLen(f.body); err == nil && n == f.raw {
			out, err = s2.Decode(room, f.body)
		}
	case Zstd:
		out, err = u.zstd.DecodeAll(f.body, room[:0:f.raw])
	}
	if err != nil {
		return nil, errs.New(errs.Failed, "unpack %s: %w: %w", f.kind, ErrCorrupt, err)
	}
	if len(out) != f.raw {
		return nil, errs.New(errs.Failed, "unpack %s: %d bytes, not %d: %w", f.kind, len(out), f.raw, ErrCorrupt)
	}
	if len(out) > 0 && &out[0] == &room[0] {
		return room, nil // with its full capacity, by which giveBack knows it
	}
	return out, nil
}
