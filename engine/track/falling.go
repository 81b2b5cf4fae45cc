package track

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"drover/engine"
	"drover/engine/image"
)

// NewFalling makes the first of the named trackers with others to fall back on: when a round fails for the tracker's own reasons, it is
// closed and the next one begins in its place with a round that hands over everything. Which one it is stands in Name and in the
// rounds' figures, with why. Where the receiver fails, the tree ends, or the tree cannot be dumped, no other would do better, and
// the error is the caller's.
func NewFalling(names []string, make func(name string) Tracker, log *slog.Logger) Tracker {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &falling{Tracker: make(names[0]), next: names[1:], make: make, log: log}
}

// AsExact is t, or whom t has fallen back on, if that can tell what its rounds are worth.
func AsExact(t Tracker) (Exact, bool) {
	if f, ok := t.(*falling); ok {
		t = f.Tracker
	}
	e, ok := t.(Exact)
	return e, ok
}

type falling struct {
	Tracker // that makes the rounds now
	next    []string
	make    func(name string) Tracker
	log     *slog.Logger
	fell    string // from which and why, "" if from none
}

func (f *falling) Round(ctx context.Context, emit func(image.Space, uint64, []byte) error) (RoundStats, error) {
	for {
		out := &outlet{emit: emit}
		st, err := f.Tracker.Round(ctx, out.hand)
		if f.fell != "" && st.Fallback != "" {
			st.Fallback = f.fell + "; " + st.Fallback
		} else if f.fell != "" {
			st.Fallback = f.fell
		}
		if err == nil || len(f.next) == 0 || out.failed != nil || ctx.Err() != nil || errors.Is(err, engine.ErrGone) || errors.Is(err, engine.ErrUnsupported) {
			return st, err
		}
		f.fall(err)
	}
}

// fall puts the next tracker in the place of one that has failed.
func (f *falling) fall(why error) {
	failed := f.Name()
	if err := f.Tracker.Close(); err != nil {
		f.log.Warn("a tracker that has failed may have left something", "tracker", failed, "error", err)
	}
	f.Tracker, f.next = f.make(f.next[0]), f.next[1:]
	f.log.Warn("a tracker has failed: another begins anew", "tracker", failed, "next", f.Name(), "error", why)
	if f.fell != "" {
		f.fell += "; "
	}
	f.fell += fmt.Sprintf("%s failed, %s began anew: %s", failed, f.Name(), why)
}
