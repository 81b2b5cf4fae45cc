package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"drover/engine"
	"drover/internal/errs"
	"drover/internal/migration"
)

func TestAHoldOutlivesTheWorkerThatMadeIt(t *testing.T) {
	m := &model{}
	_, c := serving(t, m)
	if h, err := c.Hold(t.Context()); h != nil || err != nil {
		t.Fatalf("a hold before any dump: %v, %v", h, err)
	}
	if _, err := c.Dump(t.Context(), engine.DumpRequest{Tree: engine.Tree{Pid: 42}, Images: images(t)}); err != nil {
		t.Fatal(err)
	}
	// Every call is a connection of its own: what follows comes from another worker as far as the keeper can tell.
	h, err := (&Client{Dir: c.Dir}).HoldOf(t.Context(), false)
	if err != nil || h == nil || h.Pid() != 42 || h.Stats().Frozen != 5 {
		t.Fatalf("the hold: %+v, %v", h, err)
	}
	if h, err := c.HoldOf(t.Context(), true); h != nil || err != nil {
		t.Errorf("a dump's hold is given as a restore's: %v, %v", h, err)
	}
	if err := c.Quit(t.Context()); errs.KindOf(err) != errs.Conflict {
		t.Errorf("the keeper would leave its hold alone: %v", err)
	}
	if err := c.Forget(t.Context()); errs.KindOf(err) != errs.Conflict {
		t.Errorf("the keeper would forget a hold that has not ended: %v", err)
	}
	if _, err := c.Dump(t.Context(), engine.DumpRequest{Images: images(t)}); !errors.Is(err, engine.ErrBusy) {
		t.Errorf("a second dump beside a hold: %v", err)
	}
	for range 2 {
		if s, err := h.Commit(t.Context()); err != nil || s.Frozen != 6 {
			t.Errorf("commit: %+v, %v", s, err)
		}
	}
	if err := h.Abort(t.Context()); !errors.Is(err, engine.ErrDecided) {
		t.Errorf("abort after commit: %v", err)
	}
	if again, err := c.Hold(t.Context()); err != nil || again == nil {
		t.Errorf("a worker that crashed after its verdict cannot repeat it: %v, %v", again, err)
	}
	if err := c.Forget(t.Context()); err != nil {
		t.Error(err)
	}
	if h, err := c.Hold(t.Context()); h != nil || err != nil {
		t.Errorf("a hold after it was forgotten: %v, %v", h, err)
	}
}

func TestAWorkerThatGoesAwayAnswersNothing(t *testing.T) {
	m := &model{}
	k, c := serving(t, m)
	if _, err := c.Dump(t.Context(), engine.DumpRequest{Images: images(t)}); err != nil {
		t.Fatal(err)
	}
	k.mu.Lock()
	body, err := json.Marshal(holdBody{ID: k.id})
	k.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	close(gone) // its socket
	if _, err := k.doHold(&call{ctx: t.Context(), gone: gone}, request{Op: opAwaitLost, Body: body}); err == nil {
		t.Error("the hold passes for lost")
	}
	if v := m.made()[0].decided(); v != migration.Undecided {
		t.Errorf("the hold was ended by %s", v)
	}
}

func TestAWorkerThatGoesAwayAtTheFreezeAbortsTheDump(t *testing.T) {
	m := &model{}
	_, c := serving(t, m)
	conn, err := c.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ask := request{Op: opDump, Body: []byte(`{"request":{},"ask":true}`)}
	if err := send(conn, ask, images(t)); err != nil {
		t.Fatal(err)
	}
	var a answer
	if _, err := receive(conn, &a); err != nil || !a.Asks {
		t.Fatalf("the keeper did not ask at the freeze: %+v, %v", a, err)
	}
	conn.Close()
	if h, err := c.Hold(t.Context()); h != nil || err != nil { // which waits for its end
		t.Errorf("it left a hold: %v, %v", h, err)
	}
	if _, err := c.Dump(t.Context(), engine.DumpRequest{Images: images(t)}); err != nil {
		t.Fatal(err)
	}
	if n := len(m.made()); n != 1 {
		t.Errorf("the dump without a worker was carried through: %d holds", n)
	}
}

// Whoever looks while CRIU is at work must not take the tree for one that nobody holds, nor undo anything beneath it.
func TestAHoldThatNobodyHasHeardOfIsEnded(t *testing.T) {
	m := &model{goOn: make(chan struct{}), frozen: make(chan struct{})}
	k, c := serving(t, m)
	conn, err := c.connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := send(conn, request{Op: opDump, Body: []byte(`{"request":{}}`)}, images(t)); err != nil {
		t.Fatal(err)
	}
	<-m.frozen
	conn.Close()
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if h, err := c.Hold(soon); !errors.Is(err, engine.ErrBusy) {
		t.Errorf("in the middle of a dump the keeper says that it holds %v, %v", h, err)
	}
	soon, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := c.Undo(soon, engine.Tree{}); !errors.Is(err, engine.ErrBusy) {
		t.Errorf("a dump was undone beneath CRIU: %v", err)
	}
	if _, err := c.Dump(t.Context(), engine.DumpRequest{Images: images(t)}); !errors.Is(err, engine.ErrBusy) {
		t.Errorf("a second dump beside one that goes on: %v", err)
	}
	asked := make(chan error, 1)
	go func() {
		h, err := c.Hold(t.Context())
		if h != nil {
			err = errors.Join(err, errors.New("there is a hold"))
		}
		asked <- err
	}()
	close(m.goOn)
	if err := <-asked; err != nil {
		t.Errorf("after the dump: %v", err)
	}
	if all := m.made(); len(all) != 1 || all[0].decided() != migration.Abort {
		t.Errorf("the dump came to %d holds, and was not undone", len(all))
	}
	if err := k.mayHold(); err != nil {
		t.Error(err)
	}
}

// A hold that its worker has not heard of, because the answer came too late for it, ends with the undoing.
func TestUndoEndsAHold(t *testing.T) {
	m := &model{}
	_, c := serving(t, m)
	if _, err := c.Dump(t.Context(), engine.DumpRequest{Images: images(t)}); err != nil {
		t.Fatal(err)
	}
	if err := (&Client{Dir: c.Dir}).Undo(t.Context(), engine.Tree{}); err != nil {
		t.Fatal(err)
	}
	if v := m.made()[0].decided(); v != migration.Abort {
		t.Errorf("the hold was ended by %q", v)
	}
	if err := c.Forget(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTheFreezesErrorComesBackToWhoGaveIt(t *testing.T) {
	_, c := serving(t, &model{})
	no := errs.New(errs.Refused, "not now").WithNext("later")
	_, err := c.Dump(t.Context(), engine.DumpRequest{Images: images(t), AtFreeze: func(context.Context) error { return no }})
	if err == nil || errs.KindOf(err) != errs.Refused || errs.NextOf(err) != "later" || err.Error() != "not now" {
		t.Errorf("got %v", err)
	}
}

func TestACancelledDumpIsGivenUp(t *testing.T) {
	m := &model{wait: true, frozen: make(chan struct{})}
	_, c := serving(t, m)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-m.frozen
		cancel()
	}()
	if _, err := c.Dump(ctx, engine.DumpRequest{Images: images(t)}); errs.KindOf(err) != errs.Aborted {
		t.Errorf("got %v", err)
	}
	if h, err := c.Hold(t.Context()); h != nil || err != nil {
		t.Errorf("it left a hold: %v, %v", h, err)
	}
}

func TestDescriptorsReachTheEngine(t *testing.T) {
	m := &model{}
	_, c := serving(t, m)
	ours, theirs, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	if _, err := c.Dump(t.Context(), engine.DumpRequest{Images: images(t), Pages: theirs}); err != nil {
		t.Fatal(err)
	}
	theirs.Close() // the keeper's copy is closed too: else this would never end
	if b, err := io.ReadAll(ours); err != nil || string(b) != "pages" {
		t.Errorf("the pages are %q, %v", b, err)
	}
	h, err := c.Hold(t.Context())
	if err == nil {
		err = h.Abort(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(path, []byte("namespace"), 0o600); err != nil {
		t.Fatal(err)
	}
	ns, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	r, err := c.Restore(t.Context(), engine.RestoreRequest{Images: images(t), Inherit: map[string]*os.File{"net": ns}})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := c.State(t.Context()); err != nil || s.Pid != r.Pid() {
		t.Errorf("the restored tree is not watched: %v, %v", s, err)
	}
	if err := r.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestALazyRequestStaysOne(t *testing.T) {
	m := &model{}
	_, c := serving(t, m)
	for _, lazy := range []bool{true, false} {
		h, err := c.Dump(t.Context(), engine.DumpRequest{Images: images(t), Lazy: lazy})
		if err == nil {
			err = h.Abort(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		if h, err = c.Restore(t.Context(), engine.RestoreRequest{Images: images(t), Lazy: lazy}); err == nil {
			err = h.Abort(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if want := []bool{true, true, false, false}; !slices.Equal(m.lazy, want) {
		t.Errorf("asked for %v, got %v", want, m.lazy)
	}
}

func TestARefusedCommitLeavesTheHold(t *testing.T) {
	m := &model{full: errs.New(errs.Conflict, "not filled")}
	_, c := serving(t, m)
	dir := images(t)
	temp, err := os.MkdirTemp("/tmp", ".criu.mntns.")
	if err != nil {
		t.Fatal(err)
	}
	named := temp[:len("/tmp/.criu.mntns.")] + "aB3xY9" // six characters, as CRIU names it
	if err := os.Rename(temp, named); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir.Name(), "restore.log"), []byte("mnt: temporary root "+named+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h, err := c.Restore(t.Context(), engine.RestoreRequest{Images: dir, Lazy: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Commit(t.Context()); errs.KindOf(err) != errs.Conflict {
		t.Fatalf("got %v", err)
	}
	if again, err := c.Hold(t.Context()); err != nil || again == nil {
		t.Errorf("the hold is gone: %v", err)
	}
	if err := h.Abort(t.Context()); err != nil {
		t.Errorf("abort: %v", err)
	}
	if _, err := os.Stat(named); !os.IsNotExist(err) {
		t.Errorf("CRIU's temporary directory is left: %v", err)
		os.Remove(named)
	}
}

// A tree that has ended takes its keeper with it: what it left running is killed all the same, or nothing could be proved of it.
func TestAKillNeedsNoKeeper(t *testing.T) {
	nobody := &Client{Dir: Dir(t.TempDir())}
	if err := nobody.Kill(t.Context(), engine.Tree{Cgroup: filepath.Join(t.TempDir(), "gone")}); err != nil {
		t.Errorf("of a group that is gone: %v", err)
	}
	if err := nobody.Kill(t.Context(), engine.Tree{Pid: 7}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("without a group: %v", err)
	}
}

func TestErrorsKeepTheirKindTheirNextStepAndTheirSentinel(t *testing.T) {
	_, c := serving(t, &model{})
	if _, err := c.PreDump(t.Context(), engine.PreDumpRequest{Images: images(t)}); !errors.Is(err, engine.ErrNoTracking) {
		t.Errorf("pre-dump: %v", err)
	}
	err := c.Continue(t.Context(), engine.Tree{Pid: 7}, []int{1, 2})
	if errs.KindOf(err) != errs.Refused || err.Error() != "7 keeps [1 2]" || errs.NextOf(err) != "do this" {
		t.Errorf("continue: %v", err)
	}
}

func TestEverySentinelCrossesTheWire(t *testing.T) {
	for name, sent := range sentinels {
		got := toWire(errs.New(errs.Refused, "it says: %w", sent)).err()
		for other, err := range sentinels {
			if errors.Is(got, err) != (other == name) {
				t.Errorf("%s: errors.Is says %t of %s", name, errors.Is(got, err), other)
			}
		}
	}
}

func TestALostHoldIsNoticed(t *testing.T) {
	m := &model{}
	_, c := serving(t, m)
	h, err := c.Dump(t.Context(), engine.DumpRequest{Images: images(t)})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-h.Lost():
		t.Fatal("lost before anything happened")
	default:
	}
	close(m.made()[0].lost)
	<-h.Lost()
	if err := h.Abort(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestACommitToADeadKeeperIsLost(t *testing.T) {
	h := newHold(&Client{Dir: Dir(t.TempDir())}, holdAnswer{ID: 1, Kind: opRestore})
	if _, err := h.Commit(t.Context()); !errors.Is(err, engine.ErrLost) {
		t.Errorf("it can be committed later: %v", err)
	}
}

func TestWhatIsNotARequestHarmsNobody(t *testing.T) {
	_, c := serving(t, &model{})
	for _, garbage := range []string{"{", `{"op":"nosuch"}`, `{"op":"dump","body":{}}`, `{"op":"restore","body":{"inherit":["a"]}}`, `{"op":"commit","body":{"id":9}}`, `{"op":"start","body":[]}`} {
		conn, err := c.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(garbage)); err != nil {
			t.Fatal(err)
		}
		var a answer
		_, err = receive(conn, &a)
		if err == nil && a.Error == nil {
			t.Errorf("%s was answered with %s", garbage, a.Body)
		}
		conn.Close()
	}
	if err := send(&net.UnixConn{}, request{Body: []byte(`"` + strings.Repeat("x", maxPacket) + `"`)}); errs.KindOf(err) != errs.Invalid {
		t.Errorf("a message that is too long: %v", err)
	}
	if f, err := c.Probe(t.Context()); err != nil || f.Engine != "model" {
		t.Errorf("the keeper is harmed: %+v, %v", f, err)
	}
}

func TestThereIsOneKeeperOfADirectory(t *testing.T) {
	_, c := serving(t, &model{})
	if _, _, err := open(c.Dir); errs.KindOf(err) != errs.Conflict {
		t.Errorf("a second keeper: %v", err)
	}
	if c.dead() {
		t.Error("a living keeper is taken for dead")
	}
	empty := &Client{Dir: Dir(t.TempDir())}
	if _, err := empty.State(t.Context()); errs.KindOf(err) != errs.Unavailable {
		t.Errorf("asking where there is no keeper: %v", err)
	}
}

func TestUsersAreNumbers(t *testing.T) {
	for _, c := range []struct {
		user     string
		uid, gid int
		ok       bool
	}{{"", 0, 0, true}, {"33", 33, 33, true}, {"33:44", 33, 44, true}, {"www-data", 0, 0, false}, {"33:", 0, 0, false}, {"-1", 0, 0, false}, {"1:2:3", 0, 0, false}} {
		uid, gid, err := IDs(c.user)
		if (err == nil) != c.ok || uid != c.uid && c.ok || gid != c.gid && c.ok {
			t.Errorf("%q: got %d:%d, %v", c.user, uid, gid, err)
		}
	}
}
