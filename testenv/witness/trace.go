package witness

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Trace is what was seen of one tree, in the order in which it came: runs of beats, and notes of what was done to it meanwhile. It is
// judged afterwards, by who had the right to run the tree: unlike a Witness it can tell a tree that was reclaimed, and goes on where it had been
// frozen, from one that runs twice. Its methods may be called from several goroutines at once.
type Trace struct {
	mu   sync.Mutex
	runs []run
	last Beat
	came chan struct{} // closed with the next beat; nil if nobody waits
}

// run is beats of one host, one after the other, with rising counts; or a note.
type run struct {
	first, last Beat
	quiet       time.Duration // the longest time between two of them
	note        string
	at          time.Time // of a note
}

// See takes in a beat.
func (t *Trace) See(b Beat) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last = b
	if t.came != nil {
		close(t.came)
		t.came = nil
	}
	if n := len(t.runs); n > 0 && t.runs[n-1].note == "" {
		if r := &t.runs[n-1]; r.last.Host == b.Host && b.Count > r.last.Count && b.Clock >= r.last.Clock {
			r.quiet = max(r.quiet, b.Seen.Sub(r.last.Seen))
			r.last = b
			return
		}
	}
	t.runs = append(t.runs, run{first: b, last: b})
}

// Note adds a remark.
func (t *Trace) Note(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.runs = append(t.runs, run{note: fmt.Sprintf(format, args...), at: time.Now()})
}

// Begin forgets what was seen so far.
func (t *Trace) Begin() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.runs = nil
}

// Alive returns nil once a beat that is seen after since has come from the host. When ctx ends first, the silence is an error.
func (t *Trace) Alive(ctx context.Context, host string, since time.Time) error {
	for {
		t.mu.Lock()
		if t.last.Host == host && t.last.Seen.After(since) {
			t.mu.Unlock()
			return nil
		}
		if t.came == nil {
			t.came = make(chan struct{})
		}
		came := t.came
		t.mu.Unlock()
		select {
		case <-came:
		case <-ctx.Done():
			t.mu.Lock()
			defer t.mu.Unlock()
			return t.wrong("it is silent on %s: %w", host, ctx.Err())
		}
	}
}

// Tenure is the right of one host to run the tree, until the next one's begins.
type Tenure struct {
	Host string
	// Reclaimed says that the host had it before and has it back from one whose copy is proved dead: the tree goes on where it had been
	// frozen here, so that its counter may go back.
	Reclaimed bool
}

// Judge returns nil if the trace is one of a tree that was run by the hosts of the tenures, in that order, and by one of them at a time.
// A tenure may be without a beat: it was short, or the network lost them.
func (t *Trace) Judge(tenures ...Tenure) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var last Beat
	now := -1 // the tenure of last
	for _, r := range t.runs {
		if r.note != "" {
			continue
		}
		next, back := max(now, 0), false
		for next < len(tenures) && tenures[next].Host != r.first.Host {
			next++
		}
		for i := now + 1; i <= next && i < len(tenures); i++ {
			back = back || tenures[i].Reclaimed
		}
		switch {
		case next == len(tenures):
			return t.wrong("it ran on %s, beat %d, out of turn", r.first.Host, r.first.Count)
		case r.first.Count <= last.Count && !back:
			return t.wrong("its counter went back from %d on %s to %d on %s", last.Count, last.Host, r.first.Count, r.first.Host)
		case r.first.Clock < last.Clock && !back: // CRIU lets the tree's clock go on over a move
			return t.wrong("its clock went back by %s on %s", last.Clock-r.first.Clock, r.first.Host)
		}
		last, now = r.last, next
	}
	if now < 0 {
		return t.wrong("nothing was seen of it")
	}
	return nil
}

// wrong is an error with the trace that led there. The caller holds mu.
func (t *Trace) wrong(format string, args ...any) error {
	return fmt.Errorf("%w; what was seen of it:\n%s", fmt.Errorf(format, args...), t.told())
}

// told is the end of the trace, at most its newest 40 lines. The caller holds mu.
func (t *Trace) told() string {
	const lines, clock = 40, "15:04:05.000"
	var b strings.Builder
	for _, r := range t.runs[max(0, len(t.runs)-lines):] {
		if r.note != "" {
			fmt.Fprintf(&b, "%s  -- %s\n", r.at.Format(clock), r.note)
			continue
		}
		fmt.Fprintf(&b, "%s to %s  %s: beats %d to %d, at most %s apart\n", r.first.Seen.Format(clock), r.last.Seen.Format(clock),
			r.first.Host, r.first.Count, r.last.Count, r.quiet.Round(time.Millisecond))
	}
	return b.String()
}
