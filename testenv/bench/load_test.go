package bench

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"drover/testenv/bench/report"
	"drover/testenv/host/hosttest"
	"drover/testenv/redisload"
	"drover/testenv/victims/vital"
)

// isRedis says whether a case's program is a server with an address and clients; the others tell about themselves.
func isRedis(c report.Case) bool { return c.Program == "redis" || c.Program == report.Busy }

//go:embed heap.py
var heapSource []byte

// heapProgram is where heap.py lies on the hosts.
const heapProgram = "/usr/local/lib/heap.py"

// load is what a program does, or is made to do, while it is moved.
type load interface {
	// ops is how many operations it has done; 0 if nobody counts.
	ops() int64
	// mark forgets the gaps so far.
	mark()
	// gap is the longest since mark, one under way included.
	gap(ctx context.Context) (time.Duration, error)
	// stop ends it and says what went wrong.
	stop() error
}

// commandOf is the command line of a case's program.
func commandOf(c report.Case) []string {
	switch c.Program {
	case "python":
		return []string{"python3", heapProgram, "objects", fmt.Sprint(c.Size)}
	case report.Repeated:
		return []string{"python3", heapProgram, "pages", fmt.Sprint(c.Size)}
	case "redis", report.Busy:
		return []string{"redis-server", "--save", "", "--appendonly", "no", "--bind", "0.0.0.0", "--protected-mode", "no"}
	}
	size := vital.Size(c.Size)
	rate := max(1, int(float64(size.Pages())*c.Load/100))
	return []string{"/usr/local/bin/dirtier", "-memory", size.String(), "-working-set", size.String(), "-rate", fmt.Sprint(rate), "-verify", "0", "-say", "100ms"}
}

// redisLoad is a redis that is written to at a rate, and a client that notices how long it is silent.
type redisLoad struct {
	counter *redisload.Counter
	counts  bool // the counter asks without pause, and its requests are the operations
	end     context.CancelFunc
	written atomic.Int64
	wrote   chan error
}

// probeEvery is how often the client asks: gaps are known to that.
const probeEvery = time.Millisecond

// loadRedis fills the redis at the address and begins.
func loadRedis(b *testing.B, g *ground, c report.Case, address string) *redisLoad {
	b.Helper()
	ctx, end := context.WithCancel(b.Context())
	l := &redisLoad{end: end, wrote: make(chan error, 1), counts: c.Program == report.Busy}
	conn := dialRedis(b, g.client, address)
	keys, err := redisload.Documents.Fill(ctx, conn, c.Size)
	if err != nil {
		b.Fatalf("fill the redis: %v", err)
	}
	values := redisload.Documents
	values.Answered = func() { l.written.Add(1) }
	go func() {
		defer conn.Close()
		if c.Load == 0 {
			<-ctx.Done()
			l.wrote <- nil
			return
		}
		l.wrote <- values.Write(ctx, conn, keys, int(c.Load))
	}()
	every := probeEvery
	if l.counts {
		every = 0
	}
	l.counter = redisload.CountEvery(dialRedis(b, g.client, address), "counter", every)
	return l
}

func (l *redisLoad) ops() int64 {
	if l.counts {
		seen, _ := l.counter.Seen() // a broken connection shows in gap and stop
		return int64(seen.Requests)
	}
	return l.written.Load()
}

func (l *redisLoad) mark() { l.counter.ResetGap() }

func (l *redisLoad) gap(ctx context.Context) (time.Duration, error) {
	seen, err := l.counter.Next(ctx)
	return seen.LongestGap, err
}

func (l *redisLoad) stop() error {
	l.end()
	wrote := <-l.wrote
	seen, err := l.counter.Stop()
	switch {
	case err != nil:
		return fmt.Errorf("the client's connection: %w", err)
	case seen.Lost > 0 || seen.Repeated > 0:
		return fmt.Errorf("of %d requests %d were lost and %d repeated", seen.Requests, seen.Lost, seen.Repeated)
	}
	return wrote
}

// selfLoad is a program that tells in its log how it goes: the dirtier and heap.py.
type selfLoad struct {
	log     func(context.Context) (string, error) // the end of it, a hundred lines at least
	written uint64                                // at mark
}

type selfReport struct {
	Written uint64  `json:"written"`
	Faults  uint64  `json:"faults"`
	Fault   string  `json:"fault"`
	Gap     float64 `json:"gap_ms"`
}

// loadSelf waits until it runs.
func loadSelf(b *testing.B, log func(context.Context) (string, error)) *selfLoad {
	b.Helper()
	l := &selfLoad{log: log}
	hosttest.Eventually(b, "the program says how it goes", func() bool {
		said, err := l.said(b.Context())
		return err == nil && len(said) > 2
	})
	return l
}

func (l *selfLoad) said(ctx context.Context) (all []selfReport, err error) {
	text, err := l.log(ctx)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(text) {
		var r selfReport
		if json.Unmarshal([]byte(line), &r) == nil { // the last line may be half written
			all = append(all, r)
		}
	}
	return all, nil
}

func (l *selfLoad) ops() int64 { return 0 }

func (l *selfLoad) mark() {
	if said, err := l.said(context.Background()); err == nil && len(said) > 0 {
		l.written = said[len(said)-1].Written
	}
}

// gap waits for a report of later than now: the move is in one of those from the mark to that.
func (l *selfLoad) gap(ctx context.Context) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, hosttest.Patience)
	defer cancel()
	var now uint64
	for first := true; ; first = false {
		said, err := l.said(ctx)
		if err != nil {
			return 0, err
		}
		longest, last := 0.0, selfReport{}
		for _, last = range said {
			if last.Written >= l.written {
				longest = max(longest, last.Gap)
			}
		}
		switch {
		case last.Faults > 0:
			return 0, fmt.Errorf("the program found %d faults, the first: %s", last.Faults, last.Fault)
		case first:
			now = last.Written
		case last.Written > now:
			return time.Duration(longest * float64(time.Millisecond)), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("the program says no more: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (l *selfLoad) stop() error { return nil }
