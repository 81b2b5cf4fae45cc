package session_test

import (
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"drover/engine/image"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/session"
)

var keeping = session.Stores{Keep: time.Hour}

// distinct is how many pages the tree has that are not zeros and not there twice.
func (p *pair) distinct() int64 {
	seen := map[string]bool{string(make([]byte, image.PageSize)): true}
	for _, pages := range p.tree.Memory() {
		for _, data := range pages {
			seen[string(data)] = true
		}
	}
	return int64(len(seen) - 1)
}

// keeps waits until a host keeps so many bytes of the workload, and nothing else.
func (p *pair) keeps(r *session.Registry, pages int64) {
	p.t.Helper()
	var all []workerapi.Kept
	for end := time.Now().Add(time.Minute); ; <-time.After(time.Millisecond) {
		all = r.Kept()
		if pages == 0 && len(all) == 0 || len(all) == 1 && all[0].Workload == name && all[0].Bytes == pages*image.PageSize {
			return
		}
		if time.Now().After(end) {
			p.t.Fatalf("it keeps %+v, not %d pages", all, pages)
		}
	}
}

// TestAMoveThatWasUndoneLeavesItsPagesForTheNext, at whatever point it was undone.
func TestAMoveThatWasUndoneLeavesItsPagesForTheNext(t *testing.T) {
	for _, phase := range []migration.Phase{migration.Copying, migration.Held} {
		for _, fills := range []bool{true, false} {
			p := newPairWith(t, keeping)
			if !fills {
				p.world.Fail("beta:fills", errs.New(errs.Unavailable, "no userfaultfd"))
			}
			p.upTo(phase)
			p.await(p.source, workerapi.StepReady)
			p.decide(p.source, migration.Abort)
			p.decide(p.target, migration.Abort)
			p.keeps(p.target, p.distinct())
			if got := p.target.Kept()[0]; got.Epoch != at || time.Until(got.Until) < 59*time.Minute {
				t.Errorf("got %+v", got)
			}

			p.id = "m-2"
			p.tree.Write(image.Space{Kind: image.Process, ID: 7}, 0x20000, 1)
			want := p.tree.Memory()
			p.upTo(migration.Released)
			st := p.state(p.source).Progress
			if st.PagesKept == 0 || st.PagesFound+1 < st.PagesKept || st.Rounds[0].PagesSent > 1 || st.Rounds[0].PagesFound != st.PagesFound {
				t.Errorf("the second one: %+v", st)
			}
			p.decide(p.source, migration.Commit)
			p.confirm(p.source)
			p.confirm(p.target)
			if !reflect.DeepEqual(p.beta.Copy(name).Memory(), want) {
				t.Error("the memory that arrived is not the memory that was frozen")
			}
			p.livesOnlyOn("beta")
			p.keeps(p.target, 0) // it runs there
		}
	}
}

// TestATreeThatComesBackFindsItsPages: the source has put them aside in probation.
func TestATreeThatComesBackFindsItsPages(t *testing.T) {
	p := newPairWith(t, keeping)
	p.upTo(migration.Released)
	n := p.distinct()
	p.decide(p.source, migration.Commit)
	p.keeps(p.source, n)
	p.confirm(p.source)
	p.confirm(p.target)
	p.keeps(p.source, n)
	p.livesOnlyOn("beta")

	tree := p.beta.Copy(name)
	tree.Write(image.Space{Kind: image.Process, ID: 7}, 0x20000, 1)
	want := tree.Memory()
	back := func(r migration.Role) workerapi.OpenRequest {
		req := p.request(r)
		req.Migration, req.Epoch = "m-back", at+1
		req.Source, req.Target = req.Target, req.Source
		return req
	}
	p.id = "m-back"
	if _, err := p.source.Open(t.Context(), back(migration.Target)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.target.Open(t.Context(), back(migration.Source)); err != nil {
		t.Fatal(err)
	}
	p.await(p.target, workerapi.StepReady)
	if err := p.target.CutOver(t.Context(), p.id, at+1); err != nil {
		t.Fatal(err)
	}
	p.await(p.source, workerapi.StepHeld)
	st := p.state(p.target).Progress
	if st.PagesKept != uint64(n) || st.PagesFound+1 < uint64(n) || st.Rounds[0].PagesSent > 1 {
		t.Errorf("the way back: %+v", st)
	}
	for _, r := range []*session.Registry{p.source, p.target} {
		if _, err := r.Decide(t.Context(), p.id, migration.Commit, at+2); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.target.Confirm(t.Context(), p.id, at+2); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(p.alpha.Copy(name).Memory(), want) {
		t.Error("the memory that arrived is not the memory that was frozen")
	}
	p.livesOnlyOn("alpha")
}

// TestATreeThatIsTakenBackIsNotKept: it goes on there, and what was put aside is of no use.
func TestATreeThatIsTakenBackIsNotKept(t *testing.T) {
	p := newPairWith(t, keeping)
	p.upTo(migration.Released)
	p.decide(p.source, migration.Commit)
	p.beta.Copy(name).Kill(9)
	p.until(p.target, func(s workerapi.SessionState) bool { return !s.Alive })
	p.decide(p.target, migration.Reclaim)
	p.decide(p.source, migration.Reclaim)
	p.keeps(p.source, 0)
	p.keeps(p.target, 0)
	p.livesOnlyOn("alpha")
}

// TestNobodyReadsATreeThatIsLetGo: what is being put aside of it is given up before it is ended, taken back, or its worker stops.
func TestNobodyReadsATreeThatIsLetGo(t *testing.T) {
	for what, let := range map[string]func(*pair){
		"hold-commit": func(p *pair) { p.confirm(p.source) },
		"hold-abort": func(p *pair) {
			p.beta.Copy(name).Kill(9)
			p.until(p.target, func(s workerapi.SessionState) bool { return !s.Alive })
			p.decide(p.target, migration.Reclaim)
			p.decide(p.source, migration.Reclaim)
		},
		"": func(p *pair) { p.source.Close() },
	} {
		p := newPairWith(t, keeping)
		p.upTo(migration.Released)
		var reads atomic.Bool
		reading := make(chan struct{})
		p.world.Before("alpha:memory", func() {
			reads.Store(true)
			close(reading)
			<-time.After(50 * time.Millisecond) // in which the tree would be let go
			reads.Store(false)
		})
		p.world.Before("alpha:"+what, func() {
			if reads.Load() {
				t.Errorf("%s while the tree was read", what)
			}
		})
		p.decide(p.source, migration.Commit)
		<-reading
		if let(p); reads.Load() {
			t.Errorf("%q is over, and the tree is read", what)
		}
		p.keeps(p.source, 0)
	}
}

func TestWhatIsKeptGoesWhenAnythingElseNeedsTheMemory(t *testing.T) {
	other := func(p *pair) workerapi.OpenRequest {
		req := p.request(migration.Target)
		req.Migration, req.Spec.Name, req.Inventory.Spec.Name, req.Inventory.Workload = "m-other", "other", "other", "other"
		return req
	}
	undone := func(stores session.Stores) *pair {
		p := newPairWith(t, stores)
		p.upTo(migration.Copying)
		p.await(p.source, workerapi.StepReady)
		p.decide(p.source, migration.Abort)
		p.decide(p.target, migration.Abort)
		return p
	}
	// a limit: the other one's store has no room beside it
	p := undone(session.Stores{Keep: time.Hour, Memory: 1<<20 + 4096})
	p.keeps(p.target, p.distinct())
	if _, err := p.target.Open(t.Context(), other(p)); err != nil {
		t.Fatal(err)
	}
	p.keeps(p.target, 0)
	// one that leaves room for it
	p = undone(session.Stores{Keep: time.Hour, Memory: 2 << 20})
	p.keeps(p.target, p.distinct())
	if _, err := p.target.Open(t.Context(), other(p)); err != nil {
		t.Fatal(err)
	}
	p.keeps(p.target, p.distinct())
	// memory that something else on the host has taken
	p = undone(keeping)
	p.keeps(p.target, p.distinct())
	p.free.Store(100 << 20)
	p.keeps(p.target, 0)
	// and that is counted as free for a tree that comes
	p = undone(keeping)
	n := p.distinct()
	p.keeps(p.target, n)
	if room, err := p.target.Room(); err != nil || room.Memory != 1<<30+n*image.PageSize {
		t.Errorf("%+v, %v", room, err)
	}
	// a limit that it does not fit into by itself, and none at all
	p = undone(session.Stores{Keep: time.Hour, Memory: 1 << 20})
	p.keeps(p.target, p.distinct())
	p = undone(session.Stores{})
	p.keeps(p.target, 0)
	p.target.Close()
}

func TestWhatIsKeptIsOldOneDayOrOfAWorkloadThatIsNoMore(t *testing.T) {
	p := newPairWith(t, session.Stores{Keep: 1500 * time.Millisecond})
	p.upTo(migration.Copying)
	p.await(p.source, workerapi.StepReady)
	p.decide(p.source, migration.Abort)
	p.decide(p.target, migration.Abort)
	p.keeps(p.target, p.distinct())
	p.keeps(p.target, 0)

	p = newPairWith(t, keeping)
	p.upTo(migration.Copying)
	p.await(p.source, workerapi.StepReady)
	p.decide(p.source, migration.Abort)
	p.decide(p.target, migration.Abort)
	p.keeps(p.target, p.distinct())
	p.target.Forget("somebody-else")
	p.keeps(p.target, p.distinct())
	p.target.Forget(name)
	p.keeps(p.target, 0)
}

// TestADryRunKeepsOnlyWhatItHasFound.
func TestADryRunKeepsOnlyWhatItHasFound(t *testing.T) {
	p := newPairWith(t, keeping)
	run := func(id migration.ID) workerapi.SessionState {
		p.id = id
		for _, r := range []migration.Role{migration.Target, migration.Source} {
			req := p.request(r)
			req.DryRun = true
			if _, err := map[migration.Role]*session.Registry{migration.Target: p.target, migration.Source: p.source}[r].Open(t.Context(), req); err != nil {
				t.Fatal(err)
			}
		}
		p.until(p.source, func(s workerapi.SessionState) bool { return s.Progress.Forecast != nil })
		st := p.state(p.source)
		p.decide(p.source, migration.Abort)
		p.decide(p.target, migration.Abort)
		return st
	}
	run("m-dry")
	p.keeps(p.target, 0)
	p.id = "m-1"
	p.upTo(migration.Copying)
	p.await(p.source, workerapi.StepReady)
	p.decide(p.source, migration.Abort)
	p.decide(p.target, migration.Abort)
	p.keeps(p.target, p.distinct())
	if st := run("m-dry-2"); st.Progress.PagesFound == 0 {
		t.Errorf("it found nothing: %+v", st.Progress)
	}
	p.keeps(p.target, p.distinct())
	if strings.Contains(strings.Join(p.world.Steps(), " "), "freeze") {
		t.Error("a dry run froze the tree")
	}
}
