package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"drover/testenv/victims/vital"
)

// Report is what the client saw.
type Report struct {
	Requests   uint64  `json:"requests"`
	Answers    uint64  `json:"answers"`
	Lost       uint64  `json:"lost"`     // requests that were skipped in the answers or in the server's count
	Repeated   uint64  `json:"repeated"` // requests that were answered, or counted, more than once
	LongestGap float64 `json:"longest_gap_ms"`
}

type caller struct {
	to              string
	pause, patience time.Duration

	report Report
	gap    vital.Gap
}

// call makes one connection and never another: an error on it is the end.
func (c *caller) call(lasts time.Duration, say vital.Every) (Report, error) {
	ctx, stop := vital.Until(lasts)
	defer stop()
	conn, err := net.DialTimeout("tcp", c.to, c.patience)
	if err != nil {
		return c.report, err
	}
	defer conn.Close()
	err = c.converse(ctx, conn, func() { say.Do(func() { vital.Say(c.seen()) }) })
	return c.seen(), err
}

func (c *caller) converse(ctx context.Context, conn net.Conn, now func()) error {
	answer := make([]byte, answerSize)
	for n := uint64(1); ctx.Err() == nil; n++ {
		if err := conn.SetDeadline(time.Now().Add(c.patience)); err != nil {
			return err
		}
		if _, err := conn.Write(binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return fmt.Errorf("request %d: %w", n, err)
		}
		c.report.Requests++
		if _, err := io.ReadFull(conn, answer); err != nil {
			return fmt.Errorf("answer %d: %w", n, err)
		}
		c.report.Answers++
		c.gap.Beat()
		c.compare(n, binary.BigEndian.Uint64(answer), binary.BigEndian.Uint64(answer[requestSize:]))
		now()
		time.Sleep(c.pause)
	}
	return nil
}

// compare counts what is wrong with an answer: it should carry the request's number, and be the server's as-many-eth.
func (c *caller) compare(want, number, served uint64) {
	for _, got := range []uint64{number, served} {
		switch {
		case got < want:
			c.report.Lost += want - got
		case got > want:
			c.report.Repeated += got - want
		}
	}
}

func (c *caller) seen() Report {
	c.report.LongestGap = c.gap.LongestMS()
	return c.report
}
