package transfer

import (
	"sync"
	"unsafe"
)

const (
	// bufferSize is the room for the largest frame.
	bufferSize = headSize + putMax
	// smallFrame is up to which size a buffer is not worth keeping.
	smallFrame = 32 << 10
	// bufferGrain is what buffers' sizes are multiples of: a frame waits long for its acknowledgement, and what it does not
	// fill of its buffer is wasted all that time.
	bufferGrain = 64 << 10
	bufferSizes = (bufferSize + bufferGrain - 1) / bufferGrain
)

// buffers are for large frames under way, by size, so that a stream of hundreds of MB/s is no work for the garbage collector
// and touches no fresh memory.
var buffers [bufferSizes + 1]sync.Pool

// newBuffer is a buffer with room for a header, and for any payload after it.
func newBuffer() []byte { return roomFor(bufferSize)[:headSize] }

// roomFor is n bytes, at most bufferSize of them, with anything in them.
func roomFor(n int) []byte {
	if n <= smallFrame {
		return make([]byte, n)
	}
	size := (n + bufferGrain - 1) / bufferGrain
	if kept, ok := buffers[size].Get().(*byte); ok {
		return unsafe.Slice(kept, size*bufferGrain)[:n]
	}
	return make([]byte, n, size*bufferGrain)
}

// giveBack takes a buffer that nobody looks at any more; one that roomFor has not made is let go.
func giveBack(b []byte) {
	if size := cap(b) / bufferGrain; cap(b)%bufferGrain == 0 && size > 0 && size <= bufferSizes {
		buffers[size].Put(unsafe.SliceData(b))
	}
}
