package transfer_test

import (
	"context"
	"runtime"
	"testing"

	"drover/transfer"
	"drover/transfer/transfertest"
)

// TestASenderThatHasEndedKeepsOnlyItsFigures: a worker keeps its last 128 sessions, each with its sender, so that a call
// repeated late gets its answer.
func TestASenderThatHasEndedKeepsOnlyItsFigures(t *testing.T) {
	const ended, most = 8, 64 << 10
	kept := make([]*transfer.Sender, ended)
	before := live()
	for i := range kept {
		near, far := transfertest.Pipe()
		done := make(chan error, 1)
		go func() {
			_, err := transfer.Receive(context.Background(), far, sink{})
			done <- err
		}()
		s, err := transfer.NewSender(t.Context(), near, transfer.SenderConfig{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Offer(procA, 0, heap(256)); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 { // the others fail in mid-stream
			if _, err := s.Finish(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s.Close()
		<-done
		kept[i] = s
	}
	if each := (live() - before) / ended; each > most {
		t.Errorf("a sender that has ended keeps %d bytes, at most %d are its figures", each, most)
	}
	if p := kept[0].Progress(); p.PagesSent == 0 || p.WireBytes == 0 {
		t.Errorf("its figures are gone: %+v", p)
	}
}

// live is how many bytes of Go's heap are in use, pools emptied.
func live() int {
	runtime.GC() // a pool keeps what it has through one collection
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
