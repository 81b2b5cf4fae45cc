package host

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// relay carries frames between two taps and does to them what a shape says. It stands in for netem, which not every kernel has.
type relay struct {
	near, far tap
	shape     atomic.Pointer[Shape]
	ended     sync.WaitGroup
}

// startRelay owns the taps from now on.
func startRelay(near, far tap) *relay {
	r := &relay{near: near, far: far}
	r.shape.Store(&Shape{})
	r.start(near, far)
	r.start(far, near)
	return r
}

func (r *relay) set(s Shape) error {
	for _, t := range []tap{r.near, r.far} {
		if err := t.setBatches(s.batches()); err != nil {
			return err
		}
	}
	r.shape.Store(&s)
	return nil
}

// close returns when no frame moves any more.
func (r *relay) close() {
	r.near.Close()
	r.far.Close()
	r.ended.Wait()
}

// flight is a frame on its way.
type flight struct {
	frame []byte
	due   time.Time
}

// mostInFlight bounds memory: 10 Gbit/s with 100 ms of delay in batches is 2,000 flights, 1 Gbit/s with 40 ms in single frames
// is 3,300.
const mostInFlight = 4096

func (r *relay) start(from, to tap) {
	flights := make(chan flight, mostInFlight)
	r.ended.Go(func() { r.receive(from, flights) })
	r.ended.Go(func() { deliver(flights, to) })
}

// receive reads frames until the tap is closed, and decides for each whether it is lost and when it is due.
func (r *relay) receive(from tap, flights chan<- flight) {
	defer close(flights)
	var free time.Time // when the link has sent all it was given
	room := make([]byte, headerSize+largestFrame)
	for {
		n, err := from.Read(room)
		if err != nil {
			return
		}
		shape, now := r.shape.Load(), time.Now()
		if free.Before(now) {
			free = now
		}
		if n < headerSize || free.Sub(now) > queueTime || rand.Float64() < shape.Loss {
			continue
		}
		free = free.Add(shape.airtime(room[:n]))
		select {
		case flights <- flight{bytes.Clone(room[:n]), free.Add(shape.Delay)}:
		default: // more than any real cable holds
		}
	}
}

// deliver hands over each frame when it is due. Frames are due in order: where a shorter delay is set on the way, a frame waits
// for those before it.
func deliver(flights <-chan flight, to tap) {
	for f := range flights {
		sleepUntil(f.due)
		_, _ = to.Write(f.frame) // a tap that is down or full drops frames, as a network card does
	}
}

// sleepUntil is exact to some 60 µs, where the runtime's timers round up to a millisecond on an idle processor.
func sleepUntil(due time.Time) {
	for {
		left := time.Until(due)
		if left <= 0 {
			return
		}
		t := unix.NsecToTimespec(int64(left))
		_ = unix.Nanosleep(&t, nil) // a signal ends it early: look again
	}
}
