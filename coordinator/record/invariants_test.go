package record

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"drover/coordinator/api"
	"drover/internal/migration"
	"drover/internal/safety"
)

// TestWhateverIsProposedTheRecordKeepsItsPromises throws commands in any order at the record, right ones and stale ones, and
// holds its promises after each.
func TestWhateverIsProposedTheRecordKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		b := newBook(t).join("a", "b", "c")
		past := map[string]Workload{}
		verdicts := map[migration.ID]migration.Verdict{}
		for range rapid.IntRange(1, 60).Draw(r, "commands") {
			b.try(draw(r, b))
			promises(r, b, past, verdicts)
		}
	})
}

var (
	someHost     = rapid.SampledFrom([]string{"a", "b", "c", "x"})
	someWorkload = rapid.SampledFrom([]string{"v", "w"})
	someID       = rapid.SampledFrom([]migration.ID{"m1", "m2", "m3", "m4"})
	someEpoch    = rapid.Map(rapid.IntRange(0, 4), func(i int) migration.Epoch { return migration.Epoch(i) })
)

// draw is a command: mostly one that fits the record as it is, else anything.
func draw(r *rapid.T, b *book) Change {
	name, id := someWorkload.Draw(r, "workload"), someID.Draw(r, "id")
	w, m := b.Workloads[name], b.Migrations[id]
	epoch, owner, phase := w.Epoch, w.Owner, m.Phase
	if rapid.IntRange(0, 9).Draw(r, "stale") == 0 {
		epoch, owner = someEpoch.Draw(r, "epoch"), someHost.Draw(r, "owner")
		phase = rapid.SampledFrom(migration.Table).Draw(r, "phase").From
	}
	switch rapid.IntRange(0, 9).Draw(r, "kind") {
	case 0:
		return WorkloadAdd{Spec: spec(name), Owner: someHost.Draw(r, "host")}
	case 1:
		return WorkloadStarted{Name: name, Epoch: epoch}
	case 2:
		return WorkloadExited{Name: name, Epoch: epoch}
	case 3:
		return WorkloadRaise{Name: name, Epoch: epoch, Owner: someHost.Draw(r, "host")}
	case 4:
		return Admit{Migration: id, Workload: name, Source: owner, Target: someHost.Draw(r, "host"), Epoch: epoch, Deadline: epochZero.Add(time.Hour)}
	case 5:
		return Note{Migration: id, Phase: phase, ProbationOver: true}
	case 6:
		return WorkloadRemove{Name: name, Epoch: epoch}
	case 7:
		d := rapid.SampledFrom(api.Decisions).Draw(r, "decision")
		return Resolve{Migration: id, From: phase, Epoch: epoch, Decision: d, Host: m.Host(d.About()), Reason: "r"}
	}
	var evs []migration.Event
	at := phase
	for range rapid.IntRange(1, 5).Draw(r, "events") {
		var fits []migration.Event
		for _, row := range migration.Table {
			if row.From == at {
				fits = append(fits, row.On)
			}
		}
		if len(fits) == 0 {
			break
		}
		ev := rapid.SampledFrom(fits).Draw(r, "event")
		evs = append(evs, ev)
		at, _ = migration.Next(at, ev)
	}
	return Step{Migration: id, From: phase, Epoch: b.Workloads[m.Workload].Epoch, Events: evs}
}

// promises are what must hold after every command.
func promises(r *rapid.T, b *book, past map[string]Workload, verdicts map[migration.ID]migration.Verdict) {
	underWay := map[string]migration.ID{}
	for id, m := range b.Migrations {
		if !m.Phase.Final() {
			if other, two := underWay[m.Workload]; two {
				r.Fatalf("%s is moved by %s and by %s", m.Workload, id, other)
			}
			underWay[m.Workload] = id
		}
		if err := safety.VerdictStands(verdicts[id], m.Verdict()); err != nil {
			r.Fatalf("%s: %v", id, err)
		}
		verdicts[id] = m.Verdict()
		phase := m.Transitions[0].Phase
		if phase != migration.Admitted {
			r.Fatalf("%s began as %s", id, phase)
		}
		for _, tr := range m.Transitions[1:] {
			if !leads(phase, tr.Phase) {
				r.Fatalf("%s went from %s to %s", id, phase, tr.Phase)
			}
			phase = tr.Phase
		}
	}
	for name, w := range b.Workloads {
		if w.Owner == "" || w.Epoch == 0 {
			r.Fatalf("%s belongs to %q at epoch %d", name, w.Owner, w.Epoch)
		}
		if w.Migration != underWay[name] {
			r.Fatalf("%s says it is moved by %q, the migrations say %q", name, w.Migration, underWay[name])
		}
		if before, known := past[name]; known {
			if err := safety.EpochRises(before.Owner, before.Epoch, w.Owner, w.Epoch); err != nil {
				r.Fatalf("%s: %v", name, err)
			}
		}
		past[name] = w
	}
}

func leads(from, to migration.Phase) bool {
	for _, row := range migration.Table {
		if row.From == from && row.To == to {
			return true
		}
	}
	return false
}
