package transfer

import (
	"io"
	"sync"
	"time"
)

const (
	meterSlot  = 100 * time.Millisecond
	meterSlots = 20
)

// Meter counts bytes and says how fast they have come of late. The zero value is ready.
type Meter struct {
	mu    sync.Mutex
	began time.Time
	total uint64
	slots [meterSlots]struct{ at, bytes int64 } // at counts slots since began, plus one
}

// Count adds n bytes.
func (m *Meter) Count(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.began.IsZero() {
		m.began = time.Now()
	}
	m.total += uint64(n)
	at := int64(time.Since(m.began)/meterSlot) + 1
	s := &m.slots[at%meterSlots]
	if s.at != at {
		s.at, s.bytes = at, 0
	}
	s.bytes += int64(n)
}

// Total is all bytes counted.
func (m *Meter) Total() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.total
}

// Rate is in bytes a second over the last two seconds, or since the first byte if that is less.
func (m *Meter) Rate() float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.began.IsZero() {
		return 0
	}
	since := time.Since(m.began)
	now := int64(since/meterSlot) + 1
	var bytes int64
	for _, s := range m.slots {
		if s.at > now-meterSlots {
			bytes += s.bytes
		}
	}
	window := min(since, (meterSlots-1)*meterSlot+since%meterSlot)
	return float64(bytes) / max(window, meterSlot).Seconds()
}

type metered struct {
	w io.Writer
	m *Meter
}

// Metered makes a writer that counts in m what w has taken.
func Metered(w io.Writer, m *Meter) io.Writer { return &metered{w, m} }

func (w *metered) Write(p []byte) (int, error) {
	n, err := w.w.Write(p)
	w.m.Count(n)
	return n, err
}
