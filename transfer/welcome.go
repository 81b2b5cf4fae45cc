package transfer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// welcome reads HELLO, answers it and gives the connection its lane, in place of the one that had it.
func (r *Receiver) welcome(rw io.ReadWriteCloser) (lane int, told state, err error) {
	late := time.AfterFunc(greeting, func() { rw.Close() })
	defer late.Stop()
	f, err := readFrame(rw, false)
	if err != nil {
		return 0, told, lost(err)
	}
	var h hello
	if f.kind != fHello || f.codec != None {
		return 0, told, protocol("the stream begins with %s", f.kind)
	}
	if err := json.Unmarshal(f.body, &h); err != nil {
		return 0, told, protocol("HELLO is garbled (%v)", err)
	}
	if h.Lane < 0 || h.Lane >= maxLanes {
		return 0, told, protocol("lane %d of %d", h.Lane, maxLanes)
	}
	if told, err = r.greeted(h); err != nil {
		return 0, told, err
	}
	r.mu.Lock()
	before := r.lanes[h.Lane]
	r.lanes[h.Lane] = rw
	if told.applied > r.state.applied || r.state.slots == 0 {
		r.state, r.untold = told, 0
	}
	told = r.state
	if r.ctx.Err() == nil {
		r.start()
	}
	r.mu.Unlock()
	if before != nil {
		before.Close() // the source has lost it, whatever this host knows of it
	}
	if err = writeState(rw, told); err == nil && !h.Resume {
		err = r.sayStock(rw)
	}
	return h.Lane, told, err
}

// greeted lets the applier hear a greeting.
func (r *Receiver) greeted(h hello) (state, error) {
	r.applying.Lock()
	defer r.applying.Unlock()
	if _, over, err := r.outcome(); over && err != nil {
		return state{}, err
	}
	if err := r.applier.hello(h, r.merge.begun()); err != nil {
		return state{}, err
	}
	return r.applier.state, nil
}

// leave takes a connection that has ended from its lane.
func (r *Receiver) leave(lane int, rw io.Closer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lanes[lane] == rw {
		delete(r.lanes, lane)
	}
}

func writeState(w io.Writer, s state) error {
	if _, err := w.Write(plainFrame(fState, s.encode())); err != nil {
		return lost(err)
	}
	return nil
}

// tell tells the source why the target gives up, if that is for good, and returns err.
func tell(w io.Writer, err error) error {
	if errors.Is(err, ErrLost) {
		return err
	}
	if _, werr := w.Write(plainFrame(fFail, encodeFailure(err))); werr != nil {
		return fmt.Errorf("%w (and the source could not be told)", err)
	}
	return err
}
