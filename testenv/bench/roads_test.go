package bench

import (
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/testenv/bench/report"
	"drover/testenv/host"
)

// roads are the links that the hosts are joined by, one at a time, and what each was seen to carry.
type roads struct {
	*ground
	now   link
	plain float64 // bits a second that a plain veth carries; 0 before it was measured
	known []report.Link
}

func newRoads(g *ground) *roads { return &roads{ground: g} }

// shape gives a shape to all cables but the client's: a link's delay is for those who move, and a load that waits for its answers
// keeps its rate.
func (g *ground) shape(b *testing.B, s host.Shape) {
	b.Helper()
	for _, h := range g.Bed.Hosts() {
		if h == g.client {
			continue
		}
		if err := h.Link().Set(s); err != nil {
			b.Fatal(err)
		}
	}
}

// take joins all hosts by the link. One that is faster than the machine's own is not shaped: a relay would only slow it down.
func (r *roads) take(b *testing.B, name string) {
	b.Helper()
	l := linkNamed(name)
	if l == r.now {
		return
	}
	if r.plain == 0 {
		r.plain = r.carried(b)
	}
	shape := l.cable()
	if shape.Delay == 0 && float64(shape.Rate) > r.plain {
		shape = host.Shape{}
	}
	r.shape(b, shape)
	r.now, r.cable = l, shape
	if l.cut > 0 || slices.ContainsFunc(r.known, func(known report.Link) bool { return known.Name == l.name }) {
		return
	}
	seen := r.plain
	if shape != (host.Shape{}) {
		seen = r.carried(b)
	}
	r.known = append(r.known, report.Link{
		Name: l.name, Rate: l.shape.Rate, Delay: report.InMillis(l.shape.Delay), Shaped: shape != (host.Shape{}), Carried: seen,
	})
}

// carried is how many bits a second one TCP connection brings from one worker's host to the other, over one second after a
// fifth of one.
func (g *ground) carried(b *testing.B) float64 {
	b.Helper()
	from, to := g.Workers[0].Host, g.Workers[1].Host
	at, _, _ := strings.Cut(to.Options.Address, "/")
	in, err := to.Listen(b.Context(), "tcp", at+":9999")
	if err != nil {
		b.Fatal(err)
	}
	defer in.Close()
	out, err := from.Dial(b.Context(), "tcp", at+":9999")
	if err != nil {
		b.Fatal(err)
	}
	received, err := in.Accept()
	if err != nil {
		b.Fatal(err)
	}
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		for buf := make([]byte, 256<<10); ; {
			if _, err := out.Write(buf); err != nil {
				return // it is closed below
			}
		}
	}()
	rate, err := rateOf(received)
	received.Close()
	out.Close()
	<-sent
	if err != nil {
		b.Fatal(err)
	}
	return rate
}

// rateOf is in bits a second.
func rateOf(c net.Conn) (float64, error) {
	buf := make([]byte, 256<<10)
	begin := time.Now().Add(200 * time.Millisecond)
	end := begin.Add(time.Second)
	var n int64
	for {
		k, err := io.ReadAtLeast(c, buf, 1)
		if err != nil {
			return 0, err
		}
		now := time.Now()
		if now.After(begin) {
			n += int64(k)
		}
		if now.After(end) {
			return float64(n) * 8 / now.Sub(begin).Seconds(), nil
		}
	}
}
