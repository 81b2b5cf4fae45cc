package agent

import (
	"context"
	"time"

	coordinatorapi "drover/coordinator/api"
	"drover/internal/errs"
	"drover/internal/migration"
	workerapi "drover/worker/api"
)

const (
	// silence is how long no leader may have spoken of a session before the worker asks for its verdict.
	silence    = 2 * time.Second
	askEvery   = 500 * time.Millisecond // how often the worker looks for such sessions
	askTimeout = 5 * time.Second
	// grumbleEvery is how often a session that nobody can decide is in the log.
	grumbleEvery = time.Minute
)

// asked remembers when a session's verdict was last asked for and last complained about.
type asked struct{ last, grumbled map[migration.ID]time.Time }

func newAsked() asked {
	return asked{map[migration.ID]time.Time{}, map[migration.ID]time.Time{}}
}

// pollVerdicts asks the coordinators for the verdict on every session of which no leader speaks, and acts on it. While none can
// be reached what is held stays held: only the record ends that.
func (a *Agent) pollVerdicts(ctx context.Context) {
	tick := time.NewTicker(askEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		unheard := a.Unheard(silence)
		for _, s := range unheard {
			if time.Since(a.asked.last[s.Migration]) < silence {
				continue
			}
			a.asked.last[s.Migration] = time.Now()
			a.askVerdict(ctx, s)
		}
		a.asked.forgetAllBut(unheard)
	}
}

func (a *Agent) askVerdict(ctx context.Context, s workerapi.SessionState) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	var said coordinatorapi.VerdictReply
	err := a.coordinators.call(ctx, func(c coordinatorapi.Coordinator) (err error) {
		said, err = c.Verdict(ctx, s.Migration)
		return err
	})
	if err == nil {
		if err = a.Learn(ctx, s.Migration, said.Phase); err == nil {
			return
		}
	}
	if s.DryRun && errs.KindOf(err) == errs.NotFound { // nobody waits for its forecast any more, and nothing is held
		if err = a.Learn(ctx, s.Migration, migration.Aborted); err == nil {
			return
		}
	}
	if time.Since(a.asked.grumbled[s.Migration]) < grumbleEvery {
		return
	}
	a.asked.grumbled[s.Migration] = time.Now()
	log := a.log.With("migration", s.Migration, "workload", s.Workload, "role", s.Role, "step", s.Step, "error", err)
	if errs.KindOf(err) == errs.NotFound {
		log.Error("the record does not know a migration that is open here; what is held stays held", "next", "look at it with `drover show "+s.Workload+"`")
		return
	}
	log.Warn("no verdict to be had; what is held stays held")
}

func (k asked) forgetAllBut(open []workerapi.SessionState) {
	still := map[migration.ID]bool{}
	for _, s := range open {
		still[s.Migration] = true
	}
	for id := range k.last {
		if !still[id] {
			delete(k.last, id)
			delete(k.grumbled, id)
		}
	}
}
