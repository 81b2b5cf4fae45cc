package keeper

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"

	"drover/engine"
)

// brokenHold is one whose CRIU heard the commit and died of it.
type brokenHold struct{ engine.Hold }

func (brokenHold) Commit(context.Context) (engine.Stats, error) {
	return engine.Stats{}, engine.ErrLost
}
func (brokenHold) Abort(context.Context) error { return engine.ErrDecided }

func TestAKeeperWhoseCRIUDiedInTheReleaseCanStillBeEnded(t *testing.T) {
	k := &keeper{log: slog.New(slog.DiscardHandler), hold: brokenHold{}, id: 7, kind: opRestore, ended: make(chan struct{})}
	body, err := json.Marshal(holdBody{ID: 7})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.doHold(&call{ctx: t.Context()}, request{Op: opCommit, Body: body}); err == nil || k.mayHold() == nil {
		t.Errorf("after a release that failed (%v) the keeper may quit before anybody has swept the tree", err)
	}
	if _, err := k.doHold(&call{ctx: t.Context()}, request{Op: opAbort, Body: body}); err == nil {
		t.Error("what was committed has been aborted")
	}
	if err := k.mayHold(); err != nil {
		t.Errorf("the keeper stays for ever: %v", err)
	}
}
