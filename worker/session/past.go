package session

import (
	"encoding/json"

	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
	"drover/worker/journal"
)

// The steps a session writes into the journal. They stay what they are: an older worker's journal is read by a newer one.
const (
	stepOpen     = "open"     // will: workerapi.OpenRequest without its inventory
	stepThrottle = "throttle" // source; will: throttled
	stepFreeze   = "freeze"   // source; did: frozen
	stepThaw     = "thaw"     // source; did: the dump did not reach its hold, the tree runs
	stepHold     = "hold"     // target; did: held
	stepVerdict  = "verdict"  // both: ruling
	stepConfirm  = "confirm"
)

// ruling is a verdict with the epoch it came with.
type ruling struct {
	Verdict migration.Verdict `json:"verdict"`
	Epoch   migration.Epoch   `json:"epoch"`
}

// past is what a journal says of one session.
type past struct {
	req       workerapi.OpenRequest
	freezing  bool // a source's dump had begun and was not known to have failed
	throttled *throttled
	frozen    *frozen
	held      *held
	ruling    ruling
	ruled     bool // the verdict had been acted on
	committed bool // it was Commit, or was before a Reclaim
	confirmed bool
}

// over says how a session that had ended did so, "" if it had not.
func (p past) over() workerapi.Step {
	switch {
	case p.confirmed:
		return workerapi.StepDone
	case p.ruled && p.ruling.Verdict != migration.Commit:
		return workerapi.StepUndone
	}
	return ""
}

// replay reads what became of each session, in the order in which they were opened.
func replay(records []journal.Record) ([]*past, error) {
	var order []*past
	byID := map[migration.ID]*past{}
	for _, r := range records {
		p := byID[r.Migration]
		if p == nil {
			if r.Step != stepOpen {
				return nil, errs.New(errs.Failed, "journal record %d is step %s of migration %s, which it has not opened", r.Seq, r.Step, r.Migration)
			}
			p = &past{}
			byID[r.Migration] = p
			order = append(order, p)
		}
		if err := p.add(r); err != nil {
			return nil, errs.New(errs.Failed, "journal record %d, step %s of migration %s: %w", r.Seq, r.Step, r.Migration, err)
		}
	}
	return order, nil
}

func (p *past) add(r journal.Record) error {
	switch {
	case r.Step == stepOpen && !r.Done:
		*p = past{} // an opening that failed may be followed by another one
		return json.Unmarshal(r.Data, &p.req)
	case r.Step == stepOpen:
	case r.Step == stepThrottle && !r.Done:
		p.throttled = &throttled{}
		return json.Unmarshal(r.Data, p.throttled)
	case r.Step == stepThrottle:
		p.throttled = nil
	case r.Step == stepFreeze && !r.Done:
		p.freezing = true
	case r.Step == stepFreeze:
		p.frozen = &frozen{}
		return json.Unmarshal(r.Data, p.frozen)
	case r.Step == stepThaw:
		p.freezing, p.frozen = false, nil
	case r.Step == stepHold && !r.Done:
	case r.Step == stepHold:
		p.held = &held{}
		return json.Unmarshal(r.Data, p.held)
	case r.Step == stepVerdict:
		p.ruled = r.Done
		err := json.Unmarshal(r.Data, &p.ruling)
		p.committed = p.committed || p.ruling.Verdict == migration.Commit
		return err
	case r.Step == stepConfirm && !r.Done:
	case r.Step == stepConfirm:
		p.confirmed = true
	default:
		return errs.New(errs.Failed, "a newer worker has written it").WithNext("start the version of drover that ran here last")
	}
	return nil
}
