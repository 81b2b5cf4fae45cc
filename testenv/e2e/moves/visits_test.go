package moves

import (
	"slices"
	"testing"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/testenv/host/hosttest"
	workerapi "drover/worker/api"
)

// kept is what a host keeps of a workload, nil if nothing.
func (g *ground) kept(t *testing.T, host, workload string) *workerapi.Kept {
	t.Helper()
	var hosts []api.Host
	if err := g.JSON(t.Context(), &hosts, "hosts"); err != nil {
		t.Fatal(err)
	}
	for _, h := range hosts {
		if i := slices.IndexFunc(h.Facts.Kept, func(k workerapi.Kept) bool { return k.Workload == workload }); h.Name == host && i >= 0 {
			return &h.Facts.Kept[i]
		}
	}
	return nil
}

// quiet is a workload with 64 MiB of memory, of which it rewrites little.
func (g *ground) quiet(t *testing.T, name string) *restless {
	t.Helper()
	g.drover(t, "run", name, "--host", "alpha", "--", "dirtier", "-memory", "64M", "-working-set", "256K", "-rate", "20", "-verify", "500ms", "-say", "200ms")
	r := &restless{g, t, name}
	hosttest.Eventually(t, name+" writes", func() bool { return len(r.paces()) > 1 })
	return r
}

// TestATreeThatComesBackSendsLittle moves a tree away, back, and, once a move was aborted, away again: what a host has of it is not
// sent. The dirtier checks all of its memory.
func TestATreeThatComesBackSendsLittle(t *testing.T) {
	g := newGround(t, []string{"ceres"}, "alpha", "beta")
	r := g.quiet(t, "guest")
	move := func(to string) (first workerapi.Round) {
		t.Helper()
		m, err := g.Migrate(t.Context(), nil, r.name, to, "--compression", "none")
		if err != nil {
			t.Fatal(err)
		}
		p := m.Progress
		first = p.Rounds[0]
		t.Logf("to %s: %d pages kept, %d found; the first round sent %d of %d in %d bytes and %s, blackout %s",
			to, p.PagesKept, p.PagesFound, first.PagesSent, first.Track.Emitted, first.WireBytes, first.Took, m.Blackout)
		hosttest.Eventually(t, r.name+" is well on "+to, func() bool { return len(r.paces()) > 1 })
		return first
	}
	whole := move("beta")
	if whole.PagesFound != 0 || whole.WireBytes < 64<<20 {
		t.Errorf("the first move found %d pages and sent %d bytes", whole.PagesFound, whole.WireBytes)
	}
	hosttest.Eventually(t, "alpha says that it keeps its pages", func() bool {
		k := g.kept(t, "alpha", r.name)
		return k != nil && k.Bytes > 64<<20 && k.Bytes < 80<<20
	})
	if back := move("alpha"); back.PagesFound < 64<<8*9/10 || back.WireBytes > whole.WireBytes*3/100 {
		t.Errorf("the way back found %d pages and sent %d bytes, the way there %d", back.PagesFound, back.WireBytes, whole.WireBytes)
	}

	g.drover(t, "rm", "--force", r.name)
	hosttest.Eventually(t, "nothing is kept of what is no more", func() bool { return g.kept(t, "alpha", r.name) == nil && g.kept(t, "beta", r.name) == nil })
	r = g.quiet(t, "late")
	aborted := false
	m, err := g.Migrate(t.Context(), func(m api.Migration) {
		if m.Phase == migration.Copying && m.Progress.Round > 1 && !aborted {
			aborted = true
			g.drover(t, "abort", r.name)
		}
	}, r.name, "beta", "--compression", "none", "--downtime", "1ms", "--patience", "1m")
	if err == nil || !aborted {
		t.Fatalf("it was aborted %t and ended %s: %v", aborted, m.Phase, err)
	}
	hosttest.Eventually(t, "beta keeps what has come", func() bool { return g.kept(t, "beta", r.name) != nil })
	if again := move("beta"); again.PagesFound < 64<<8*9/10 || again.WireBytes > whole.WireBytes*3/100 {
		t.Errorf("the second try found %d pages and sent %d bytes", again.PagesFound, again.WireBytes)
	}
	g.drover(t, "rm", "--force", r.name)
	g.nothingLeft(t, 0)
}
