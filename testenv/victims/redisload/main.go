// Command redisload is the loads of package redisload as a program that runs on a host, and what they saw:
//
//	redisload count -to ADDRESS -for 10s        INCR over one connection without pause
//	redisload fill  -to ADDRESS -size 200M      writes that much, once
//	redisload write -to ADDRESS -rate 5000      rewrites values at that rate, over one connection
//
// Each reports on standard output, now and then and at the end:
//
//	{"requests":52210,"lost":0,"repeated":0,"longest_gap_ms":2.9}
//
// A connection that breaks is the end, with exit code 1: nothing is ever tried again.
package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"time"

	"drover/testenv/redisload"
	"drover/testenv/victims/vital"
)

// Report is what a load saw; lost and repeated are redisload.Seen's.
type Report struct {
	Requests   int     `json:"requests"`
	Lost       int     `json:"lost"`
	Repeated   int     `json:"repeated"`
	LongestGap float64 `json:"longest_gap_ms"`
}

type load struct {
	say    vital.Every
	key    string
	values redisload.Values
	size   vital.Size
	rate   int

	report Report
	gap    vital.Gap
}

func main() {
	l := &load{size: 200 << 20}
	loads := map[string]func(context.Context, net.Conn) error{"count": l.count, "fill": l.fill, "write": l.write}
	if len(os.Args) < 2 || loads[os.Args[1]] == nil {
		usage()
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	to := flags.String("to", "127.0.0.1:6379", "redis' address")
	patience := flags.Duration("patience", 10*time.Second, "how long to wait for the connection")
	lasts := flags.Duration("for", 0, "how long to go on; 0 is until a signal")
	flags.DurationVar(&l.say.Period, "say", time.Second, "how often to report; 0 is only at the end")
	flags.StringVar(&l.key, "key", "redisload", "key to count with; the others' keys begin with it")
	flags.Var(&l.size, "size", "fill, write: how much the values are together")
	valueSize := vital.Size(4096)
	flags.Var(&valueSize, "value-size", "fill, write: size of a value")
	flags.IntVar(&l.rate, "rate", 5000, "write: values a second")
	_ = flags.Parse(os.Args[2:]) // it exits on an error
	if l.rate < 1 || valueSize < 2 {
		usage()
	}
	l.values = redisload.Values{Key: l.key, Size: int(valueSize), Answered: l.answered}

	ctx, stop := vital.Until(*lasts)
	conn, err := net.DialTimeout("tcp", *to, *patience)
	if err == nil {
		err = loads[os.Args[1]](ctx, conn)
		conn.Close()
	}
	stop()
	vital.Say(l.report)
	vital.Exit(err, uint64(l.report.Lost+l.report.Repeated))
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: redisload count|fill|write [flags]; a rate is at least 1, a value 2 bytes")
	os.Exit(2)
}

func (l *load) count(ctx context.Context, conn net.Conn) error {
	c := redisload.Count(conn, l.key)
	for ctx.Err() == nil {
		seen, err := c.Next(ctx)
		if err != nil {
			break // Stop says why
		}
		l.report = reportOf(seen)
		l.say.Do(func() { vital.Say(l.report) })
	}
	seen, err := c.Stop()
	l.report = reportOf(seen)
	return err
}

func reportOf(s redisload.Seen) Report {
	return Report{s.Requests, s.Lost, s.Repeated, float64(s.LongestGap.Microseconds()) / 1000}
}

// fill ends when all is written, with an error if the time is over first.
func (l *load) fill(ctx context.Context, conn net.Conn) error {
	_, err := l.values.Fill(ctx, conn, int64(l.size))
	return err
}

func (l *load) write(ctx context.Context, conn net.Conn) error {
	return l.values.Write(ctx, conn, l.values.Count(int64(l.size)), l.rate)
}

// answered notes one more answer.
func (l *load) answered() {
	l.report.Requests++
	l.gap.Beat()
	l.report.LongestGap = l.gap.LongestMS()
	l.say.Do(func() { vital.Say(l.report) })
}
