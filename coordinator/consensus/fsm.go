package consensus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"drover/coordinator/record"
	"drover/internal/errs"
)

// fsm adapts the record to Raft. Raft calls it from one goroutine; mu guards the record against readers.
type fsm struct {
	mu      sync.RWMutex
	state   *record.State
	changed chan struct{} // closed and replaced at every change
}

func newFSM() *fsm { return &fsm{state: record.New(), changed: make(chan struct{})} }

// Apply returns nil or the error with which the record refused the command.
func (f *fsm) Apply(l *raft.Log) any {
	var c record.Command
	if err := json.Unmarshal(l.Data, &c); err != nil {
		return errs.New(errs.Invalid, "decode log entry %d: %w", l.Index, err)
	}
	c.Term = l.Term
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.state.Apply(l.Index, c); err != nil {
		if errors.Is(err, record.ErrUnknownType) {
			panic(fmt.Sprintf("%v: upgrade this coordinator", err)) //nolint:forbidigo // to skip an entry is to part from the others
		}
		return err
	}
	f.wake()
	return nil
}

func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return snapshot{f.state.Clone()}, nil
}

func (f *fsm) Restore(r io.ReadCloser) error {
	defer r.Close()
	state, err := record.Load(r)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = state
	f.wake()
	return nil
}

// wake tells everyone who waits that the record has changed; the caller holds mu.
func (f *fsm) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// snapshot is a view of the record that no later command changes.
type snapshot struct{ state *record.State }

func (s snapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.state.Save(sink); err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

func (snapshot) Release() {}
