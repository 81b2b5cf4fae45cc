package host

import (
	"time"

	"drover/internal/errs"
)

// Rates, in bits per second.
const (
	Mbit int64 = 1_000_000
	Gbit int64 = 1000 * Mbit
)

// Shape is what a link does to what crosses it, in each direction. The zero Shape does nothing.
type Shape struct {
	Rate  int64         // bits per second as Ethernet counts them, gaps between frames included; 0 is no limit
	Delay time.Duration // added to every frame, on top of the time that Rate costs; two shaped links on a way add up
	Loss  float64       // the part of frames that is lost, 0 to 1, drawn for each by itself
}

func (s Shape) check() error {
	if s.Rate < 0 || s.Delay < 0 || s.Loss < 0 || s.Loss > 1 {
		return errs.New(errs.Invalid, "link shape %+v: want no negative value, and a loss of at most 1", s)
	}
	return nil
}

// queueTime is how much traffic, in time, waits for its turn before more is dropped, as in a switch with a buffer of that size.
const queueTime = 40 * time.Millisecond

// batches says whether frames may cross many at a time. A lossy link draws for each frame; on a slow one 64 KiB would be a lump
// of noticeable length.
func (s Shape) batches() bool {
	return s.Loss == 0 && (s.Rate == 0 || s.Rate >= 200*Mbit)
}

// airtime is how long the frame keeps a link of that rate busy.
func (s Shape) airtime(frame []byte) time.Duration {
	if s.Rate == 0 {
		return 0
	}
	return time.Duration(float64(wireBytes(frame)) * 8 / float64(s.Rate) * float64(time.Second))
}

// perFrame is what Ethernet adds to each frame: checksum, preamble and gap.
const perFrame = 4 + 8 + 12

// wireBytes is what the frame is worth on a cable. Behind a virtio-net header that announces a batch, it is as many frames as the
// network card would have made of it, each with a copy of the protocol headers.
func wireBytes(frame []byte) int {
	header, data := frame[:headerSize], frame[headerSize:]
	protocols := int(header[2]) | int(header[3])<<8
	size := int(header[4]) | int(header[5])<<8
	if header[1] == 0 || size == 0 || len(data) <= protocols {
		return len(data) + perFrame
	}
	frames := (len(data) - protocols + size - 1) / size
	return len(data) + (frames-1)*protocols + frames*perFrame
}
