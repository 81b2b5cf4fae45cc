// Package witness judges from outside whether a tree kept drover's promises: the tree beats (testenv/victims/heart), into a file that all hosts
// share and over the network to here, and a Witness holds what it sees to the rules: two writers at once, a counter that goes back or comes twice, and a
// gap at the end each are a failure, told with the beats that led there.
//
// Listen takes beats from a network, ReadFrom those of a file; Err is what was wrong, Gap the longest silence, as a client would have felt it.
package witness

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"drover/internal/safety"
)

// Beat is one sign of life of a tree.
type Beat struct {
	Host  string        // on which its writer runs, as it says
	Count uint64        // from 1, one more with each beat of the tree, wherever it runs
	Clock time.Duration // CLOCK_MONOTONIC of its writer's kernel
	Seen  time.Time     // by the witness; zero in a file
}

// String is a beat as it is written and sent: one line.
func (b Beat) String() string { return fmt.Sprintf("%s %d %d", b.Host, b.Count, b.Clock.Nanoseconds()) }

// Parse reads a line that String wrote.
func Parse(line string) (b Beat, err error) {
	var ns int64
	if _, err := fmt.Sscanf(line, "%s %d %d", &b.Host, &b.Count, &ns); err != nil {
		return b, fmt.Errorf("%q is no beat: %w", line, err)
	}
	b.Clock = time.Duration(ns)
	return b, nil
}

// kept is how many beats before a failure are told with it.
const kept = 12

// Witness follows the beats of one tree. Its methods may be called from several goroutines at once.
type Witness struct {
	// InOrder says that beats are seen in the order in which they were made, as in a file: one that is missing is a failure then.
	InOrder bool

	mu    sync.Mutex
	trail []string // the newest beats
	last  Beat
	high  map[string]Beat // the newest of each host
	err   error
}

// See takes in a beat.
func (w *Witness) See(b Beat) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.high == nil {
		w.high = map[string]Beat{}
	}
	if w.trail = append(w.trail, b.String()); len(w.trail) > kept {
		w.trail = w.trail[1:]
	}
	if err := w.judge(b); err != nil && w.err == nil {
		w.err = fmt.Errorf("%w; the beats before:\n  %s", err, strings.Join(w.trail, "\n  "))
	}
	w.last = b
	if h, ok := w.high[b.Host]; !ok || b.Count > h.Count {
		w.high[b.Host] = b
	}
}

// judge is what is wrong with a beat after those before it. A packet may be overtaken by another of the same writer, and by no other: a tree that
// moves stands still for longer than a packet takes.
func (w *Witness) judge(b Beat) error {
	for host, other := range w.high {
		if host != b.Host && other.Count >= b.Count && w.last.Host != b.Host {
			return safety.OneRuns([]safety.Copy{{Host: host, Runs: true}, {Host: b.Host, Runs: true}})
		}
	}
	had, known := w.high[b.Host]
	switch {
	case known && b.Count <= had.Count && b.Clock > had.Clock:
		return fmt.Errorf("the counter went back from %d to %d on %s", had.Count, b.Count, b.Host)
	case w.InOrder && w.last.Count != 0 && b.Count <= w.last.Count:
		return fmt.Errorf("the counter went back from %d on %s to %d on %s", w.last.Count, w.last.Host, b.Count, b.Host)
	case w.InOrder && w.last.Count != 0 && b.Count != w.last.Count+1:
		return fmt.Errorf("the counter went from %d to %d: something of the tree was lost", w.last.Count, b.Count)
	}
	return nil
}

// Err is the first rule that was broken, nil if none was.
func (w *Witness) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

// Last is the newest beat.
func (w *Witness) Last() Beat {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// End is Err, and a failure if the tree has not beaten within limit before now: then it does not live any more.
func (w *Witness) End(now time.Time, limit time.Duration) error {
	if err := w.Err(); err != nil {
		return err
	}
	if last := w.Last(); now.Sub(last.Seen) > limit {
		return fmt.Errorf("it has not beaten for %s: last %s", now.Sub(last.Seen).Round(time.Millisecond), last)
	}
	return nil
}

// Listen takes beats from a network, one a packet, until conn is closed.
func (w *Witness) Listen(conn net.PacketConn) error { return listen(conn, w.See) }

// Listen takes beats from a network, one a packet, until conn is closed.
func (t *Trace) Listen(conn net.PacketConn) error { return listen(conn, t.See) }

func listen(conn net.PacketConn, see func(Beat)) error {
	buf := make([]byte, 512)
	for {
		n, _, err := conn.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := Parse(string(buf[:n]))
		if err != nil {
			return err
		}
		b.Seen = time.Now()
		see(b)
	}
}

// Read takes the beats of a file that all hosts share. A last line without an end is being written.
func (w *Witness) Read(file io.Reader) error {
	r := bufio.NewReader(file)
	for {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		b, err := Parse(line)
		if err != nil {
			return err
		}
		w.See(b)
	}
}
