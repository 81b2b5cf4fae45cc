package fake_test

import (
	"context"
	"os"
	"testing"

	"drover/engine"
	"drover/engine/enginetest"
	"drover/engine/fake"
)

func TestTheModelKeepsTheContract(t *testing.T) {
	for name, cfg := range map[string]fake.Config{"without soft-dirty": {}, "with soft-dirty": {SoftDirty: true}} {
		t.Run(name, func(t *testing.T) { enginetest.Run(t, ground{fake.New(cfg)}) })
	}
}

// ground is the model as the suite wants it.
type ground struct{ e *fake.Engine }

func (g ground) Engine() engine.Engine { return g.e }

func (g ground) Pass(testing.TB) { g.e.Tick(7) }

func (g ground) LoseEngine(_ testing.TB, h engine.Hold) { g.e.LoseHolds() }

func (g ground) Start(t testing.TB) enginetest.Subject {
	s := &subject{e: g.e}
	s.tree = g.e.Start(fake.Spec{Cgroup: t.TempDir()})
	g.e.Tick(100)
	t.Cleanup(func() {
		if err := g.e.Kill(context.Background(), s.tree); err != nil {
			t.Error(err)
		}
	})
	return s
}

type subject struct {
	e    *fake.Engine
	tree engine.Tree
}

func (s *subject) Tree() engine.Tree { return s.tree }

func (s *subject) StoppedBy(string) engine.Tree { return s.tree }

func (s *subject) Options() engine.Options { return engine.Options{} }

func (s *subject) Look(testing.TB) map[int]enginetest.Process {
	v, _ := s.e.Look(s.tree)
	all := map[int]enginetest.Process{}
	for _, p := range v.Processes {
		all[p.Pid] = enginetest.Process{Work: p.Work, Stopped: p.Stopped}
	}
	return all
}

func (s *subject) Stop(_ testing.TB, pid int)   { s.e.Stop(s.tree, pid) }
func (s *subject) Resume(_ testing.TB, pid int) { s.e.Resume(s.tree, pid) }

func (s *subject) Into(images *os.File) engine.RestoreRequest {
	return engine.RestoreRequest{Images: images, Cgroup: s.tree.Cgroup}
}

func (s *subject) Restored(pid int) { s.tree.Pid = pid }

// Verify has nothing to do: the model checks every page when it restores.
func (s *subject) Verify(testing.TB) {}
