package session

import (
	"context"
	"time"

	workerapi "drover/worker/api"
	"drover/worker/session/rules"
)

// diary is a session's state and the events that led to it. Every change is an event; of those that tell only progress the
// newest alone is kept, so that a diary stays small however long a copy takes.
type diary struct {
	host    string
	state   rules.Session
	events  []workerapi.Event
	seq     uint64
	changed chan struct{} // closed and replaced at every event
}

func newDiary(host string, first rules.Session) diary {
	return diary{host: host, state: first, changed: make(chan struct{})}
}

// write puts the state as it is now down as an event.
func (d *diary) write(note string) {
	d.seq++
	d.events = append(d.events, workerapi.Event{Seq: d.seq, Time: time.Now(), Host: d.host, State: d.state.SessionState, Note: note})
	d.wake()
}

// writeProgress is write for an event that tells only progress: it takes the place of one before it.
func (d *diary) writeProgress() {
	if n := len(d.events); n > 0 && progressOnly(d.events, n-1) {
		d.events = d.events[:n-1]
	}
	d.write("")
}

func (d *diary) wake() {
	close(d.changed)
	d.changed = make(chan struct{})
}

// progressOnly says whether event i differs from the one before it in nothing but progress.
func progressOnly(events []workerapi.Event, i int) bool {
	return i > 0 && events[i].Note == "" && events[i].State.Step == events[i-1].State.Step &&
		events[i].State.Verdict == events[i-1].State.Verdict && events[i].State.Alive == events[i-1].State.Alive
}

// after returns the events after sequence number n.
func (d *diary) after(n uint64) []workerapi.Event {
	for i, e := range d.events {
		if e.Seq > n {
			return append([]workerapi.Event(nil), d.events[i:]...)
		}
	}
	return nil
}

// watch calls f with every event after n until the session has ended.
func (s *session) watch(ctx context.Context, n uint64, f func(workerapi.Event) error) error {
	for {
		s.mu.Lock()
		events, changed, over := s.diary.after(n), s.diary.changed, s.diary.state.Ended()
		s.mu.Unlock()
		for _, e := range events {
			if err := f(e); err != nil {
				return err
			}
			n = e.Seq
		}
		if over {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
