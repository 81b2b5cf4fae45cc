package rules

import (
	"encoding/json"
	"time"

	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/journal"
)

// The steps a session writes into the journal. They stay what they are: an older worker's journal is read by a newer one.
const (
	stepOpen     = "open"     // will: workerapi.OpenRequest without its inventory
	stepThrottle = "throttle" // source; will: Throttled
	stepFreeze   = "freeze"   // source; did: Frozen
	stepThaw     = "thaw"     // source; did: the dump did not reach its hold, the tree runs
	stepHold     = "hold"     // target; did: Held
	stepVerdict  = "verdict"  // both: Ruling
	stepConfirm  = "confirm"
)

// Ruling is a verdict with the epoch it came with.
type Ruling struct {
	Verdict migration.Verdict `json:"verdict"`
	Epoch   migration.Epoch   `json:"epoch"`
}

// Frozen is what must be known of a frozen tree after a restart.
type Frozen struct {
	At time.Time `json:"at"`
}

// Held is what must be known of a held tree after a restart.
type Held struct {
	Pid    int    `json:"pid"`
	Digest string `json:"digest,omitempty"` // of what it was rebuilt from; an older worker did not write it
}

// Throttled is what must be known after a restart of a tree that was being throttled.
type Throttled struct {
	Before string `json:"before,omitempty"` // as tree.Throttle's
}

// records are what the journal's ops write. A record without done says that the step is about to be done.
var records = map[Op]struct {
	step string
	done bool
}{
	WriteOpen: {stepOpen, false}, WriteOpened: {stepOpen, true}, WriteEnded: {stepVerdict, true},
	WriteThrottle: {stepThrottle, false}, WriteThrottled: {stepThrottle, true},
	WriteFreeze: {stepFreeze, false}, WriteThawed: {stepThaw, true}, WriteFrozen: {stepFreeze, true},
	WriteHold: {stepHold, false}, WriteHeld: {stepHold, true},
	WriteVerdict: {stepVerdict, false}, WriteRuled: {stepVerdict, true},
	WriteConfirm: {stepConfirm, false}, WriteConfirmed: {stepConfirm, true},
}

// Record is what op writes; data is what doing or undoing the step again needs, nil if nothing.
func (op Op) Record(id migration.ID, data any) (journal.Record, error) {
	r := journal.Record{Migration: id, Step: records[op].step, Done: records[op].done}
	if data == nil {
		return r, nil
	}
	raw, err := json.Marshal(data)
	if err != nil {
		return r, errs.New(errs.Failed, "journal step %s: %w", r.Step, err)
	}
	r.Data = raw
	return r, nil
}

// Past is what a journal says of one session.
type Past struct {
	Req       workerapi.OpenRequest
	freezing  bool // a source's dump had begun and was not known to have failed
	Throttled *Throttled
	Frozen    *Frozen
	Held      *Held
	Ruling    Ruling
	ruled     bool // the verdict had been acted on
	committed bool // it was Commit, or was before a Reclaim
	confirmed bool
}

// Over says how a session that had ended did so, "" if it had not.
func (p Past) Over() workerapi.Step {
	switch {
	case p.confirmed:
		return workerapi.StepDone
	case p.ruled && p.Ruling.Verdict != migration.Commit:
		return workerapi.StepUndone
	}
	return ""
}

// Replay reads what became of each session, in the order in which they were opened.
func Replay(records []journal.Record) ([]*Past, error) {
	var order []*Past
	byID := map[migration.ID]*Past{}
	for _, r := range records {
		p := byID[r.Migration]
		if p == nil {
			if r.Step != stepOpen {
				return nil, errs.New(errs.Failed, "journal record %d is step %s of migration %s, which it has not opened", r.Seq, r.Step, r.Migration)
			}
			p = &Past{}
			byID[r.Migration] = p
			order = append(order, p)
		}
		if err := p.add(r); err != nil {
			return nil, errs.New(errs.Failed, "journal record %d, step %s of migration %s: %w", r.Seq, r.Step, r.Migration, err)
		}
	}
	return order, nil
}

func (p *Past) add(r journal.Record) error {
	switch {
	case r.Step == stepOpen && !r.Done:
		*p = Past{} // an opening that failed may be followed by another one
		return json.Unmarshal(r.Data, &p.Req)
	case r.Step == stepOpen:
	case r.Step == stepThrottle && !r.Done:
		p.Throttled = &Throttled{}
		return json.Unmarshal(r.Data, p.Throttled)
	case r.Step == stepThrottle:
		p.Throttled = nil
	case r.Step == stepFreeze && !r.Done:
		p.freezing = true
	case r.Step == stepFreeze:
		p.Frozen = &Frozen{}
		return json.Unmarshal(r.Data, p.Frozen)
	case r.Step == stepThaw:
		p.freezing, p.Frozen = false, nil
	case r.Step == stepHold && !r.Done:
	case r.Step == stepHold:
		p.Held = &Held{}
		return json.Unmarshal(r.Data, p.Held)
	case r.Step == stepVerdict:
		p.ruled = r.Done
		err := json.Unmarshal(r.Data, &p.Ruling)
		p.committed = p.committed || p.Ruling.Verdict == migration.Commit
		return err
	case r.Step == stepConfirm && !r.Done:
	case r.Step == stepConfirm:
		p.confirmed = true
	default:
		return errs.New(errs.Failed, "a newer worker has written it").WithNext("start the version of drover that ran here last")
	}
	return nil
}
