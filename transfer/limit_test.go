package transfer_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"drover/transfer"
)

func TestALimitHoldsAndMayBeChangedInMidWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := transfer.NewLimiter(1 << 20)
		var m transfer.Meter
		w := transfer.Limit(t.Context(), transfer.Metered(io.Discard, &m), l)
		began := time.Now()
		done := make(chan time.Duration, 1)
		go func() {
			w.Write(make([]byte, 30<<20))
			done <- time.Since(began)
		}()
		time.Sleep(10 * time.Second) //nolint:forbidigo // a bubble's time
		if got := m.Rate(); got < 0.9*(1<<20) || got > 1.1*(1<<20) {
			t.Errorf("at a limit of 1 MiB/s it goes at %.0f", got)
		}
		transfer.SetLimit(l, 10<<20)
		took := <-done
		if took < 11*time.Second || took > 13*time.Second {
			t.Errorf("10 MiB at 1 MiB/s and 20 at 10 took %v", took)
		}
		transfer.SetLimit(l, 0)
		began = time.Now()
		w.Write(make([]byte, 1<<30))
		if took := time.Since(began); took > time.Second {
			t.Errorf("without a limit 1 GiB took %v", took)
		}
	})
}

func TestLimitsAreLayered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		host, migration := transfer.NewLimiter(1<<20), transfer.NewLimiter(8<<20)
		began := time.Now()
		w := transfer.Limit(t.Context(), transfer.Limit(t.Context(), io.Discard, host), migration)
		w.Write(make([]byte, 10<<20))
		if took := time.Since(began); took < 9*time.Second || took > 11*time.Second {
			t.Errorf("10 MiB under limits of 1 and 8 MiB/s took %v", took)
		}
	})
}

func TestALimitedWriteEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		n, err := transfer.Limit(ctx, io.Discard, transfer.NewLimiter(1<<10)).Write(make([]byte, 1<<30))
		if err == nil || n > 1<<20 {
			t.Errorf("%d bytes, %v", n, err)
		}
		if errors.Is(err, io.ErrShortWrite) {
			t.Error(err)
		}
	})
}

func TestTheRateForgetsWhatIsLongAgo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var m transfer.Meter
		if m.Rate() != 0 {
			t.Error("a rate before the first byte")
		}
		for range 100 {
			m.Count(1000)
			time.Sleep(10 * time.Millisecond) //nolint:forbidigo // a bubble's time
		}
		if got := m.Rate(); got < 95_000 || got > 105_000 {
			t.Errorf("100 kB in a second go at %.0f", got)
		}
		time.Sleep(time.Minute) //nolint:forbidigo // a bubble's time
		if m.Rate() != 0 || m.Total() != 100_000 {
			t.Errorf("a minute later: %.0f, %d in all", m.Rate(), m.Total())
		}
	})
}
