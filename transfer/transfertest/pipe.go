package transfertest

import (
	"net"
	"sync"
)

// Pipe is one connection in memory, both ends, buffered as a socket is.
func Pipe() (a, b net.Conn) {
	return NewNetwork().pair("a", "b:1")
}

// Faulty is a connection that does harm at one point of what is written to it.
type Faulty struct {
	net.Conn
	// CutAt closes the connection once so many bytes have been written; negative never.
	CutAt int
	// FlipAt inverts a bit of the byte at that offset; negative never.
	FlipAt int

	mu      sync.Mutex
	written int
}

func (f *Faulty) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	from := f.written
	if i := f.FlipAt - from; f.FlipAt >= 0 && i >= 0 && i < len(p) {
		p = append([]byte(nil), p...)
		p[i] ^= 0x10
	}
	if f.CutAt >= 0 && from+len(p) >= f.CutAt {
		n, _ := f.Conn.Write(p[:max(0, f.CutAt-from)])
		f.written += n
		f.Conn.Close()
		return n, net.ErrClosed
	}
	n, err := f.Conn.Write(p)
	f.written += n
	return n, err
}

// Written is how much has been written.
func (f *Faulty) Written() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.written
}
