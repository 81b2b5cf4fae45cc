// Package vital holds what the victims share: how long they run, how they report, how they notice that time stood still.
//
// Victims are programs for drover to move. Each checks itself without pause, so that one wrong byte, one lost or repeated message
// or one stale page is a fault it reports, and says what it saw as one line of JSON.
package vital

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// Until is a context that ends after the time (0 is never) or with SIGINT or SIGTERM.
func Until(d time.Duration) (context.Context, context.CancelFunc) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	if d == 0 {
		return ctx, stop
	}
	return context.WithTimeout(ctx, d)
}

// Say writes v as one line of JSON to standard output.
func Say(v any) { SayTo(os.Stdout, v) }

// SayTo writes v as one line of JSON.
func SayTo(w io.Writer, v any) {
	line, err := json.Marshal(v)
	if err != nil {
		panic(err) // every victim's report is a plain struct
	}
	_, _ = w.Write(append(line, '\n')) // nobody may be listening; the exit code speaks too
}

// Exit ends the program: 0 if err is nil and there were no faults, 1 otherwise.
func Exit(err error, faults uint64) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	if err != nil || faults > 0 {
		os.Exit(1)
	}
	os.Exit(0)
}

// Gap finds the longest time between two signs of life, by the wall clock: CRIU gives a restored tree a time namespace in which its
// monotonic clock goes on where it stood at the dump. It is used by one goroutine.
type Gap struct {
	last    time.Time
	longest time.Duration
	recent  time.Duration
}

// Beat is a sign of life.
func (g *Gap) Beat() {
	now := time.Now().Round(0) // without the monotonic reading
	if !g.last.IsZero() {
		g.longest, g.recent = max(g.longest, now.Sub(g.last)), max(g.recent, now.Sub(g.last))
	}
	g.last = now
}

// LongestMS is the longest time between two beats so far, in milliseconds.
func (g *Gap) LongestMS() float64 { return float64(g.longest.Microseconds()) / 1000 }

// RecentMS is the longest time between two beats since it was last asked, in milliseconds.
func (g *Gap) RecentMS() float64 {
	recent := g.recent
	g.recent = 0
	return float64(recent.Microseconds()) / 1000
}

// Every calls f now and then while it is called often: at most once a period. A period of 0 is never.
type Every struct {
	Period time.Duration
	next   time.Time
}

// Do calls f if it is time.
func (e *Every) Do(f func()) {
	if e.Period == 0 || time.Now().Before(e.next) {
		return
	}
	e.next = time.Now().Add(e.Period)
	f()
}
