package transfer

import "sync"

// bufferSize is the room for the largest frame.
const bufferSize = headSize + MaxRun*putMost

// smallFrame is up to which size a buffer is not worth keeping.
const smallFrame = 32 << 10

// buffers are for large frames under way, so that a stream of hundreds of MB/s is no work for the garbage collector.
var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// newBuffer is a buffer with room for a header, and for any payload after it.
func newBuffer() []byte { return buffers.Get().(*[bufferSize]byte)[:headSize] }

// roomFor is n bytes, at most bufferSize of them.
func roomFor(n int) []byte {
	if n <= smallFrame {
		return make([]byte, n)
	}
	return buffers.Get().(*[bufferSize]byte)[:n]
}

// giveBack takes a buffer that nobody looks at any more; one that came from elsewhere is let go.
func giveBack(b []byte) {
	if cap(b) == bufferSize {
		buffers.Put((*[bufferSize]byte)(b[:bufferSize]))
	}
}
