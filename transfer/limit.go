package transfer

import (
	"context"
	"io"

	"golang.org/x/time/rate"
)

// limitBurst is how far a limited writer may run ahead, in bytes.
const limitBurst = 256 << 10

// NewLimiter makes a limiter for SetLimit; it may be shared by several streams, which then share the bandwidth.
func NewLimiter(bytesPerSecond int64) *rate.Limiter {
	l := rate.NewLimiter(rate.Inf, limitBurst)
	SetLimit(l, bytesPerSecond)
	return l
}

// SetLimit changes what a limiter lets through, in bytes a second; 0 is no limit. It takes effect within a fraction of a
// second, also on a write under way.
func SetLimit(l *rate.Limiter, bytesPerSecond int64) {
	if bytesPerSecond <= 0 {
		l.SetLimit(rate.Inf)
		return
	}
	l.SetLimit(rate.Limit(bytesPerSecond))
}

type limited struct {
	ctx context.Context
	w   io.Writer
	l   *rate.Limiter
}

// Limit makes a writer that keeps to l; a wait ends with ctx. Limits are layered by wrapping again.
func Limit(ctx context.Context, w io.Writer, l *rate.Limiter) io.Writer {
	if l == nil {
		return w
	}
	return &limited{ctx, w, l}
}

func (w *limited) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		m := min(len(p), w.portion())
		if err := w.l.WaitN(w.ctx, m); err != nil {
			return n, err
		}
		m, err := w.w.Write(p[:m])
		n, p = n+m, p[m:]
		if err != nil {
			return n, err
		}
	}
	return n, nil
}

// portion is what goes out between two looks at the limit: a twentieth of a second's worth.
func (w *limited) portion() int {
	burst := max(1, w.l.Burst())
	if limit := w.l.Limit(); limit != rate.Inf {
		return min(burst, max(1<<10, int(limit/20)))
	}
	return burst
}
