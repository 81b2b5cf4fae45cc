package record

import (
	"strings"
	"testing"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
)

func resolve(from migration.Phase, epoch migration.Epoch, d api.Decision, host string) Resolve {
	return Resolve{Migration: "m", From: from, Epoch: epoch, Decision: d, Host: host, Reason: "burnt"}
}

func TestEveryDecisionInEveryPhase(t *testing.T) {
	passed := Note{Migration: "m", Phase: migration.Released, ProbationOver: true}
	for _, c := range []struct {
		at    migration.Phase
		over  bool // probation is
		epoch migration.Epoch
		may   map[api.Decision]migration.Phase // where it leads
	}{
		{at: migration.Copying, epoch: 1},
		{at: migration.Held, epoch: 1},
		{at: migration.Committed, epoch: 2, may: map[api.Decision]migration.Phase{api.TargetIsDead: migration.Reclaimed, api.TargetIsAlive: migration.Released}},
		{at: migration.Released, epoch: 2, may: map[api.Decision]migration.Phase{api.TargetIsDead: migration.Reclaimed, api.TargetIsAlive: migration.Released}},
		{at: migration.Released, over: true, epoch: 2, may: map[api.Decision]migration.Phase{api.TargetIsDead: migration.Released, api.SourceIsDead: migration.Released}},
		{at: migration.Aborted, epoch: 1, may: map[api.Decision]migration.Phase{api.TargetIsDead: migration.Aborted, api.SourceIsDead: migration.Aborted}},
		{at: migration.Reclaimed, epoch: 3, may: map[api.Decision]migration.Phase{api.TargetIsDead: migration.Reclaimed, api.SourceIsDead: migration.Reclaimed}},
		{at: migration.Done, epoch: 2},
		{at: migration.RolledBack, epoch: 1},
	} {
		for _, d := range api.Decisions {
			b := at(t, c.at)
			if c.over {
				b.do(passed)
			}
			host := map[migration.Role]string{migration.Source: "a", migration.Target: "b"}[d.About()]
			err := b.try(resolve(c.at, c.epoch, d, host))
			to, may := c.may[d]
			m := b.Migrations["m"]
			switch {
			case !may && (err == nil || errs.KindOf(err) != errs.Conflict):
				t.Errorf("%s (probation over: %t) takes that the %s: %v", c.at, c.over, d, err)
			case may && (err != nil || m.Phase != to || len(m.Resolutions) != 1 || m.Resolutions[0].By != "test"):
				t.Errorf("%s (probation over: %t), %s: %v; it is %s with %+v", c.at, c.over, d, err, m.Phase, m.Resolutions)
			}
			if may && d != api.TargetIsAlive && b.try(resolve(to, b.Workloads["w"].Epoch, d, host)) == nil {
				t.Errorf("%s, %s was taken twice", c.at, d)
			}
		}
	}
}

func TestADecisionIsCompareAndSet(t *testing.T) {
	b := at(t, migration.Committed)
	for what, r := range map[string]Resolve{
		"another phase":   resolve(migration.Released, 2, api.TargetIsDead, "b"),
		"another epoch":   resolve(migration.Committed, 1, api.TargetIsDead, "b"),
		"the wrong host":  resolve(migration.Committed, 2, api.TargetIsDead, "a"),
		"no reason":       {Migration: "m", From: migration.Committed, Epoch: 2, Decision: api.TargetIsDead, Host: "b"},
		"a long reason":   {Migration: "m", From: migration.Committed, Epoch: 2, Decision: api.TargetIsDead, Host: "b", Reason: strings.Repeat("x", api.MaxReason+1)},
		"no such one":     {Migration: "n", From: migration.Committed, Epoch: 2, Decision: api.TargetIsDead, Host: "b", Reason: "r"},
		"another meaning": resolve(migration.Committed, 2, "target-is-tired", "b"),
	} {
		if err := b.try(r); err == nil {
			t.Errorf("%s: it was taken", what)
		}
	}
}

func TestATargetThatIsAliveEndsProbationAndReclaimIsRefusedAfterIt(t *testing.T) {
	b := at(t, migration.Released).do(resolve(migration.Released, 2, api.TargetIsAlive, "b"))
	if m := b.Migrations["m"]; !m.ProbationOver || m.Passed == nil || m.Passed.By != "test" {
		t.Errorf("probation over: %t, by %+v", m.ProbationOver, m.Passed)
	}
	if err := b.try(step(migration.Released, 2, migration.EvReclaim)); errs.KindOf(err) != errs.Conflict || err == nil {
		t.Errorf("RECLAIM after the source may be dead: %v", err)
	}
	b.do(resolve(migration.Released, 2, api.TargetIsDead, "b"))
	if m := b.Migrations["m"]; m.Phase != migration.Released || b.Workloads["w"].Owner != "b" {
		t.Errorf("a target that is dead after probation made it %s, owned by %s", m.Phase, b.Workloads["w"].Owner)
	}
}
