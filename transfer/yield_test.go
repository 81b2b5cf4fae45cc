package transfer

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestAThreadYieldsAndTheOthersDoNot(t *testing.T) {
	niceOf := func(id int) int {
		raw, err := unix.Getpriority(unix.PRIO_PROCESS, id)
		if err != nil {
			t.Error(err)
		}
		return 20 - raw
	}
	base := niceOf(0)
	done := make(chan struct{})
	go func() {
		defer close(done)
		own := ownThread()
		own.yield(true)
		if n := niceOf(own.id); n != min(base+yielding, 19) {
			t.Errorf("it has niceness %d, the others %d", n, base)
		}
		own.yield(false) // in the freeze nobody is to be yielded to
		if n := niceOf(own.id); n != base {
			t.Errorf("it has niceness %d and no longer yields", n)
		}
	}()
	<-done
	if n := niceOf(0); n != base {
		t.Errorf("another thread has niceness %d", n)
	}
}
