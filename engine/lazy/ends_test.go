package lazy

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAChildOfATreeThatIsKilledSeesNoZeros: a child that is forked between the failure and the kill gets zeros: its userfaultfd is closed at once.
func TestAChildOfATreeThatIsKilledSeesNoZeros(t *testing.T) {
	f := &Filler{come: make(chan struct{}), err: errors.New("failed"), vouched: true} // fail is just killing
	fd, _, e := unix.Syscall(unix.SYS_USERFAULTFD, unix.O_CLOEXEC|unix.O_NONBLOCK, 0, 0)
	if e != 0 {
		t.Fatal(e)
	}
	child := os.NewFile(fd, "userfaultfd")
	must(t, f.adopt(newSpace(1, wants{{0x1000, 0x2000, 0x1000}}), child))
	if _, err := child.Stat(); errors.Is(err, os.ErrClosed) {
		t.Error("the child's userfaultfd is closed while the tree is not yet killed")
	}
}

// TestTheLastWordIsSaidAgain: a keeper that stands still while the tree forks, then goes on, never hears that all is in place.
func TestTheLastWordIsSaidAgain(t *testing.T) {
	b := newBed(t, 64)
	b.ready()
	for {
		b.filler.mu.Lock()
		in := b.filler.spaces != nil && b.filler.missing == 0
		b.filler.mu.Unlock()
		if in {
			break
		}
		<-time.After(100 * time.Microsecond)
	}
	b.relay.mu.Lock() // attend stands at its next packet: a stopped keeper
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	go func() {
		_, err := b.filler.Fill(ctx, func(uint64, uint64) { <-time.After(2 * time.Second) })
		done <- err
	}()
	for { // vouched: as many children as fill the socket
		b.filler.mu.Lock()
		v := b.filler.vouched
		b.filler.mu.Unlock()
		if v {
			break
		}
		<-time.After(100 * time.Microsecond)
	}
	b.filler.mu.Lock()
	n := 0
	for b.filler.sayWith(nil, packetHeld) == nil {
		n++
	}
	b.filler.mu.Unlock()
	t.Logf("%d packets fill the socket", n)
	<-time.After(3500 * time.Millisecond)
	b.relay.mu.Unlock() // the keeper goes on
	select {
	case err := <-done:
		t.Log(err)
	case <-time.After(8 * time.Second):
		t.Error("the keeper goes on, and the filler still waits for it")
		b.filler.mu.Lock()
		b.filler.engine.Close()
		b.filler.mu.Unlock()
	}
}
