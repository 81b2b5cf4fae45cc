// Package redisload is what the demo, the tests and the benchmarks do to a redis that moves: fill it, write to it at a set
// rate, and count over one connection without pause, noticing every request that was lost or repeated and the longest gap.
//
// It speaks the protocol by hand (RESP, redis.io/docs/reference/protocol-spec), over connections it is given: a client library
// would reconnect, and hide what is to be seen.
package redisload

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// answerWithin is how long a request may go unanswered before the connection counts as dead; a blackout is far below it.
const answerWithin = 30 * time.Second

// Seen is what a Counter has seen.
type Seen struct {
	Requests   int           // answered
	Lost       int           // counts that were skipped: a request whose effect came twice shows as one, too
	Repeated   int           // counts that came again: what had been counted was forgotten
	LongestGap time.Duration // between two answers
	GapAt      time.Time     // when the longest gap ended
}

// Counter does INCR over one connection, without pause or at a set pace.
type Counter struct {
	conn  net.Conn
	every time.Duration // 0 is without pause
	stop  chan struct{}
	done  chan struct{}

	mu   sync.Mutex
	seen Seen
	err  error
}

// Count begins counting at key over conn, which it closes at the end, without pause.
func Count(conn net.Conn, key string) *Counter { return CountEvery(conn, key, 0) }

// CountEvery is Count with one request in that time: it finds gaps that are longer and leaves the processors to others. A request
// that is late makes the next ones late, not more.
func CountEvery(conn net.Conn, key string, every time.Duration) *Counter {
	c := &Counter{conn: conn, every: every, stop: make(chan struct{}), done: make(chan struct{})}
	go c.run(key)
	return c
}

func (c *Counter) run(key string) {
	defer close(c.done)
	defer c.conn.Close()
	r := bufio.NewReader(c.conn)
	last, before := int64(-1), time.Now()
	for {
		select {
		case <-c.stop:
			return
		default:
		}
		n, err := call(c.conn, r, "INCR", key)
		now := time.Now()
		c.mu.Lock()
		if err != nil {
			c.err = err
			c.mu.Unlock()
			return
		}
		c.note(last, n, now.Sub(before), now)
		c.mu.Unlock()
		last, before = n, now
		if c.every > 0 {
			time.Sleep(c.every)
		}
	}
}

// note takes one answer into account; the caller holds mu.
func (c *Counter) note(last, n int64, gap time.Duration, now time.Time) {
	c.seen.Requests++
	if last >= 0 && n > last+1 {
		c.seen.Lost += int(n - last - 1)
	}
	if last >= 0 && n <= last {
		c.seen.Repeated += int(last - n + 1)
	}
	if gap > c.seen.LongestGap {
		c.seen.LongestGap, c.seen.GapAt = gap, now
	}
}

// Seen is what it has seen so far; the error is how the connection ended, nil while it lives.
func (c *Counter) Seen() (Seen, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.seen, c.err
}

// Next is Seen after one more answer has come: a gap that is under way now is in it.
func (c *Counter) Next(ctx context.Context) (Seen, error) {
	before, err := c.Seen()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for seen := before; ; seen, err = c.Seen() {
		if err != nil || seen.Requests > before.Requests+1 {
			return seen, err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return seen, ctx.Err()
		}
	}
}

// ResetGap forgets the longest gap, so that the next one can be told from those before.
func (c *Counter) ResetGap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen.LongestGap = 0
}

// Stop ends the counting after the request under way and returns what it saw.
func (c *Counter) Stop() (Seen, error) {
	close(c.stop)
	<-c.done
	return c.Seen()
}

// call sends one command and reads an integer answer; any other answer is an error.
func call(conn net.Conn, r *bufio.Reader, args ...string) (int64, error) {
	if err := conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(encode(nil, args...)); err != nil {
		return 0, fmt.Errorf("%s: %w", args[0], err)
	}
	line, err := r.ReadString('\n')
	if err != nil {
		return 0, fmt.Errorf("%s: %w", args[0], err)
	}
	line = strings.TrimSpace(line)
	if !strings.HasPrefix(line, ":") {
		return 0, fmt.Errorf("%s: redis answered %q", args[0], line)
	}
	return strconv.ParseInt(line[1:], 10, 64)
}

// encode appends a command as an array of bulk strings.
func encode(b []byte, args ...string) []byte {
	b = fmt.Appendf(b, "*%d\r\n", len(args))
	for _, a := range args {
		b = fmt.Appendf(b, "$%d\r\n%s\r\n", len(a), a)
	}
	return b
}

// Values are what redis is filled with.
type Values struct {
	Key      string                    // keys are KEY:0, KEY:1, …
	Size     int                       // of one value, in bytes
	Make     func(id, size int) string // makes the value of a key; nil makes a record, half of which is noise
	Answered func()                    // called at each answer, if set
}

// records are the Values of Fill and Write.
var records = Values{Key: "k", Size: 1000}

// value is a record as programs keep them: some of it repeats, some does not.
func (v Values) value(n int) string {
	if v.Make != nil {
		return v.Make(n, v.Size)
	}
	var b strings.Builder
	fmt.Fprintf(&b, `{"id":%d,"name":"customer-%d","active":true,"balance":%d.%02d,"tags":["alpha","beta","gamma"],"note":"`, n, n, rand.IntN(100000), rand.IntN(100))
	for b.Len() < v.Size {
		fmt.Fprintf(&b, "%016x ", rand.Uint64())
	}
	return b.String()[:max(0, v.Size-2)] + `"}`
}

// batch is how many commands are sent before their answers are read.
const batch = 200

// Fill sets keys k:0, k:1, … until about the given number of bytes is held, and returns how many keys that took.
func Fill(ctx context.Context, conn net.Conn, bytes int64) (keys int, err error) {
	return records.Fill(ctx, conn, bytes)
}

// Write sets random ones of Fill's keys, rate a second, until ctx is done, which is no error.
func Write(ctx context.Context, conn net.Conn, keys, rate int) error {
	return records.Write(ctx, conn, keys, rate)
}

// Count is how many values hold that many bytes, at least one.
func (v Values) Count(bytes int64) int { return max(1, int(bytes/int64(v.Size))) }

// Fill is the function Fill with these values.
func (v Values) Fill(ctx context.Context, conn net.Conn, bytes int64) (keys int, err error) {
	keys = v.Count(bytes)
	return keys, v.write(ctx, conn, keys, func(i int) int { return i })
}

// Write is the function Write with these values.
func (v Values) Write(ctx context.Context, conn net.Conn, keys, rate int) error {
	n := max(1, min(batch, rate/25)) // no burst holds more than a twenty-fifth of a second's writes
	tick := time.NewTicker(time.Second * time.Duration(n) / time.Duration(rate))
	defer tick.Stop()
	for {
		if err := v.write(ctx, conn, n, func(int) int { return rand.IntN(keys) }); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (v Values) write(ctx context.Context, conn net.Conn, n int, key func(int) int) error {
	r := bufio.NewReader(conn)
	var buf []byte
	for i := 0; i < n; {
		if err := ctx.Err(); err != nil {
			return err
		}
		k := min(batch, n-i)
		buf = buf[:0]
		for j := range k {
			id := key(i + j)
			buf = encode(buf, "SET", fmt.Sprintf("%s:%d", v.Key, id), v.value(id))
		}
		if err := conn.SetDeadline(time.Now().Add(answerWithin)); err != nil {
			return err
		}
		if _, err := conn.Write(buf); err != nil {
			return fmt.Errorf("SET: %w", err)
		}
		for range k {
			line, err := r.ReadString('\n')
			if err != nil {
				return fmt.Errorf("SET: %w", err)
			}
			if line != "+OK\r\n" {
				return errors.New("SET: redis answered " + strconv.Quote(line))
			}
			if v.Answered != nil {
				v.Answered()
			}
		}
		i += k
	}
	return nil
}
