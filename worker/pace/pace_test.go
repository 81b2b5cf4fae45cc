package pace

import (
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestTheShareIsKept works on as many processors as there are and looks at what the kernel says that it cost, not at what was done.
func TestTheShareIsKept(t *testing.T) {
	const lasts = 1500 * time.Millisecond
	for _, percent := range []int{10, 50} {
		c := NewCPU(percent)
		ctx, end := context.WithTimeout(t.Context(), lasts)
		before, begun := processorTime(), time.Now()
		var stopped = make(chan error)
		for range runtime.NumCPU() {
			go func() {
				block := make([]byte, 1<<20)
				for {
					sha256.Sum256(block)
					if _, err := c.Wait(ctx); err != nil {
						stopped <- err
						return
					}
				}
			}()
		}
		for range runtime.NumCPU() {
			if err := <-stopped; !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		}
		end()
		used, took := processorTime()-before, time.Since(begun)
		share := float64(used) / float64(took) / float64(runtime.NumCPU()) * 100
		t.Logf("%d %%: %.1f %%, %s of %s", percent, share, used, took)
		if share > 1.25*float64(percent)+1 { // less is no fault: a machine that is busy gives less
			t.Errorf("%.1f %% of the processors were used, %d %% were allowed", share, percent)
		}
	}
}

func TestWhatWasNotUsedIsNotSavedUp(t *testing.T) {
	var at, used time.Duration
	c := newCPU(0.5, func() (time.Duration, time.Duration) { return at, used })
	owes := func(want time.Duration, when string) {
		t.Helper()
		if got := c.owes(); got != want {
			t.Errorf("%s it owes %s, want %s", when, got, want)
		}
	}
	owes(0, "at first")
	at, used = time.Second, 500*time.Millisecond
	owes(0, "after its share")
	at, used = 2*time.Second, 1100*time.Millisecond
	owes(100*time.Millisecond, "after more")
	at = 2200 * time.Millisecond
	owes(0, "when it has waited")
	at = time.Hour
	owes(-burst/2, "after an hour of rest")
}

func TestWhatWasUsedWhileNobodyAskedStopsNoCopyForLong(t *testing.T) {
	var at, used time.Duration
	c := newCPU(0.5, func() (time.Duration, time.Duration) { return at, used })
	at, used = time.Hour, time.Hour // trees came, and nobody copied
	if got, want := c.owes(), longest/2; got != want {
		t.Errorf("it owes %s, want %s", got, want)
	}
	at += longest
	if got := c.owes(); got > 0 {
		t.Errorf("after %s it owes %s still", longest, got)
	}
}

func TestWithoutAShareNobodyWaits(t *testing.T) {
	for _, percent := range []int{0, 100, 250} {
		if waited, err := NewCPU(percent).Wait(t.Context()); waited != 0 || err != nil {
			t.Errorf("%d %%: waited %s: %v", percent, waited, err)
		}
	}
}

// nices are the nice values of this process's threads.
func nices(t *testing.T) map[int]bool {
	t.Helper()
	all, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	found := map[int]bool{}
	for _, thread := range all {
		id, err := strconv.Atoi(thread.Name())
		if err != nil {
			t.Fatal(err)
		}
		found[niceOf(id)] = true
	}
	return found
}

func TestCopyingHasALowerPriorityButNotWhileATreeStandsStill(t *testing.T) {
	want := func(value int, when string) {
		t.Helper()
		if got := nices(t); len(got) != 1 || !got[value] {
			t.Errorf("%s: the threads have the nice values %v, want %d", when, got, value)
		}
	}
	low := min(started+7, MostNice)
	n, err := NewNice(low)
	if err != nil {
		t.Fatal(err)
	}
	runtime.GC() // so that there are several
	want(started, "at first")
	first, second := n.Copy(), n.Copy()
	want(low, "two are copied")
	hurry := n.Hurry()
	want(started, "one stands still")
	first()
	hurry()
	hurry()
	want(low, "the other one is copied still")
	if err := Normally(func() error {
		out, err := exec.Command("nice").Output() // says what it has
		if got := strings.TrimSpace(string(out)); got != strconv.Itoa(started) {
			t.Errorf("a process was started with nice value %s", got)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	want(low, "after another process was started")
	second()
	want(started, "at the end")
}

func TestWithoutANiceValueNothingIsChanged(t *testing.T) {
	n, err := NewNice(0)
	if n != nil || err != nil {
		t.Fatalf("%v, %v", n, err)
	}
	defer n.Copy()()
	defer n.Hurry()()
	if got := nices(t); len(got) != 1 || !got[started] {
		t.Errorf("the threads have the nice values %v", got)
	}
}
