package engine_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"drover/engine"
	"drover/engine/image"
	"drover/engine/track"
)

// churnFor is how long TestTrackersUnderDrawnChurn goes on; churnEnv carries it to the host.
var churnFor = flag.Duration("churn", 45*time.Second, "how long to draw programs for the trackers; 10m and the like need a -timeout of some minutes more")

const churnEnv = "DROVER_ENGINETEST_CHURN"

type makeTracker func(engine.Tree) track.Tracker

// trackers are those that look at a tree by themselves; what CRIU's rounds are worth, testenv/vm finds out.
var trackers = map[string]makeTracker{
	"hash": track.NewHash,
	"wp":   func(t engine.Tree) track.Tracker { return newWP(t) },
}

func TestWhatTrackersHandOverIsTheTreesMemoryByteForByte(t *testing.T) {
	onHost(t, func() {
		for name, make := range trackers {
			for _, c := range []churn{
				{rate: 50, changes: 5, processes: 2, memory: "16M"},
				{rate: 1000, changes: 100, processes: 3, memory: "4M"},
				{rate: 20000, changes: 1000, processes: 2, memory: "8M"},
				{rate: 200000, changes: 50, processes: 1, memory: "8M"},
			} {
				t.Run(fmt.Sprintf("%s/%d writes %d changes a second", name, c.rate, c.changes), func(t *testing.T) {
					seen := c.prove(t, make, 3, 6)
					t.Logf("%+v", seen)
					if c.rate < 100 && name == "wp" && seen.changed > seen.same {
						t.Errorf("a tree that writes little: %+v", seen)
					}
				})
			}
		}
	}, "./testenv/victims/churn")
}

func TestTrackersUnderDrawnChurn(t *testing.T) {
	onHost(t, func() {
		lasts, err := time.ParseDuration(os.Getenv(churnEnv))
		must(t, err)
		total, end := sight{}, time.Now().Add(lasts)
		for time.Now().Before(end) {
			c := churn{
				seed: rand.Uint64(), rate: 1 << rand.IntN(18), changes: 1 << rand.IntN(12), processes: 1 + rand.IntN(4), threads: rand.IntN(4),
				memory: strconv.Itoa(1<<rand.IntN(6)) + "M",
			}
			seen := c.prove(t, trackers["wp"], 1+rand.IntN(3), 1+rand.IntN(10))
			if t.Failed() {
				t.Fatalf("with %+v", c)
			}
			total.add(seen)
		}
		t.Logf("%+v", total)
		if total.differed == 0 || total.same == 0 || total.early == 0 {
			t.Error("nothing was proved")
		}
	}, "./testenv/victims/churn")
}

// churn is a program that changes its memory.
type churn struct {
	seed                              uint64
	rate, changes, processes, threads int
	memory                            string
}

// sight is what was seen of a frozen tree's pages.
type sight struct {
	same, changed uint64 // by the tracker's word
	differed      uint64 // of those that changed: others than handed over; if there were none, a comparison would prove nothing
	early         uint64 // of those that changed: handed over in the freeze, before the rest
	zero          uint64
	freezes       int
}

func (s *sight) add(o sight) {
	s.same, s.changed, s.differed, s.early = s.same+o.same, s.changed+o.changed, s.differed+o.differed, s.early+o.early
	s.zero, s.freezes = s.zero+o.zero, s.freezes+o.freezes
}

// prove runs the program, makes rounds, freezes it, and compares what the rounds have handed over with what it has; several times.
func (c churn) prove(t *testing.T, make makeTracker, freezes, rounds int) (seen sight) {
	v := startOutside(t, "churn", "-seed", fmt.Sprint(c.seed), "-rate", fmt.Sprint(c.rate), "-changes", fmt.Sprint(c.changes),
		"-processes", fmt.Sprint(c.processes), "-threads", fmt.Sprint(c.threads), "-memory", c.memory, "-say", "20ms")
	v.works(t)
	tracker := make(v.tree)
	got := received{}
	for range freezes {
		for range rounds {
			round := received{}
			twice := uint64(0)
			st, err := tracker.Round(t.Context(), func(sp image.Space, addr uint64, data []byte) error {
				twice += round.has(sp, addr, len(data))
				return errors.Join(round.take(sp, addr, data), got.take(sp, addr, data))
			})
			must(t, err)
			if twice > 0 {
				t.Errorf("%d pages were handed over twice in one round: %+v", twice, st)
			}
			if st.Tracker != tracker.Name() || st.Fallback != "" {
				t.Errorf("a round was made by %s: %s", st.Tracker, st.Fallback)
			}
			v.works(t)
		}
		v.freeze(t, true)
		seen.add(v.compare(t, tracker, got))
		seen.freezes++
		v.freeze(t, false)
		if t.Failed() {
			break
		}
	}
	must(t, tracker.Close())
	v.untouched(t)
	v.ends(t)
	return seen
}

// received is what a target would have: pages by space and address.
type received map[image.Space]map[uint64][]byte

func (r received) take(sp image.Space, addr uint64, data []byte) error {
	if r[sp] == nil {
		r[sp] = map[uint64][]byte{}
	}
	for i := 0; i < len(data); i += image.PageSize {
		r[sp][addr+uint64(i)] = slices.Clone(data[i : i+image.PageSize])
	}
	return nil
}

// has is how many of so many bytes' pages have come already.
func (r received) has(sp image.Space, addr uint64, bytes int) (n uint64) {
	for i := 0; i < bytes; i += image.PageSize {
		if r[sp][addr+uint64(i)] != nil {
			n++
		}
	}
	return n
}

func (r received) clone() received {
	c := received{}
	for sp, pages := range r {
		c[sp] = maps.Clone(pages)
	}
	return c
}

// compare looks at every page of the frozen tree by other means than the tracker's: at what the rounds are worth, and at what they are worth
// with what is handed over early in the freeze, which the next round must not rely on.
func (v *outside) compare(t *testing.T, tracker track.Tracker, got received) sight {
	t.Helper()
	exact, ok := tracker.(track.Exact)
	if !ok {
		_, err := tracker.Round(t.Context(), got.take) // it can do nothing but look at all, which then is complete
		must(t, err)
		return v.pages(t, got, nil, true)
	}
	changes, err := exact.Changed(t.Context())
	must(t, err)
	seen := v.pages(t, got, changes, false)
	early := got.clone()
	must(t, changes.HandOver(t.Context(), early.take))
	after := v.pages(t, early, changes, false)
	seen.early = seen.changed - after.changed
	return seen
}

// pages compares each page with what has been handed over for it last; complete says that all are to be equal, whatever changes says.
func (v *outside) pages(t *testing.T, got received, changes *track.Changes, complete bool) (seen sight) {
	t.Helper()
	for _, pid := range v.pids() {
		inner := uint64(pid) // the host has a pid namespace of its own, and the tree has the host's
		have := got[image.Space{Kind: image.Process, ID: inner}]
		err := eachOwnPage(pid, func(addr uint64, data []byte, zero bool) error {
			if zero { // a dump does not list it
				seen.zero++
				return nil
			}
			was := have[addr]
			equal := was != nil && string(was) == string(data)
			return changes.Split(inner, addr, addr+image.PageSize, func(_, _ uint64, same bool) error {
				switch {
				case same || complete:
					seen.same++
					if !equal {
						return fmt.Errorf("page %#x of pid %d is not what was handed over (handed over at all: %v)", addr, pid, was != nil)
					}
				default:
					seen.changed++
					if !equal {
						seen.differed++
					}
				}
				return nil
			})
		})
		if err != nil {
			t.Error(err)
		}
	}
	return seen
}
