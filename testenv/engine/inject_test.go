package engine_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"drover/engine/image"
	"drover/engine/track"
	"drover/engine/track/inject"
)

func ignore(image.Space, uint64, []byte) error { return nil }

// startPatient starts a patient and returns when it works.
func startPatient(t testing.TB, what string) *outside {
	t.Helper()
	t.Setenv(patientEnv, what)
	v := startOutside(t, "/usr/local/bin/enginetest")
	v.works(t)
	return v
}

func TestAProcessDoesNotNoticeThatItIsWatched(t *testing.T) {
	onHost(t, func() {
		all := []string{"has a seccomp filter", "is nobody"}
		for name := range patients {
			all = append(all, name)
		}
		slices.Sort(all)
		for _, what := range all {
			t.Run(what, func(t *testing.T) {
				v := startPatient(t, what)
				for range 40 {
					tr := newWP(v.tree)
					st, err := tr.Round(t.Context(), ignore)
					must(t, err)
					if st.Tracker != "wp" || st.Fallback != "" || st.Emitted == 0 || st.Stopped == 0 {
						t.Fatalf("%+v", st)
					}
					must(t, tr.Close())
				}
				v.untouched(t)
				eventually(t, "its mask is its own", func() bool { return v.blocked(t) == patientMask })
				v.works(t)
				v.ends(t)
			})
		}
	})
}

// blocked are the signals that the main thread blocks.
func (v *outside) blocked(t *testing.T) uint64 {
	t.Helper()
	mask := blockedBy(fmt.Sprintf("/proc/%d", v.tree.Pid))
	if mask == 0 {
		t.Fatal("its main thread blocks nothing, or has ended")
	}
	return mask
}

// blockedBy are the signals that a thread, a directory in /proc, blocks; 0 if it has ended.
func blockedBy(thread string) (mask uint64) {
	b, _ := os.ReadFile(thread + "/status")
	_, line, _ := strings.Cut(string(b), "SigBlk:")
	_, _ = fmt.Sscanf(line, "%x", &mask)
	return mask
}

func TestAStoppedProcessStaysStopped(t *testing.T) {
	onHost(t, func() {
		v := startPatient(t, "sleeps")
		must(t, unix.Kill(v.tree.Pid, unix.SIGSTOP))
		eventually(t, "it stops", func() bool { return stopped(v.tree.Pid) })
		for range 20 {
			tr := newWP(v.tree)
			st, err := tr.Round(t.Context(), ignore)
			if must(t, err); st.Tracker != "wp" {
				t.Fatalf("%+v", st)
			}
			must(t, tr.Close())
		}
		eventually(t, "it is stopped again", func() bool { return stopped(v.tree.Pid) })
		must(t, unix.Kill(v.tree.Pid, unix.SIGCONT))
		v.works(t)
		v.ends(t)
	})
}

func TestAProcessThatCannotBeWatchedIsHashed(t *testing.T) {
	onHost(t, func() {
		v := startPatient(t, "has no descriptor left")
		tr := newWP(v.tree)
		for range 2 {
			st, err := tr.Round(t.Context(), ignore)
			must(t, err)
			if st.Tracker != "hash" || !strings.Contains(st.Fallback, unix.EMFILE.Error()) || st.Scanned == 0 {
				t.Errorf("%+v", st)
			}
		}
		must(t, tr.Close())
		v.works(t)
		v.ends(t)

		d := startPatient(t, "reads past the page cache")
		tr = newWP(d.tree)
		st, err := tr.Round(t.Context(), ignore)
		if must(t, err); st.Tracker != "hash" || !strings.Contains(st.Fallback, "O_DIRECT") {
			t.Errorf("%+v", st)
		}
		must(t, tr.Close())
		d.untouched(t)
		d.ends(t)

		c := startOutside(t, "churn", "-processes", "2", "-say", "20ms")
		c.works(t)
		one := c.pids()[1]
		release := traceAway(t, one)
		tr, got := newWP(c.tree), received{}
		for range 5 {
			st, err := tr.Round(t.Context(), got.take)
			must(t, err)
			if st.Tracker != "wp" || !strings.Contains(st.Fallback, fmt.Sprintf("pid %d", one)) {
				t.Errorf("one of two processes is traced by another: %+v", st)
			}
		}
		c.freeze(t, true)
		if seen := c.compare(t, tr, got); seen.same == 0 || seen.changed == 0 {
			t.Errorf("%+v", seen)
		}
		c.freeze(t, false)
		must(t, tr.Close())
		release()
		c.ends(t)
	}, "./testenv/victims/churn")
}

// traceAway traces a process, as a debugger does, until release is called.
func traceAway(t *testing.T, pid int) (release func()) {
	t.Helper()
	begun, end, ended := make(chan error), make(chan struct{}), make(chan struct{})
	onThreadThatEnds(func() {
		defer close(ended)
		begun <- seizeAsDebugger(pid)
		<-end // the thread that traces ends with it, and so does the tracing
	})
	must(t, <-begun)
	return func() { close(end); <-ended }
}

// Another thread's file is neither taken for the userfaultfd nor closed in its place; of the last look at it and the close some microseconds are left.
func TestAThreadThatTakesTheDescriptorsNumberKeepsItsFile(t *testing.T) {
	onHost(t, func() {
		const times = 100
		v := startPatient(t, "takes a descriptor that appears")
		taken := 0
		for range times {
			tr := newWP(v.tree)
			st, err := tr.Round(t.Context(), ignore)
			must(t, err)
			switch {
			case st.Tracker == "wp" && st.Fallback == "":
			case strings.Contains(st.Fallback, inject.ErrTaken.Error()):
				taken++
			default:
				t.Fatalf("%+v", st)
			}
			must(t, tr.Close())
		}
		v.works(t)
		lost := 0
		for _, line := range v.reports(t) {
			if line == lostIt {
				lost++
			}
		}
		t.Logf("of %d times it took the number %d times, and lost its file %d times", times, taken, lost)
		if taken < times/10 || 4*lost > taken {
			t.Errorf("of %d times it took the number %d times, and lost its file %d times", times, taken, lost)
		}
		v.untouched(t)
		v.ends(t)
	})
}

func TestProgramsThatFollowEachOtherAreFollowed(t *testing.T) {
	onHost(t, func() {
		v := startPatient(t, "runs program after program")
		tr := newWP(v.tree)
		for range 60 {
			st, err := tr.Round(t.Context(), ignore)
			must(t, err)
			if st.Fallback != "" {
				t.Errorf("%+v", st)
			}
		}
		v.works(t)
		for range 200 { // a program may begin between the look for a way into the one before and the way in
			again := newWP(v.tree)
			_, err := again.Round(t.Context(), ignore)
			must(t, err)
			must(t, again.Close())
		}
		v.works(t)
		for range 10 { // whatever it was doing when it was frozen
			got := received{}
			whole := newWP(v.tree)
			_, err := whole.Round(t.Context(), got.take)
			must(t, err)
			v.freeze(t, true)
			v.compare(t, whole, got)
			v.freeze(t, false)
			must(t, whole.Close())
		}
		must(t, tr.Close())
		v.untouched(t)
		v.works(t)
	})
}

func TestADescriptorThatAChildInheritedIsClosed(t *testing.T) {
	onHost(t, func() {
		v := startPatient(t, "has a child with its userfaultfd")
		child := v.pids()[slices.IndexFunc(v.pids(), func(pid int) bool { return pid != v.tree.Pid })]
		pidfd, err := unix.PidfdOpen(child, 0)
		must(t, err)
		defer unix.Close(pidfd)
		fd, err := unix.PidfdGetfd(pidfd, leakedFd, 0)
		must(t, err)
		defer unix.Close(fd)
		stray := inject.Uffd{FD: fd, Number: leakedFd}
		if !inject.Stray(child, stray) || inject.Stray(v.tree.Pid, inject.Uffd{FD: fd, Number: 0}) {
			t.Error("the copy is not known from others")
		}
		i, err := startInjector()
		must(t, err)
		defer i.Close()
		must(t, i.CloseStray(t.Context(), child, pidfd, stray))
		if _, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", child, leakedFd)); err == nil || inject.Stray(child, stray) {
			t.Error("it is still there")
		}
		if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", child)); filepath.Base(exe) != "sleep" {
			t.Errorf("the child is gone: %q", exe)
		}
	})
}

func TestATrackerThatFailsCostsTheTreeNothing(t *testing.T) {
	onHost(t, func() {
		v := startOutside(t, "churn", "-rate", "2000", "-changes", "200", "-memory", "4M", "-say", "20ms")
		v.works(t)
		wp := &brokenOff{Exact: newWP(v.tree), good: 3}
		tr := track.NewFalling([]string{"wp", "hash"}, func(name string) track.Tracker {
			if name == "wp" {
				return wp
			}
			return track.NewHash(v.tree)
		}, nil)
		got := received{}
		for i := range 6 {
			st, err := tr.Round(t.Context(), got.take)
			must(t, err)
			if failed := i >= wp.good; failed != strings.Contains(st.Fallback, "wp failed, hash began anew: it broke") || failed != (tr.Name() == "hash") {
				t.Errorf("round %d by %s: %+v", i, tr.Name(), st)
			}
			v.works(t)
		}
		v.untouched(t)
		if _, exact := track.AsExact(tr); exact {
			t.Error("it pretends to know what it did not watch")
		}
		v.freeze(t, true)
		if seen := v.compare(t, tr, got); seen.same == 0 {
			t.Errorf("%+v", seen)
		}
		v.freeze(t, false)
		must(t, tr.Close())
		v.ends(t)
	}, "./testenv/victims/churn")
}

// brokenOff is a tracker whose rounds break off in their middle after some good ones.
type brokenOff struct {
	track.Exact
	good int
	made int
}

func (b *brokenOff) Round(ctx context.Context, emit func(image.Space, uint64, []byte) error) (track.RoundStats, error) {
	if b.made++; b.made <= b.good {
		return b.Exact.Round(ctx, emit)
	}
	n, broke := 0, errors.New("it broke")
	return b.Exact.Round(ctx, func(s image.Space, addr uint64, data []byte) error {
		if n++; n > 2 {
			return broke
		}
		return emit(s, addr, data)
	})
}

func TestTwoTrackersDoNotMisleadEachOther(t *testing.T) {
	onHost(t, func() {
		v := startOutside(t, "churn", "-rate", "500", "-changes", "50", "-memory", "4M", "-say", "20ms")
		v.works(t)
		first := newWP(v.tree)
		_, err := first.Round(t.Context(), ignore)
		must(t, err)
		second, got := newWP(v.tree), received{}
		for range 3 {
			_, err := first.Round(t.Context(), ignore)
			must(t, err)
			_, err = second.Round(t.Context(), got.take)
			must(t, err)
			v.works(t)
		}
		v.freeze(t, true)
		v.compare(t, second, got)
		v.freeze(t, false)
		must(t, first.Close())
		for range 3 {
			_, err = second.Round(t.Context(), got.take)
			must(t, err)
			v.works(t)
		}
		v.freeze(t, true)
		if seen := v.compare(t, second, got); seen.same == 0 {
			t.Errorf("the one that is left: %+v", seen)
		}
		v.freeze(t, false)
		must(t, second.Close())
		v.untouched(t)
		v.ends(t)
	}, "./testenv/victims/churn")
}

func TestAReceiversErrorEndsARoundAndTheNextHandsOverAll(t *testing.T) {
	onHost(t, func() {
		v := startOutside(t, "churn", "-rate", "0", "-changes", "0", "-threads", "1", "-processes", "1", "-memory", "8M", "-say", "20ms")
		v.works(t)
		for name, make := range trackers {
			tr, full := make(v.tree), errors.New("full")
			first, err := tr.Round(t.Context(), ignore)
			must(t, err)
			v.works(t)
			if _, err := tr.Round(t.Context(), func(image.Space, uint64, []byte) error { return full }); !errors.Is(err, full) {
				t.Errorf("%s: got %v", name, err)
			}
			got := received{}
			st, err := tr.Round(t.Context(), got.take)
			must(t, err)
			if name == "wp" && st.Emitted < first.Emitted/2 {
				t.Errorf("%s: %d pages after the round that failed, %d in the first", name, st.Emitted, first.Emitted)
			}
			must(t, tr.Close())
		}
		v.ends(t)
	}, "./testenv/victims/churn")
}
