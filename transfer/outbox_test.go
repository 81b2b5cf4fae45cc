package transfer

import (
	"errors"
	"testing"
)

func TestWhatWasSaidBeforeTheConnectionEndedCounts(t *testing.T) {
	o := newOutbox(&Meter{}, newChooser(Zstd, true), SenderConfig{}, nil)
	over, looked := make(chan struct{}), 0
	err := o.await(t.Context(), over, func(state) bool {
		if looked++; looked == 1 {
			close(over) // as the answer comes, with the connection's end at its heels
		}
		return looked > 1
	})
	if err != nil {
		t.Errorf("got %v", err)
	}
	if err := o.await(t.Context(), over, func(state) bool { return false }); !errors.Is(err, ErrClosed) {
		t.Errorf("nothing was said: %v", err)
	}
}
