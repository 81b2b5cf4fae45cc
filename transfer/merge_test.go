package transfer

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"testing/synctest"
)

func frameOf(number uint64, size int) *frame {
	return &frame{kind: fData, number: number, raw: size, body: make([]byte, size)}
}

func TestFramesOfAllLanesComeInTheirOrderAndOnce(t *testing.T) {
	const frames, lanes = 500, 5
	m := newMerge()
	shuffled := rand.New(rand.NewPCG(1, 2)).Perm(frames)
	for n := range lanes {
		go func() {
			for i, at := range shuffled {
				if i%lanes == n || i%7 == 0 { // each seventh comes over every lane
					if err := m.add(t.Context(), frameOf(uint64(at)+1, 1000)); err != nil {
						t.Error(err)
					}
				}
			}
		}()
	}
	for want := uint64(1); want <= frames; want++ {
		f, err := m.take(t.Context())
		if err != nil || f.number != want {
			t.Fatalf("frame %d instead of %d: %v", f.number, want, err)
		}
	}
	if m.add(t.Context(), frameOf(3, 1000)) != nil || m.bytes != 0 || len(m.frames) != 0 {
		t.Errorf("a frame that was taken is kept a second time: %d bytes", m.bytes)
	}
}

func TestWhileTheNextFrameIsMissingOnlyAWindowIsKept(t *testing.T) {
	m, err := newMerge(), error(nil)
	for n := uint64(2); err == nil && n < 100; n++ {
		err = m.add(t.Context(), frameOf(n, 1<<20))
	}
	if !errors.Is(err, ErrTooLarge) || m.bytes > mergeMost {
		t.Errorf("%d bytes are kept, then %v", m.bytes, err)
	}
}

func TestALaneWaitsWhileFramesThatAreHereWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMerge()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		added := 0
		done := make(chan error)
		go func() {
			for {
				if err := m.add(ctx, frameOf(uint64(added)+1, 400<<10)); err != nil {
					done <- err
					return
				}
				added++
			}
		}()
		synctest.Wait()
		if added != 2 {
			t.Errorf("%d frames are kept ahead", added)
		}
		if f, err := m.take(ctx); err != nil || f.number != 1 {
			t.Fatal(err)
		}
		synctest.Wait()
		if added != 3 {
			t.Errorf("%d frames came after one was taken", added)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("a lane that waits ends with %v", err)
		}
	})
}
