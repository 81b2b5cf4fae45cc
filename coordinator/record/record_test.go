package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	"drover/internal/workload"
	workerapi "drover/worker/api"
)

var epochZero = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// book is a record under test with its own log index and clock.
type book struct {
	t testing.TB
	*State
	index uint64
}

func newBook(t testing.TB) *book { return &book{t, New(), 0} }

// try applies a change through the wire form and says what came of it; a refused one must have left no trace.
func (b *book) try(c Change) error {
	b.t.Helper()
	b.index++
	cmd, err := NewCommand(fmt.Sprintf("id-%d", b.index), epochZero.Add(time.Duration(b.index)*time.Second), "test", c)
	if err != nil {
		b.t.Fatal(err)
	}
	before := b.json()
	err = b.Apply(b.index, cmd)
	if err != nil && b.json() != before {
		b.t.Errorf("%T was refused (%v) and changed the record", c, err)
	}
	return err
}

// do is try for what must succeed.
func (b *book) do(changes ...Change) *book {
	b.t.Helper()
	for _, c := range changes {
		if err := b.try(c); err != nil {
			b.t.Fatalf("%T: %v", c, err)
		}
	}
	return b
}

func (b *book) json() string {
	out, err := json.Marshal(b.State)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(out)
}

// join adds hosts.
func (b *book) join(names ...string) *book {
	b.t.Helper()
	for _, n := range names {
		b.do(TokenNew{Hash: "token-" + n, Role: "worker", Expires: epochZero.Add(time.Hour)},
			HostJoin{Name: n, Address: n + ":7202", Token: "token-" + n, Key: "key-" + n})
	}
	return b
}

// settled is a record with hosts a, b, c and the workload w running on a.
func settled(t testing.TB) *book {
	t.Helper()
	return newBook(t).join("a", "b", "c").do(WorkloadAdd{Spec: spec("w"), Owner: "a"}, WorkloadStarted{Name: "w", Epoch: 1})
}

func spec(name string) workload.Spec {
	return workload.Spec{Name: name, Kind: workload.Run, Command: []string{"x"}}
}

func admit(id string) Admit {
	return Admit{Migration: migration.ID(id), Workload: "w", Source: "a", Target: "b", Epoch: 1, Deadline: epochZero.Add(time.Hour)}
}

func step(from migration.Phase, epoch migration.Epoch, evs ...migration.Event) Step {
	return Step{Migration: "m", From: from, Epoch: epoch, Events: evs, Reason: "because", Blackout: time.Second}
}

// at is a record whose migration m of w from a to b has reached a phase.
func at(t testing.TB, p migration.Phase) *book {
	t.Helper()
	b := settled(t).do(admit("m"))
	way := map[migration.Phase][]Change{
		migration.Copying:   {step(migration.Admitted, 1, migration.EvBegin)},
		migration.Frozen:    {step(migration.Admitted, 1, migration.EvBegin, migration.EvFreeze)},
		migration.Staged:    {step(migration.Admitted, 1, migration.EvBegin, migration.EvFreeze, migration.EvStaged)},
		migration.Held:      {step(migration.Admitted, 1, migration.EvBegin, migration.EvFreeze, migration.EvStaged, migration.EvHeld)},
		migration.Committed: {step(migration.Admitted, 1, migration.EvBegin, migration.EvFreeze, migration.EvStaged, migration.EvHeld, migration.EvCommit)},
		migration.Aborted:   {step(migration.Admitted, 1, migration.EvAbort)},
	}
	committed := way[migration.Committed][0]
	way[migration.Released] = []Change{committed, step(migration.Committed, 2, migration.EvReleased)}
	way[migration.Done] = []Change{committed, step(migration.Committed, 2, migration.EvReleased), step(migration.Released, 2, migration.EvConfirm)}
	way[migration.Reclaimed] = []Change{committed, step(migration.Committed, 2, migration.EvReclaim)}
	way[migration.RolledBack] = []Change{way[migration.Aborted][0], step(migration.Aborted, 1, migration.EvUndone)}
	return b.do(way[p]...)
}

func TestEveryRowOfTheProtocolAndNoOther(t *testing.T) {
	phases := []migration.Phase{migration.Admitted, migration.Copying, migration.Frozen, migration.Staged, migration.Held, migration.Committed,
		migration.Released, migration.Done, migration.Aborted, migration.Reclaimed, migration.RolledBack}
	events := []migration.Event{migration.EvBegin, migration.EvFreeze, migration.EvStaged, migration.EvHeld, migration.EvCommit, migration.EvAbort,
		migration.EvReleased, migration.EvConfirm, migration.EvReclaim, migration.EvUndone}
	for _, p := range phases {
		for _, ev := range events {
			b := at(t, p)
			before := b.Workloads["w"]
			err := b.try(step(p, before.Epoch, ev))
			to, wantErr := migration.Next(p, ev)
			if (err == nil) != (wantErr == nil) {
				t.Errorf("%s --%s-->: got %v, the table says %v", p, ev, err, wantErr)
			}
			if err != nil {
				continue
			}
			m, w := b.Migrations["m"], b.Workloads["w"]
			if m.Phase != to || m.Transitions[len(m.Transitions)-1].Phase != to {
				t.Errorf("%s --%s--> %s, not %s", p, ev, m.Phase, to)
			}
			owner, epoch := before.Owner, before.Epoch
			switch ev {
			case migration.EvCommit:
				owner, epoch = "b", 2
			case migration.EvReclaim:
				owner, epoch = "a", 3
			}
			if w.Owner != owner || w.Epoch != epoch {
				t.Errorf("after %s the workload is %s's at epoch %d, not %s's at %d", ev, w.Owner, w.Epoch, owner, epoch)
			}
			if (w.Migration == "") != to.Final() {
				t.Errorf("in %s the workload is moved by %q", to, w.Migration)
			}
		}
	}
}

func TestOnlyOneVerdictWins(t *testing.T) {
	b := at(t, migration.Held)
	b.do(step(migration.Held, 1, migration.EvCommit))
	for what, s := range map[string]Step{
		"an ABORT that was proposed before the COMMIT was seen": step(migration.Held, 1, migration.EvAbort),
		"the COMMIT again":                    step(migration.Held, 1, migration.EvCommit),
		"an ABORT of a committed migration":   step(migration.Committed, 2, migration.EvAbort),
		"a RECLAIM at the epoch before":       step(migration.Committed, 1, migration.EvReclaim),
		"a RECLAIM of what nobody has moved":  {Migration: "other", From: migration.Committed, Epoch: 2, Events: []migration.Event{migration.EvReclaim}},
		"a step without an event":             step(migration.Committed, 2),
		"a batch whose second event is wrong": step(migration.Committed, 2, migration.EvReleased, migration.EvAbort),
	} {
		if err := b.try(s); err == nil {
			t.Errorf("%s was taken", what)
		}
	}
}

func TestNothingIsReclaimedOnceTheSourceMayBeDead(t *testing.T) {
	b := at(t, migration.Released).do(Note{Migration: "m", Phase: migration.Released, ProbationOver: true})
	if err := b.try(step(migration.Released, 2, migration.EvReclaim)); errs.KindOf(err) != errs.Conflict {
		t.Errorf("got %v", err)
	}
	if err := at(t, migration.Committed).try(Note{Migration: "m", Phase: migration.Committed, ProbationOver: true}); err == nil {
		t.Error("a probation that has not begun has ended")
	}
}

func TestAdmission(t *testing.T) {
	with := func(f func(*Admit)) Admit { a := admit("m"); f(&a); return a }
	for _, c := range []struct {
		why   string
		first []Change
		admit Admit
		want  errs.Kind // 0: taken
	}{
		{"a workload that lives", nil, admit("m"), 0},
		{"a second one at once", []Change{admit("m0")}, admit("m"), errs.Conflict},
		{"the same id again", []Change{admit("m"), step(migration.Admitted, 1, migration.EvAbort), step(migration.Aborted, 1, migration.EvUndone)}, admit("m"), errs.Conflict},
		{"a retry after a rollback", []Change{admit("m"), step(migration.Admitted, 1, migration.EvAbort), step(migration.Aborted, 1, migration.EvUndone)}, admit("m2"), 0},
		{"an unknown workload", nil, with(func(a *Admit) { a.Workload = "x" }), errs.NotFound},
		{"an unknown target", nil, with(func(a *Admit) { a.Target = "x" }), errs.NotFound},
		{"to where it is", nil, with(func(a *Admit) { a.Target = "a" }), errs.Invalid},
		{"a source that is not its owner", nil, with(func(a *Admit) { a.Source = "c" }), errs.Conflict},
		{"an older epoch", nil, with(func(a *Admit) { a.Epoch = 0 }), errs.Conflict},
		{"a cordoned target", []Change{HostCordon{Name: "b", On: true}}, admit("m"), errs.Conflict},
		{"a workload that has exited", []Change{WorkloadExited{Name: "w", Epoch: 1}}, admit("m"), errs.Conflict},
		{"an id that is none", nil, with(func(a *Admit) { a.Migration = "../m" }), errs.Invalid},
	} {
		err := settled(t).do(c.first...).try(c.admit)
		if c.want == 0 && err != nil || c.want != 0 && (err == nil || errs.KindOf(err) != c.want) {
			t.Errorf("%s: got %v", c.why, err)
		}
	}
}

func TestOnlyCopyingIsLimited(t *testing.T) {
	b := settled(t).do(admit("m"), Bandwidth{Migration: "m", BytesPerSecond: 5}, step(migration.Admitted, 1, migration.EvBegin))
	if got := b.Migrations["m"].Options.Bandwidth; got != 5 {
		t.Errorf("its limit is %d", got)
	}
	b.do(Bandwidth{Migration: "m"})
	if got := b.Migrations["m"].Options.Bandwidth; got != workerapi.Unlimited {
		t.Errorf("without one it is %d, which asks for the policy's", got)
	}
	if err := b.try(Bandwidth{Migration: "m", BytesPerSecond: -1}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("less than nothing: %v", err)
	}
	b.do(step(migration.Copying, 1, migration.EvFreeze))
	if err := b.try(Bandwidth{Migration: "m", BytesPerSecond: 5}); errs.KindOf(err) != errs.Conflict {
		t.Errorf("a frozen one: %v", err)
	}
	if err := b.try(Bandwidth{Migration: "x"}); errs.KindOf(err) != errs.NotFound {
		t.Errorf("one that is not there: %v", err)
	}
}

func TestAHostsLimitStaysWhenItJoinsAgain(t *testing.T) {
	b := settled(t).do(HostBandwidth{Name: "a", BytesPerSecond: 7}, TokenNew{Hash: "again", Role: "worker", Expires: epochZero.Add(1 << 60)})
	b.do(HostJoin{Name: "a", Address: "a:2", Token: "again", Key: b.Hosts["a"].Key})
	if got := b.Hosts["a"].Bandwidth; got != 7 {
		t.Errorf("it is %d", got)
	}
	for name, n := range map[string]int64{"x": 7, "a": -7} {
		if err := b.try(HostBandwidth{Name: name, BytesPerSecond: n}); err == nil {
			t.Errorf("%s was limited to %d", name, n)
		}
	}
}

func TestANameThatIsUsedAgainBeginsAtAnEpochItNeverHad(t *testing.T) {
	b := settled(t).do(WorkloadExited{Name: "w", Epoch: 1}, WorkloadRaise{Name: "w", Epoch: 1, Owner: "b"},
		WorkloadExited{Name: "w", Epoch: 2}, WorkloadRemove{Name: "w", Epoch: 2}, WorkloadAdd{Spec: spec("w"), Owner: "a"})
	if e := b.Workloads["w"].Epoch; e != 3 {
		t.Errorf("it begins at epoch %d: the hosts know its name at 2", e)
	}
}

func TestATokenIsUsedOnce(t *testing.T) {
	b := newBook(t).do(TokenNew{Hash: "t", Role: "worker", Expires: epochZero.Add(time.Hour)},
		HostJoin{Name: "a", Address: "a:1", Token: "t", Key: "k"})
	b.do(HostJoin{Name: "a", Address: "a:1", Token: "t", Key: "k"}) // its reply was lost
	for why, c := range map[string]Change{
		"by another host":         HostJoin{Name: "b", Address: "b:1", Token: "t", Key: "k"},
		"with another key":        HostJoin{Name: "a", Address: "a:1", Token: "t", Key: "k2"},
		"for another role":        MemberJoin{Name: "a", Address: "a:1", Token: "t", Key: "k"},
		"that never was":          HostJoin{Name: "b", Address: "b:1", Token: "x", Key: "k"},
		"with a bad address":      HostJoin{Name: "a", Address: "a", Token: "t", Key: "k"},
		"with a name that climbs": HostJoin{Name: "../a", Address: "a:1", Token: "t", Key: "k"},
	} {
		if err := b.try(c); err == nil {
			t.Errorf("a token was taken %s", why)
		}
	}
	b.do(TokenNew{Hash: "old", Role: "worker", Expires: epochZero.Add(time.Hour)})
	b.index += 3600
	if err := b.try(HostJoin{Name: "b", Address: "b:1", Token: "old", Key: "k"}); errs.KindOf(err) != errs.Forbidden {
		t.Errorf("an expired token: %v", err)
	}
}

func TestAHostWhoseCertificatesHaveExpiredJoinsAgainByItsKey(t *testing.T) {
	b := settled(t).do(HostCordon{Name: "a", On: true})
	for _, hash := range []string{"again", "thief"} {
		b.do(TokenNew{Hash: hash, Role: "worker", Expires: epochZero.Add(time.Hour)})
	}
	if err := b.try(HostJoin{Name: "a", Address: "a:7202", Token: "thief", Key: "another"}); errs.KindOf(err) != errs.Conflict {
		t.Errorf("another machine took its name: %v", err)
	}
	b.do(HostJoin{Name: "a", Address: "a:9", Token: "again", Key: "key-a"})
	if h := b.Hosts["a"]; h.Key != "key-a" || h.Address != "a:9" || !h.Cordoned || b.Workloads["w"].Owner != "a" {
		t.Errorf("it is %+v, and w is %s's", h, b.Workloads["w"].Owner)
	}
}

func TestTheLastAdminStays(t *testing.T) {
	b := newBook(t).do(Found{Cluster: "test", Name: "c1", Address: "c1:1", Operator: &api.Operator{Name: "ada", Key: "k1", Role: "admin"}})
	for _, role := range []string{"", "viewer"} {
		if err := b.try(OperatorSet{api.Operator{Name: "ada", Key: "k1", Role: role}}); errs.KindOf(err) != errs.Conflict {
			t.Errorf("role %q: %v", role, err)
		}
	}
	b.do(OperatorSet{api.Operator{Name: "bob", Key: "k2", Role: "admin"}}, OperatorSet{api.Operator{Name: "ada"}})
	if err := b.try(OperatorSet{api.Operator{Name: "eve", Key: "k2", Role: "viewer"}}); errs.KindOf(err) != errs.Conflict {
		t.Errorf("two operators have one key: %v", err)
	}
}

func TestAHostThatOwnsSomethingStays(t *testing.T) {
	for _, c := range []struct {
		phase migration.Phase
		host  string
		ok    bool
	}{
		{migration.Copying, "a", false}, {migration.Copying, "b", false}, {migration.Copying, "c", true},
		{migration.Released, "a", true}, {migration.Released, "b", false},
		{migration.Aborted, "a", false}, {migration.Aborted, "b", true},
	} {
		if err := at(t, c.phase).try(HostRemove{c.host}); (err == nil) != c.ok {
			t.Errorf("%s in a migration that is %s: %v", c.host, c.phase, err)
		}
	}
}

func TestACommandThatComesTwiceActsOnce(t *testing.T) {
	b := settled(t).do(admit("m"))
	cmd, _ := NewCommand("same", epochZero, "test", step(migration.Admitted, 1, migration.EvBegin))
	for i := range 2 {
		if err := b.Apply(uint64(100+i), cmd); err != nil {
			t.Errorf("delivery %d: %v", i+1, err)
		}
	}
	if n := len(b.Migrations["m"].Transitions); n != 2 {
		t.Errorf("it has %d transitions", n)
	}
}

func TestAnUnknownCommandIsNotSkipped(t *testing.T) {
	err := New().Apply(1, Command{Type: "from-the-future", ID: "x"})
	if err == nil || !strings.Contains(err.Error(), ErrUnknownType.Error()) {
		t.Errorf("got %v", err)
	}
}

func TestASnapshotIsTheRecord(t *testing.T) {
	b := at(t, migration.Released)
	var buf bytes.Buffer
	if err := b.Save(&buf); err != nil {
		t.Fatal(err)
	}
	whole := buf.Bytes()
	got, err := Load(bytes.NewReader(whole))
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(b.State, got); d != "" {
		t.Error(d)
	}
	for i := range whole {
		torn := bytes.Clone(whole)
		torn[i] ^= 0x20
		if s, err := Load(bytes.NewReader(torn)); err == nil && cmp.Diff(b.State, s) != "" {
			t.Fatalf("a snapshot with byte %d changed was taken for another record", i)
		}
		if _, err := Load(bytes.NewReader(whole[:i])); err == nil {
			t.Fatalf("a snapshot torn at byte %d was taken", i)
		}
	}
}

func TestAViewStaysAsItWas(t *testing.T) {
	b := at(t, migration.Held)
	view := b.Clone()
	before, _ := json.Marshal(view)
	b.do(step(migration.Held, 1, migration.EvCommit), HostCordon{Name: "c", On: true}, step(migration.Committed, 2, migration.EvReleased))
	if after, _ := json.Marshal(view); string(after) != string(before) {
		t.Error("a later command changed an earlier view")
	}
}
